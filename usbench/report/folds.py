"""The test folds of a method as one row: each image counts once a seed, in the fold that held it out."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from usbench.report.cells import Cell, cells, order, shared_seeds
from usbench.report.results import Result
from usbench.spec import key_of

FOLDS = "-folds"  # ends the key of a row of several folds
# What is pooled has all of this in common: everything but the fold and the seed.
SHARED = (
    "loss", "aug", "backbone", "init", "pretrain_data", "train_data", "test_data", "shift", "label_fraction",
    "protocol", "size", "device", "precision", "threads",
)  # fmt: skip
WITHOUT = " without "  # stands between a fold and the device that was left out


@dataclass(frozen=True)
class AllFolds(Result):
    """The evaluations of several folds by one seed, behind each other."""

    parts: tuple[Result, ...] = ()

    @functools.cached_property
    def digest(self) -> str:
        """Of the per-image scores of all folds."""
        return hashlib.sha256("\0".join(part.digest for part in self.parts).encode()).hexdigest()

    @property
    def each(self) -> tuple[Result, ...]:
        """The evaluations of the folds."""
        return self.parts

    def scores(self) -> pd.DataFrame:
        """The per-image tables, fold after fold."""
        return pd.concat([part.scores() for part in self.parts], ignore_index=True)


def shared_by(result: Result) -> tuple[str, ...]:
    """What an evaluation has in common with those that it is pooled with."""
    trials = str(result.row.get("chosen", "")).rpartition("(")[2]  # what was chosen may differ from fold to fold
    how = (trials or result.recipe, str(result.budget))
    return (*(str(result.row.get(name, "")) for name in SHARED), *how, *result.facts.get("classes", ()))


def pooled_folds(every: Sequence[Cell]) -> list[Cell]:
    """A row for each method that was tested on several folds of a set, over the seeds that all of them have."""
    return _pooled(_groups(every))


def folded(every: Sequence[Cell]) -> list[Cell]:
    """The rows, with one for all folds in the place of theirs where there are several."""
    groups = _groups(every)
    gone = {id(cell) for folds in groups for cell in folds}
    return (
        sorted([*(cell for cell in every if id(cell) not in gone), *_pooled(groups)], key=order)
        if gone
        else list(every)
    )


def _pooled(groups: Sequence[Sequence[Cell]]) -> list[Cell]:
    joined = [result for folds in groups for result in _joined(folds)]
    return cells(joined, groups[0][0].memo) if joined else []


def _groups(every: Sequence[Cell]) -> list[list[Cell]]:
    """The folds of each method that can be pooled, in order; those of test images that several folds share cannot."""
    together: dict[tuple[str, ...], list[Cell]] = {}
    for cell in every:
        left_out = str(cell.row.get("fold", "")).partition(WITHOUT)[2]
        leaks = "leaks" if cell.row.get("leaks") else ""
        key = (*shared_by(cell.results[0]), cell.row["baseline"], cell.labels, cell.primary, left_out, leaks)
        together.setdefault(key, []).append(cell)
    return [
        sorted(folds, key=lambda cell: str(cell.row["fold"]))
        for folds in together.values()
        if len(folds) > 1 and len({cell.row["fold"] for cell in folds}) == len(folds) and _apart(folds)
    ]


def _apart(folds: Iterable[Cell]) -> bool:
    """Whether no image stands in two folds."""
    names = np.concatenate([cell.results[0].scores()["name"].to_numpy(str) for cell in folds])
    return len(np.unique(names)) == len(names)


def _joined(folds: Sequence[Cell]) -> list[Result]:
    """A result a seed."""
    found: list[Result] = []
    for seed in shared_seeds(folds):
        parts = tuple(cell.results[cell.seeds.index(seed)] for cell in folds)
        first = parts[0]
        row = {
            **first.row, "fold": " ".join(str(part.row["fold"]) for part in parts),
            "setting": key_of({"folds": [part.row["setting"] for part in parts]}) + FOLDS,
            "arena": key_of({"folds": [part.row["arena"] for part in parts]}),
            "chosen": "; ".join(dict.fromkeys(str(part.row.get("chosen", "")) for part in parts)),
        }  # fmt: skip
        versions = {name: number for part in parts for name, number in part.versions.items()}
        tuned = key_of({"folds": [part.finetuned for part in parts]})
        recorded = (tuned, versions, first.budget, first.recipe, first.revision, first.file)
        found.append(AllFolds(first.folder, row, _facts([part.facts for part in parts]), *recorded, parts))
    return found


def _facts(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is recorded of all folds together: their time, their most memory, what they have in common, else the mean
    of what they measured."""
    found: dict[str, Any] = {}
    for name in every[0]:
        values = [facts.get(name) for facts in every]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if name == "device_seconds":
            found[name] = sum(numbers)
        elif name == "peak_mib":
            found[name] = max(numbers, default=None)
        elif all(value == values[0] for value in values):
            found[name] = values[0]
        elif len(numbers) == len(values):
            found[name] = sum(numbers) / len(numbers)
    return found
