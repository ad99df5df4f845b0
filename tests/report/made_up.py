"""Finished evaluations with made-up scores."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from usbench.data.pack import Pack
from usbench.data.packing import write_pack
from usbench.evaluate.segmentation import METRICS, pack_masks
from usbench.items import Item
from usbench.runs.records import digests_of, write_json
from usbench.runs.store import Store
from usbench.spec import key_of

IMAGES, GROUPS = 30, 12
STEPS = {"pretrain": {"steps": 2, "batch": 8}, "finetune": {"steps": 2, "batch": 4}}


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
    versions: dict[str, str] | None = None, masks: np.ndarray | None = None, processor: str = "", **row_too: Any,
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
        "labelled": [loss, arena.partition("/")[0], fraction], "init": row["init"],
    }  # fmt: skip
    tested = {"finetuned": key_of(tuned), "images": row["test_data"], "of": [arena, row["shift"]]}
    for kind, identity in (("pretrain", pretrain), ("finetune", tuned), ("evaluate", tested)):
        folder = store.stages / f"{kind}-{key_of(identity)}"
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "evaluate":
            scores.to_csv(folder / "scores.csv", index=False)
            if masks is not None:
                size = {"height": masks.shape[1], "width": masks.shape[2], "names": "scores.csv"}
                save_file({"masks": pack_masks(masks)}, folder / "masks.safetensors", {"usbench": json.dumps(size)})
        record = {"kind": kind, "identity": identity, "row": row, "facts": said, "versions": versions or {}}
        record |= {"processor": processor} if processor else {}
        write_json(folder / "record.json", {**record, "files": digests_of(folder)})
    return scores


def made_up_pack(path: Path, name: str, *, size: int = 64) -> Pack:
    """A pack of the images that made-up scores are of: a dark disc each, every sixth normal."""
    rng = np.random.default_rng(len(name))
    items = []
    for k in range(IMAGES):
        mask = disc(size, k) & (k % 6 != 5)
        speckle = rng.rayleigh(90, (size, size))
        image = np.where(mask, 0.4 * speckle, speckle).clip(0, 255).astype(np.uint8)
        items.append(Item(name=f"i{k}", image=image, mask=mask, label=0, patient=f"p{k % GROUPS}"))
    said = {"source": "tests", "licence": "none", "citation": "none", "importer": "tests", "version": "1"}
    write_pack(path, iter(items), size=size, classes=("lesion",), attributes={"dataset": name, **said}, generated=True)
    return Pack(path)


def disc(size: int, place: int, away: float = 0.0) -> np.ndarray:
    """A disc of its own for each image; `away` of its radius beside its place."""
    rows, columns = np.mgrid[:size, :size]
    radius = size * (0.12 + 0.01 * (place % 9))
    middle = size * (0.4 + 0.02 * (place % 7)) + away * radius
    return (rows - middle) ** 2 + (columns - middle) ** 2 < radius**2


def board(
    store: Store, losses: Sequence[str], packs: Mapping[str, Pack], *, fractions: Sequence[float] = (20.0, 50.0, 100.0),
    seeds: Sequence[int] = (0, 1, 2), **row_too: Any,
) -> None:  # fmt: skip
    """Every loss on every set under every label fraction, with masks; the first set is the one trained on."""
    rng = np.random.default_rng(0)
    first = next(iter(packs))
    for place, (loss, (name, pack), fraction) in enumerate(itertools.product(losses, packs.items(), fractions)):
        arena, shift = f"{fraction}/{name}", "in" if name == first else "out"
        gain = 0.05 * float(rng.normal()) + (0.05 if shift == "in" else -0.15) + 0.1 * math.log10(fraction / 100)
        away = np.stack([disc(pack.size, k, 0.3 + gain + 0.2 * (place % 3)) for k in range(IMAGES)])
        for seed in seeds:
            put(
                store, loss, seed, 0.0, arena=arena, fraction=fraction, masks=away, test_data=name, shift=shift,
                scores=made_up_scores(10 * place + seed, gain), train_data=first,
                setting=f"{place:04x}{key_of({'of': [loss, arena]})[4:]}",
                facts={"pack": pack.digest, "device_seconds": 50 + 10.0 * (place % 40)}, **row_too,
            )  # fmt: skip
