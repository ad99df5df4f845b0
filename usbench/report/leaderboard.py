"""The leaderboard: every aggregate is made from the per-image scores of finished stages, and can be made again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from usbench.errors import UsbenchError
from usbench.evaluate.segmentation import METRICS
from usbench.evaluate.statistics import Estimate, crossed_interval, holm
from usbench.runs.store import Store

COLUMNS: dict[str, str] = {
    "suite": "suite that asked for the row; empty for a single run",
    "loss": "pretraining loss with the options given for it",
    "aug": "augmentation of the pretraining",
    "backbone": "segmentation network",
    "init": "starting weights before pretraining",
    "pretrain_data": "sets that were pretrained on: of those that are trained on too, their training images",
    "pretrain_labels": "labels that the pretraining saw: none, fraction, all",
    "train_data": "sets that were fine-tuned on",
    "test_data": "set that was tested on",
    "shift": "in, out, out-transductive, or corruption:severity",
    "label_fraction": "per cent of the annotated training images",
    "protocol": "how the network was fine-tuned and scored",
    "fold": "test fold or split file of the trained sets, and the device that was left out",
    "size": "pixels a side that the network sees",
    **{
        f"{metric}_{part}": f"{metric}: {what}"
        for metric in METRICS
        for part, what in (
            ("mean", "mean over lesion images and seeds"),
            ("low", "lower end of its 95 % interval"),
            ("high", "upper end of its 95 % interval"),
        )
    },
    "normal_fp_rate": "share of normal images with any predicted lesion",
    "dice_inner": "inner-validation Dice of the chosen step, mean over seeds",
    "delta_vs_supervised": "difference of mean Dice to the supervised baseline of the same initialisation",
    "delta_vs_supervised_low": "lower end of its 95 % interval",
    "delta_vs_supervised_high": "upper end of its 95 % interval",
    "p_holm": "Holm-adjusted p of that difference over the table; empty with one seed",
    "rank": "rank of the mean Dice among rows of one arena and shift whose pretraining saw the same labels; 1 is best",
    "seeds": "number of seeds",
    "images": "lesion images tested",
    "groups": "groups (patients) tested",
    "steps": "optimiser steps, pretraining and fine-tuning",
    "images_seen": "source images, pretraining and fine-tuning",
    "pixels_seen": "pixels of all views",
    "device_seconds": "seconds of training, mean over seeds",
    "peak_mib": "most memory used",
    "precision": "bf16 or float32",
    "device": "cpu or cuda",
    "reconstruction": "true where the method's formula is a reconstruction",
    "selection": "how the step was chosen: inner, last, best-on-test",
    "chosen": "settings chosen on inner validation, and among how many trials; empty where nothing was",
    "leaks": "training images that are near-duplicates of tested ones, let pass by --allow-leaks; else 0",
    "key": "identity of the row, whatever its seeds",
}
NOT_MEASURED = ("device_seconds", "peak_mib")  # differ between equal runs


@dataclass(frozen=True)
class Result:
    """One finished evaluation: a row of one seed."""

    folder: Path
    row: dict[str, Any]
    facts: dict[str, Any]
    finetuned: str  # the key of the fine-tune that was tested: shared by its test sets

    def scores(self) -> pd.DataFrame:
        """The per-image table."""
        try:
            path = self.folder / "scores.csv"
            return pd.read_csv(path, dtype={"name": str}, keep_default_na=False, na_values=[""])  # a name may be "NA"
        except (OSError, ValueError) as error:
            raise UsbenchError(
                f"{self.folder / 'scores.csv'} cannot be read ({error}): delete the folder, run again."
            ) from None


def results(store: Store, stage_ids: Iterable[str] | None = None) -> list[Result]:
    """The evaluations of a store, or those named."""
    if stage_ids is None:
        found = store.records("evaluate")
    else:
        found = ((store.folder(stage_id), store.record(stage_id)) for stage_id in stage_ids)
    return [Result(folder, r["row"], r["facts"], r["identity"]["finetuned"]) for folder, r in found]


@dataclass
class Cell:
    """One row of the leaderboard before it is written: its seeds, and their scores side by side."""

    results: list[Result]

    def __post_init__(self) -> None:
        self.results.sort(key=lambda r: int(r.row["seed"]))
        tables = [result.scores() for result in self.results]
        self.table = tables[0][["name", "group", "lesion"]].copy()
        lesions = self.table.lesion.to_numpy()
        # Stores may be put together: a patient is one group within a test set only.
        self.groups = (f"{self.row['test_data']}/" + self.table.group.astype(str)).to_numpy()[lesions]
        self.values = {m: np.stack([t[m].to_numpy(float)[lesions] for t in tables], 1) for m in METRICS}
        normal = np.concatenate([t.area_predicted.to_numpy(float)[~lesions] > 0 for t in tables])
        self.normal_fp_rate = float(normal.mean()) if len(normal) else math.nan

    @property
    def row(self) -> dict[str, Any]:
        """How it stands in tables."""
        return self.results[0].row

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, in order."""
        return tuple(int(r.row["seed"]) for r in self.results)

    def dice(self, seeds: Sequence[int]) -> np.ndarray:
        """(images, seeds) the Dice of these seeds, in their order."""
        return self.values["dice"][:, [self.seeds.index(seed) for seed in seeds]]


