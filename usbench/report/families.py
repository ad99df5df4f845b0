"""Methods that are comparable over all their trainings: mean ranks, and which of them are told apart."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from usbench.errors import listed
from usbench.evaluate.statistics import Estimate, holm, mean_ranks
from usbench.report.cells import Cell, usual_seeds
from usbench.report.differences import paired
from usbench.report.folds import WITHOUT, folded
from usbench.runs.sources import TRANSDUCTIVE

Shared = tuple[str, ...]
LEAST_METHODS, LEAST_TRAININGS = 3, 2  # of a figure of mean ranks
SURE = 0.05  # an adjusted p below it tells two methods apart
NAMED = 2  # pairs that are told apart, in a figure's title
SAME = ("backbone", "init", "protocol", "size", "device", "precision", "threads")  # what comparable methods share


@dataclass
class Family:
    """Comparable methods under the conditions that they were tested in."""

    title: str
    scores: pd.DataFrame  # method × condition
    trainings: dict[str, str]  # condition → what was trained on, by name: its test sets are of the same networks
    cells: dict[str, list[Cell]] = field(default_factory=dict)

    @property
    def shared(self) -> list[str]:
        """The conditions that every method has a score of."""
        return [*self.scores.dropna(axis="columns").columns]

    @property
    def complete(self) -> pd.DataFrame:
        """Method × training: the mean over the test sets that every method has a score of.

        The scores of one network on several test sets are no independent evidence, and so are one.
        """
        known = self.scores[self.shared]
        return known.T.groupby([self.trainings[name] for name in self.shared], sort=False).mean().T

    @property
    def enough(self) -> bool:
        """Whether there is something to draw."""
        methods, trainings = self.complete.shape
        return methods >= LEAST_METHODS and trainings >= LEAST_TRAININGS

    @functools.cached_property
    def ranks(self) -> pd.Series:
        """Mean ranks, best first."""
        return mean_ranks(self.complete).sort_values(kind="stable")

    @functools.cached_property
    def estimates(self) -> dict[tuple[str, str], Estimate]:
        """The paired difference of every two methods, the better ranked less the other, over all test images that
        every method has, patients crossed with seeds."""
        shared = self.shared
        cells = {name: {_condition(cell): cell for cell in self.cells[name]} for name in map(str, self.ranks.index)}
        rows = {name: [held[c] for c in shared] for name, held in cells.items()}
        keys = {name: " ".join(cell.key for cell in some) for name, some in rows.items()}
        side = functools.cache(lambda name: paired(rows[name]))

        def less(a: str, b: str) -> Estimate:
            key = hashlib.sha256(f"{keys[a]} less {keys[b]}".encode()).hexdigest()
            return rows[a][0].memo.estimate(f"pair {key}", lambda: side(a).difference(side(b)))

        return {(a, b): less(a, b) for a, b in itertools.combinations(rows, 2)}

    @functools.cached_property
    def pairs(self) -> dict[tuple[str, str], float]:
        """The p of every two methods, Holm-adjusted; NaN where one seed allows no test.

        Ranks are not tested themselves: label fractions of one set, and tests of one network, are no independent
        evidence.
        """
        p = np.array([estimate.p for estimate in self.estimates.values()])
        return dict(zip(self.estimates, holm(p).tolist(), strict=True))

    @property
    def apart(self) -> list[tuple[str, str]]:
        """The pairs that are told apart, the better of each first: by their difference, which ranks need not follow."""
        told = [(pair, self.estimates[pair].mean) for pair, p in self.pairs.items() if p < SURE]
        return [(a, b) if mean > 0 else (b, a) for (a, b), mean in told]

    @functools.cached_property
    def bars(self) -> list[tuple[int, int]]:
        """The longest stretches of `ranks`, by first and last place, in which no two methods are told apart."""
        names = list(map(str, self.ranks.index))
        found: list[tuple[int, int]] = []
        for first in range(len(names)):
            last = first
            while last + 1 < len(names) and all(
                self.pairs[other, names[last + 1]] >= SURE for other in names[first : last + 1]
            ):
                last += 1
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found

    @property
    def over(self) -> str:
        """What the ranks are over: what was trained on, with which shares of the labels, and tested on."""
        shared = self.shared
        rows = [cell.row for cell in self.cells[str(self.scores.index[0])] if _condition(cell) in shared]
        data, fractions, tests = (
            [*dict.fromkeys(str(row[name]) for row in rows)] for name in ("train_data", "label_fraction", "test_data")
        )
        shares = listed(f"{float(fraction):g}" for fraction in fractions)
        return f"{listed(data)} with {shares} % of the labels, tested on {listed(tests)}"

    @property
    def verdict(self) -> str:
        """What the bars say."""
        tested = [p for p in self.pairs.values() if not math.isnan(p)]
        if not tested:
            return "from one seed no test is made"
        untold = f", {len(self.pairs) - len(tested)} not tested" if len(tested) < len(self.pairs) else ""
        apart = f"{len(self.apart)} of {len(tested)} pairs told apart{untold}"
        named = [f"{a} above {b}" for a, b in self.apart[:NAMED]]
        named += [f"{len(self.apart) - NAMED} more"] if len(self.apart) > NAMED else []
        which = f": {', '.join(named)}" if named else ""
        return f"{apart} (paired differences, Holm-adjusted p < {SURE:g}){which}"


def families(some: Sequence[Cell]) -> list[Family]:
    """Methods with one network, start, recipe, pretraining budget and kind of labels; baselines join each of them.

    A condition is an arena, that is training images, label fraction and test images, with its shift; the folds of a set
    are one. Corrupted copies of a test set are no conditions: forty of them would outvote everything else. Rows with
    leaks that were let pass rank apart, and so do networks whose pretraining saw the images of a test set. A method
    that stands twice under one condition is left out, since nobody could say which of the two is meant, and so is one
    without the seeds that most methods have under a condition: these are what counts there.
    """
    every = folded(some)
    # `none-long` is fine-tuned for longer by declaration, so the others of its arena say what the recipe is. What was
    # chosen among equal trials differs from row to row, and those are one recipe.
    recipes = {
        c.row["arena"]: str(c.row.get("chosen") or "").rpartition("(")[2] or c.results[0].recipe
        for c in every if c.row["baseline"] != "long"
    }  # fmt: skip
    seen = saw_tests(every)
    rows: dict[tuple[Shared, str, bool, tuple[int, ...]], list[Cell]] = {}
    baselines: dict[Shared, list[Cell]] = {}
    for cell in every:
        if cell.corrupted:
            continue
        leaks = "leaks" if cell.row.get("leaks") else ""
        shared = (cell.primary, leaks, recipes.get(cell.row["arena"], ""), *(str(cell.row.get(name)) for name in SAME))
        if cell.row["baseline"]:
            baselines.setdefault(shared, []).append(cell)
        else:
            rows.setdefault(
                (shared, cell.labels, cell.results[0].finetuned in seen, cell.results[0].budget), []
            ).append(cell)
    found = []
    for (shared, labels, *_), members in rows.items():
        for part in _linked(members):
            conditions = {_condition(cell) for cell in part}
            joining = [c for c in baselines.get(shared, []) if labels == "none" and _condition(c) in conditions]
            found.append(_family([*part, *joining]))
    return found


def saw_tests(every: Sequence[Cell]) -> set[str]:
    """The networks whose pretraining saw the images of a test set: they stand in a table of their own."""
    return {result.finetuned for cell in every if cell.row["shift"] == TRANSDUCTIVE for result in cell.results}


def _condition(cell: Cell) -> str:
    return f"{cell.row['arena']} {cell.row['shift']}"


def _training(cell: Cell) -> str:
    """What it was trained on, by name; folds of a set share most of their images, and are one."""
    left_out = str(cell.row["fold"]).partition(WITHOUT)[2]
    return f"{cell.row['train_data']} {cell.row['label_fraction']} {left_out}"


def _linked(members: Sequence[Cell]) -> list[list[Cell]]:
    """Methods that share conditions together, those that share none with them apart: of a set imported anew, say."""
    parts: list[tuple[set[str], list[Cell]]] = []
    by_method: dict[str, list[Cell]] = {}
    for cell in members:
        by_method.setdefault(method_of(cell), []).append(cell)
    for cells in by_method.values():
        conditions = {_condition(cell) for cell in cells}
        touched = [part for part in parts if part[0] & conditions]
        parts = [part for part in parts if not part[0] & conditions]
        parts.append((conditions.union(*(p[0] for p in touched)), [*(c for p in touched for c in p[1]), *cells]))
    return [cells for _, cells in parts]


def _family(members: Sequence[Cell]) -> Family:
    by_method: dict[str, dict[str, list[Cell]]] = {}
    for cell in members:
        by_method.setdefault(method_of(cell), {}).setdefault(_condition(cell), []).append(cell)
    clear = {m: held for m, held in by_method.items() if all(len(cells) == 1 for cells in held.values())}
    held_by: dict[str, list[Cell]] = {}
    for held in clear.values():
        for condition, cells in held.items():
            held_by.setdefault(condition, []).extend(cells)
    seeds = {condition: usual_seeds(cells) for condition, cells in held_by.items()}
    clear = {
        m: held for m, held in clear.items() if all(set(seeds[c]) <= set(cells[0].seeds) for c, cells in held.items())
    }
    scores = pd.DataFrame(
        {
            m: {c: cells[0].mean_over(seeds[c]) if seeds[c] else math.nan for c, cells in held.items()}
            for m, held in clear.items()
        }
    )
    trainings = {condition: _training(cells[0]) for condition, cells in held_by.items()}
    row = members[0].row
    title = f"{row.get('backbone', '')}, {row.get('init', '')} weights, {members[0].primary}"
    own = {m: [cells[0] for cells in held.values()] for m, held in clear.items()}
    return Family(title, scores.T, trainings, own)


def method_of(cell: Cell) -> str:
    """A method's name: loss and augmentation, and other data where it was pretrained on some."""
    row = cell.row
    words = [row["loss"], *([row["aug"]] if row.get("aug", "none") != "none" else [])]
    if row.get("pretrain_data", "none") not in ("none", row.get("train_data")):
        words.append(f"on {row['pretrain_data']}")
    return " · ".join(words)


def mean_rank_of(every: Sequence[Cell]) -> dict[int, float]:
    """The mean rank of each cell's method, by the cell's id; of the first family that holds it."""
    found: dict[int, float] = {}
    for family in families(every):
        if not family.enough:
            continue
        ranks = family.ranks
        for method, cells in family.cells.items():
            for cell in cells:
                found.setdefault(id(cell), float(ranks[method]))
    return found
