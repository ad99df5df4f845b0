"""Finished evaluations with made-up scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from usbench.evaluate.segmentation import METRICS
from usbench.runs.store import Store, digests_of, write_json
from usbench.spec import key_of

IMAGES, GROUPS = 30, 12


def made_up_scores(seed: int, gain: float) -> pd.DataFrame:
    """Every sixth image is normal."""
    rng = np.random.default_rng([seed, 7])
    scores = pd.DataFrame(
        {
            "name": [f"i{k}" for k in range(IMAGES)], "group": np.arange(IMAGES) % GROUPS, "label": 0,
            "lesion": np.arange(IMAGES) % 6 != 5,
        }
    )  # fmt: skip
    for metric in METRICS:
        scores[metric] = rng.uniform(0.4, 0.8, IMAGES) + gain
    scores["area_predicted"] = np.where(np.arange(IMAGES) % 12 == 5, 0, 10)
    scores["area_truth"] = 10
    return scores


def put(
    store: Store, loss: str, seed: int, gain: float, *, arena: str = "a", fraction: float = 100.0,
    scores: pd.DataFrame | None = None, facts: dict[str, Any] | None = None, steps: int = 4,
    versions: dict[str, str] | None = None, **row_too: Any,
) -> pd.DataFrame:  # fmt: skip
    """A finished evaluation with its trainings; `steps` are those of the pretraining."""
    scores = made_up_scores(seed, gain) if scores is None else scores
    baseline = {"none": "plain", "none-long": "long"}.get(loss, "")
    row = {
        "loss": loss, "aug": "none", "backbone": "unet-tiny", "init": "random", "pretrain_data": "none",
        "train_data": "x", "test_data": "x", "shift": "in", "label_fraction": fraction, "protocol": "segment",
        "baseline": baseline, "reconstruction": False, "seed": seed, "device": "cpu",
        "precision": "float32", "fold": "0", "leaks": 0, "size": 64,
        "arena": arena, "setting": f"{loss}-{arena}", **row_too,
    }  # fmt: skip
    said = {
        "pretrain_labels": "none", "selection": "inner", "dice_inner": 0.5, "device_seconds": 1.0, "peak_mib": 10,
        "steps": 5, "images_seen": 50, "pixels_seen": 500, **(facts or {}),
    }  # fmt: skip
    pretrain = {"loss": loss, "seed": seed, "schedule": {"steps": steps, "batch": 8}}
    tuned = {
        "seed": seed, "pretrained": None if baseline else key_of(pretrain), "schedule": {"steps": 1, "lr": 0.1},
        "labelled": [loss, arena.partition("/")[0], fraction],
    }  # fmt: skip
    tested = {"finetuned": key_of(tuned), "images": row["test_data"], "of": [arena, row["shift"]]}
    for kind, identity in (("pretrain", pretrain), ("finetune", tuned), ("evaluate", tested)):
        folder = store.stages / f"{kind}-{key_of(identity)}"
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "evaluate":
            scores.to_csv(folder / "scores.csv", index=False)
        record = {"kind": kind, "identity": identity, "row": row, "facts": said, "versions": versions or {}}
        write_json(folder / "record.json", {**record, "files": digests_of(folder)})
    return scores
