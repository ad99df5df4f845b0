"""How long a leaderboard of many records takes, the first time and with the index, and how much memory.

OMP_NUM_THREADS=1 python benchmarks/perf/leaderboard_speed.py --records 10000 --out many
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from usbench.evaluate.segmentation import METRICS
from usbench.report.index import NAME
from usbench.runs.records import digests_of, write_json
from usbench.runs.store import Store
from usbench.spec import key_of

IMAGES, SEEDS, LOSSES = 100, 3, 24


def synthesise(store: Store, records: int) -> None:
    """Evaluations of many losses on many sets under many label fractions, with their trainings' records."""
    rng = np.random.default_rng(0)
    for place in range(records):
        setting, seed = divmod(place, SEEDS)
        arena, which = divmod(setting, LOSSES)
        data, fraction = divmod(arena, 3)
        loss = "none" if which == 0 else f"loss-{which}"
        row = {
            "loss": loss, "aug": "freq", "backbone": "unet-tiny", "init": "random", "pretrain_data": f"set-{data}",
            "train_data": f"set-{data}", "test_data": f"set-{data}", "shift": "in", "fold": "0", "size": 64,
            "label_fraction": (20.0, 50.0, 100.0)[fraction], "protocol": "segment", "seed": seed, "leaks": 0,
            "baseline": "plain" if which == 0 else "", "reconstruction": False, "device": "cpu", "threads": 1,
            "precision": "float32", "arena": f"{arena:016d}", "setting": key_of({"of": [arena, which]}),
        }  # fmt: skip
        facts = {
            "pretrain_labels": "none", "selection": "inner", "dice_inner": 0.5, "device_seconds": 1.0, "peak_mib": 10,
            "steps": 450, "images_seen": 16800, "pixels_seen": 10**8, "metrics": list(METRICS), "primary": "dice",
            "pack": "0" * 32, "images": IMAGES, "groups": IMAGES // 2,
        }  # fmt: skip
        pretrain = {"loss": loss, "seed": seed, "schedule": {"steps": 200, "batch": 64}}
        tuned = {
            "pretrained": key_of(pretrain) if which else None, "schedule": {"steps": 250, "batch": 16, "lr": 0.004},
            "labelled": [arena, which, seed],
        }  # fmt: skip
        tested = {"finetuned": key_of(tuned), "images": data}
        for kind, identity in (("pretrain", pretrain), ("finetune", tuned), ("evaluate", tested)):
            folder = store.folder(f"{kind}-{key_of(identity)}")
            folder.mkdir(exist_ok=True)
            if kind == "evaluate":
                scores(rng, which / 100).to_csv(folder / "scores.csv", index=False, float_format="%.6g")
            record = {"schema": 1, "kind": kind, "key": key_of(identity), "identity": identity, "row": row}
            said = {"facts": facts, "versions": {"torch": "2.15.0", "numpy": "2.4.6"}, "files": digests_of(folder)}
            write_json(folder / "record.json", {**record, **said})


def scores(rng: np.random.Generator, gain: float) -> pd.DataFrame:
    """The per-image table of one evaluation."""
    table = pd.DataFrame({"name": [f"image-{k:04d}" for k in range(IMAGES)], "group": np.arange(IMAGES) // 2})
    table["label"], table["lesion"], table["pixel_mm"] = 0, np.arange(IMAGES) % 10 != 9, 0.08
    for metric in METRICS:
        table[metric] = rng.uniform(0.3, 0.8, IMAGES) + gain
    return table.assign(area_predicted=500, area_truth=510)


def leaderboard(root: Path) -> tuple[float, float]:
    """Seconds of `usbench leaderboard ROOT --csv F` in a process of its own, and the most MiB any has used so far."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "usbench", "leaderboard", str(root), "--csv", str(root / "board.csv")]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def measure(root: Path, records: int) -> dict[str, float]:
    """Make the store where it is not there, and time the table without and with its index."""
    store = Store(root).open()
    if not any(store.stages.iterdir()):
        synthesise(store, records)
    (root / NAME).unlink(missing_ok=True)
    cold, _ = leaderboard(root)
    first = (root / "board.csv").read_bytes()
    warm, mebibytes = leaderboard(root)
    if (root / "board.csv").read_bytes() != first:
        raise SystemExit("the index changed the table")
    return {"cold": cold, "warm": warm, "mebibytes": mebibytes, "rows": float(first.count(b"\n") - 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--out", type=Path, required=True, help="an empty folder for the records")
    given = parser.parse_args()
    found = measure(given.out, given.records)
    print(
        f"{given.records} records of {IMAGES} images, {found['rows']:.0f} rows: {found['cold']:.1f} s, "
        f"with the index {found['warm']:.1f} s, at most {found['mebibytes']:.0f} MiB"
    )


if __name__ == "__main__":
    main()
