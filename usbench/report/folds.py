"""The test folds of a method as one row: each image counts once a seed, in the fold that held it out."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from usbench.report.cells import Cell, cells, order
from usbench.report.results import Result
from usbench.spec import key_of

FOLDS = "-folds"  # ends the key of a row of several folds
WITHOUT = " without "  # stands between a fold and the device that was left out
# What rows that stand beside each other share, besides the folds that they were tested on.
COMPARED = (
    "backbone", "init", "train_data", "test_data", "shift", "label_fraction", "protocol", "size", "device", "precision",
    "threads",
)  # fmt: skip
SHARED = ("loss", "aug", "pretrain_data", *COMPARED)
MOST_MIB = "peak_mib"

Folds = list[Cell]  # of one method, in order


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
    """What an evaluation has in common with those that it is pooled with: everything but fold, images and seed."""
    trials = str(result.row.get("chosen", "")).rpartition("(")[2]  # what was chosen may differ from fold to fold
    how = (result.lineage, trials or result.schedules, str(result.facts.get("pack", "")))
    return (*(str(result.row.get(name, "")) for name in SHARED), *how, *result.facts.get("classes", ()))


def pooled_folds(every: Sequence[Cell]) -> list[Cell]:
    """A row for each method that was tested on several folds of a set."""
    return _pooled(_groups(every))


def folded(every: Sequence[Cell]) -> list[Cell]:
    """The rows, with one for all folds in the place of theirs where there are several."""
    groups = _groups(every)
    gone = {id(cell) for folds in groups for cell in folds}
    kept = [cell for cell in every if id(cell) not in gone]
    return sorted([*kept, *_pooled(groups)], key=order) if gone else list(every)


def _pooled(groups: Sequence[Folds]) -> list[Cell]:
    joined = [result for folds in groups for result in _joined(folds)]
    return cells(joined, groups[0][0].memo) if joined else []


def _groups(every: Sequence[Cell]) -> list[Folds]:
    """The folds of each method that are one row: all methods of a comparison have the same ones, or stay apart."""
    together: dict[tuple[str, ...], Folds] = {}
    for cell in every:
        if cell.results[0].lineage:
            key = (*shared_by(cell.results[0]), cell.row["baseline"], cell.labels, cell.primary, _left_out(cell))
            together.setdefault(key, []).append(cell)
    methods = [sorted(folds, key=_fold) for folds in together.values() if _can_be_one(folds)]
    methods = _without_other_tests(methods, every)
    compared: dict[tuple[str, ...], list[Folds]] = {}
    for folds in methods:
        compared.setdefault(_comparison(folds[0]), []).append(folds)
    having = {_comparison(cell) for cell in every if cell.row["baseline"] == "plain"}
    found = []
    for key, rows in compared.items():
        baselines = [folds for folds in rows if folds[0].row["baseline"] == "plain"]
        if baselines or key not in having:  # else their differences to it would be lost
            wanted = max((list(map(_fold, folds)) for folds in baselines or rows), key=len)
            found += [folds for folds in rows if list(map(_fold, folds)) == wanted]
    return found


def _comparison(cell: Cell) -> tuple[str, ...]:
    return (*(str(cell.row.get(name)) for name in COMPARED), str(cell.facts.get("pack")), _left_out(cell))


def _can_be_one(folds: Folds) -> bool:
    """Whether they are several, each once, with the same seeds and no image in two."""
    names = set(map(_fold, folds))
    if not len(names) == len(folds) > 1 or len({cell.seeds for cell in folds}) > 1:
        return False
    key = " ".join(["apart", *(cell.key for cell in folds)])  # scores are read once, not for every table and figure
    return bool(folds[0].memo.numbers(key, lambda: [float(_apart(folds))])[0])


def _apart(folds: Folds) -> bool:
    images = np.concatenate([cell.results[0].scores()["name"].to_numpy(str) for cell in folds])
    return len(np.unique(images)) == len(images)


def _without_other_tests(methods: list[Folds], every: Iterable[Cell]) -> list[Folds]:
    """Those whose networks were tested on nothing that stays apart, such as a set that all folds have in common."""
    inside = {id(cell) for folds in methods for cell in folds}
    apart = {result.finetuned for cell in every if id(cell) not in inside for result in cell.results}
    kept = [folds for folds in methods if apart.isdisjoint(r.finetuned for cell in folds for r in cell.results)]
    return kept if len(kept) == len(methods) else _without_other_tests(kept, every)


def _fold(cell: Cell) -> str:
    return str(cell.row.get("fold", ""))


def _left_out(cell: Cell) -> str:
    return _fold(cell).partition(WITHOUT)[2]


def _joined(folds: Folds) -> list[Result]:
    """A result a seed."""
    return [_one(parts) for parts in zip(*(cell.results for cell in folds), strict=True)]


def _one(parts: tuple[Result, ...]) -> Result:
    first = parts[0]
    row = {
        **first.row, "fold": " ".join(str(part.row["fold"]) for part in parts),
        "setting": key_of({"folds": [part.row["setting"] for part in parts]}) + FOLDS,
        "arena": key_of({"folds": [part.row["arena"] for part in parts]}),
        "leaks": sum(int(part.row.get("leaks") or 0) for part in parts),
    }  # fmt: skip
    if chosen := [str(part.row["chosen"]) for part in parts if part.row.get("chosen")]:
        row["chosen"] = "; ".join(dict.fromkeys(chosen))
    return AllFolds(
        first.folder, row, _facts([part.facts for part in parts]), key_of({"folds": [p.finetuned for p in parts]}),
        _versions(parts), first.budget, first.recipe, first.lineage, first.schedules, first.revision,
        _processors(parts), first.file, parts,
    )  # fmt: skip


def _facts(every: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is recorded of all folds together: what they have in common, else the mean of what they measured, the most
    memory, and all ways in which a step was chosen."""
    found: dict[str, Any] = {}
    for name in every[0]:
        values = [facts.get(name) for facts in every]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if all(value == values[0] for value in values):
            found[name] = values[0]
        elif name == "selection":
            found[name] = "/".join(sorted({str(value) for value in values}))
        elif name == MOST_MIB:
            found[name] = max(numbers, default=None)
        elif len(numbers) == len(values):
            found[name] = sum(numbers) / len(numbers)
    return found


def _processors(parts: Iterable[Result]) -> tuple[str, ...]:
    """Of all folds."""
    return tuple(dict.fromkeys(name for part in parts for name in part.processors))


def _versions(parts: Iterable[Result]) -> dict[str, str]:
    """Of each library; all of them where folds were made with several."""
    found: dict[str, set[str]] = {}
    for part in parts:
        for library, number in part.versions.items():
            found.setdefault(library, set()).add(number)
    return {library: "/".join(sorted(numbers)) for library, numbers in found.items()}