def cells(found: Sequence[Result]) -> list[Cell]:
    """Results of one setting together, each seed once, in the order of a table."""
    by_setting: dict[str, dict[int, Result]] = {}
    for result in found:
        by_setting.setdefault(result.row["setting"], {})[int(result.row["seed"])] = result
    made = [Cell(list(seeds.values())) for seeds in by_setting.values()]

    def place(cell: Cell) -> tuple[Any, ...]:
        row = cell.row
        rank = {"": 0, "plain": 1, "long": 2}.get(row["baseline"], 3)
        return (
            row["train_data"], row["shift"], row["test_data"], row["label_fraction"], row["backbone"], row["init"],
            rank, row["loss"], row["aug"], row["setting"],
        )  # fmt: skip

    return sorted(made, key=place)


def baseline_of(cell: Cell, every: Sequence[Cell]) -> Cell | None:
    """The supervised baseline in the same arena: same network, start, labels, recipe and test images."""
    same = [c for c in every if c.row["arena"] == cell.row["arena"] and c.row["baseline"] == "plain"]
    return same[0] if same and same[0] is not cell else None


def leaderboard(found: Sequence[Result]) -> pd.DataFrame:
    """The table: one row a setting, every number from per-image scores."""
    every = cells(found)
    rows = [_line(cell, every) for cell in every]
    if not rows:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.DataFrame(rows)
    # Corrupted images are a family of tests of their own: asking for them changes no other p.
    table["p_holm"] = table.groupby(table["shift"].str.contains(":")).p.transform(lambda p: holm(p.to_numpy(float)))
    table["rank"] = table.groupby(["arena", "shift", "pretrain_labels"]).dice_mean.rank(ascending=False, method="min")
    return table[list(COLUMNS)]


def _line(cell: Cell, every: Sequence[Cell]) -> dict[str, Any]:
    row, facts = cell.row, [r.facts for r in cell.results]
    line: dict[str, Any] = {name: row[name] for name in COLUMNS if name in row}
    line |= {
        "suite": row.get("suite", ""),
        "chosen": row.get("chosen", ""),
        "key": row["setting"],
        "arena": row["arena"],
    }
    for metric in METRICS:
        estimate = crossed_interval(cell.values[metric], cell.groups)
        line |= {f"{metric}_mean": estimate.mean, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
    base = baseline_of(cell, every)
    delta = difference(cell, base)
    line |= {
        "delta_vs_supervised": delta.mean, "delta_vs_supervised_low": delta.low, "delta_vs_supervised_high": delta.high,
        "p": delta.p, "normal_fp_rate": cell.normal_fp_rate, "seeds": len(facts), "images": len(cell.groups),
        "groups": len(set(cell.groups)), "pretrain_labels": facts[0]["pretrain_labels"] or "none",
        "selection": "/".join(sorted({f["selection"] for f in facts})),
        "dice_inner": _mean([f["dice_inner"] for f in facts]),
        "device_seconds": _mean([f["device_seconds"] for f in facts]), "peak_mib": max(f["peak_mib"] for f in facts),
        **{k: facts[0][k] for k in ("steps", "images_seen", "pixels_seen")},
    }  # fmt: skip
    return line


def difference(cell: Cell, base: Cell | None) -> Estimate:
    """The paired difference in Dice with its interval; NaN where there is nothing to compare with."""
    return pooled([cell], [base])


def pooled(cells: Sequence[Cell], bases: Sequence[Cell | None] | None = None) -> Estimate:
    """Dice, or its paired difference to the bases, over the images of several test sets: a patient belongs to one set.

    Only seeds that all of them have count; NaN where there is none, or a base is missing.
    """
    known = [base for base in bases or () if base is not None]
    shared = sorted(set.intersection(*(set(cell.seeds) for cell in (*cells, *known))))
    if not shared or (bases is not None and len(known) < len(cells)):
        return Estimate(math.nan, math.nan, math.nan, math.nan)
    values = np.concatenate([cell.dice(shared) for cell in cells])
    if known:
        values = values - np.concatenate([base.dice(shared) for base in known])
    return crossed_interval(values, np.concatenate([cell.groups for cell in cells]))


def _mean(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else math.nan


def inert(value: Any) -> Any:
    """Text that a spreadsheet will not run as a formula, on one line."""
    if not isinstance(value, str):
        return value
    line = " ".join(value.split())
    return f"'{line}" if line[:1] in ("=", "+", "-", "@") else line


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The table as CSV, whole or not at all; equal tables give equal bytes."""
    if path.is_dir():
        raise UsbenchError(f"--csv {path} is a folder: name a file.")
    text = table.map(inert).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UsbenchError(f"{path} cannot be written ({error.strerror}): name another file.") from None
