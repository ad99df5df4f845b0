"""Confusion matrices of protocols on labels, with the test folds of a method pooled: each image or video counts once a
seed, in the fold that held it out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.table import Table

from usbench.errors import UsbenchError
from usbench.report.files import one_line
from usbench.report.folds import shared_by
from usbench.report.results import BEST, SCORES, Result, read_scores
from usbench.report.scores import PROBABILITY
from usbench.report.table import plain_table

SHOWN = ("loss", "aug", "backbone", "init", "pretrain_data", "train_data", "test_data", "shift", "label_fraction")
NAME = "confusion.csv"


@dataclass(frozen=True)
class Matrix:
    """Counts (truth, predicted) over folds and seeds."""

    row: dict[str, object]
    rule: str  # how the step was chosen
    unit: str  # image, frame or video
    classes: tuple[str, ...]
    folds: tuple[str, ...]
    seeds: tuple[int, ...]
    counts: np.ndarray

    @property
    def accuracy(self) -> float:
        """The share on the diagonal."""
        return float(np.trace(self.counts) / max(1, self.counts.sum()))

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall over the classes that occur."""
        total = self.counts.sum(1)
        return float((np.diag(self.counts)[total > 0] / total[total > 0]).mean()) if total.any() else float("nan")


def confusion(label: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes): how many of a class, by row, were called which, by column."""
    return np.bincount(label * classes + predicted, minlength=classes**2).reshape(classes, classes)


def of_videos(scores: pd.DataFrame, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(label, predicted) of each video, by the mean of its frames' probabilities; an image without one is its own."""
    video = scores["video"].fillna("").to_numpy(str)
    own = np.array([name or f"\0{place}" for place, name in enumerate(video)])
    _, first, of = np.unique(own, return_index=True, return_inverse=True)
    columns = [scores[f"{PROBABILITY}{name}"].to_numpy() for name in classes]
    mean = np.stack([np.bincount(of, weights=column) for column in columns], 1) / np.bincount(of)[:, None]
    return scores["label"].to_numpy()[first], mean.argmax(1)


def matrices(results: Iterable[Result]) -> list[Matrix]:
    """A matrix for each method, rule and unit, and for each fold by itself where folds share images; none for
    protocols that predict no classes."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        if result.facts.get("classes"):
            groups.setdefault(shared_by(result), []).append(result)
    return [matrix for group in groups.values() for matrix in _pooled(group)]


def _pooled(group: list[Result]) -> Iterator[Matrix]:
    classes = tuple(group[0].facts["classes"])
    ordered = sorted(group, key=lambda r: (str(r.row["fold"]), int(r.row["seed"])))
    once = list({(r.row["fold"], r.row["seed"]): r for r in ordered}.values())
    folds = tuple(dict.fromkeys(str(r.row["fold"]) for r in once))
    seeds = tuple(sorted({int(r.row["seed"]) for r in once}))
    for rule, name in ((str(once[0].facts.get("selection") or "inner"), SCORES), ("best-on-test", BEST)):
        tables = [_read(r.folder / name) for r in once if (r.folder / name).is_file()]
        if len(tables) < len(once) or any("predicted" not in table for table in tables):
            continue
        if len(folds) > 1 and _share_images(once, tables):
            yield from (matrix for fold in folds for matrix in _pooled([r for r in once if str(r.row["fold"]) == fold]))
            return
        filmed = all("video" in table for table in tables)
        pairs = {"frame" if filmed else "image": [(t["label"].to_numpy(), t["predicted"].to_numpy()) for t in tables]}
        if filmed:
            pairs["video"] = [of_videos(table, classes) for table in tables]
        for unit, every in pairs.items():
            counts = sum((confusion(*pair, len(classes)) for pair in every), np.zeros((len(classes),) * 2, np.int64))
            yield Matrix(once[0].row, rule, unit, classes, folds, seeds, counts)


def _share_images(results: Sequence[Result], tables: Sequence[pd.DataFrame]) -> bool:
    """Whether an image stands in two folds."""
    of_fold = {str(result.row["fold"]): table["name"] for result, table in zip(results, tables, strict=True)}
    return bool(pd.concat(of_fold.values()).duplicated().any())


def _read(path: Path) -> pd.DataFrame:
    try:
        return read_scores(path)
    except (OSError, ValueError) as error:
        raise UsbenchError(f"{path} cannot be read ({error}): delete the folder, run again.") from None


def confusion_table(every: Sequence[Matrix]) -> pd.DataFrame:
    """A row for each pair of classes of each matrix."""
    rows = [
        {
            **{name: matrix.row.get(name, "") for name in (*SHOWN, "protocol")}, "folds": " ".join(matrix.folds),
            "seeds": len(matrix.seeds), "selection": matrix.rule, "unit": matrix.unit, "truth": truth,
            "predicted": predicted, "count": int(matrix.counts[i, j]),
        }
        for matrix in every
        for i, truth in enumerate(matrix.classes) for j, predicted in enumerate(matrix.classes)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def confusion_tables(every: Sequence[Matrix]) -> list[Table]:
    """A table for each matrix: rows are the truth."""
    tables = []
    for matrix in every:
        row = matrix.row
        what = f"{row['loss']} on {row['test_data']} ({row['shift']}, {row['label_fraction']:g} %)"
        folds = f"folds {', '.join(matrix.folds)}" if len(matrix.folds) > 1 else f"fold {matrix.folds[0]}"
        seeds = f"{len(matrix.seeds)} seeds" if len(matrix.seeds) > 1 else "one seed"
        title = f"{what}: {matrix.unit}s, {folds}, {seeds}, step: {matrix.rule}"
        names = [escape(one_line(name)) for name in matrix.classes]
        table = plain_table("truth", *names, "recall", title=escape(one_line(title)))
        for place, counts in enumerate(matrix.counts):
            recall = f"{counts[place] / counts.sum():.3f}" if counts.any() else ""
            table.add_row(names[place], *map(str, counts.tolist()), recall)
        table.caption = f"accuracy {matrix.accuracy:.3f}, balanced {matrix.balanced_accuracy:.3f}"
        tables.append(table)
    return tables
