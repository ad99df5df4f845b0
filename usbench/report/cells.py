"""A row before it is written: one setting with its seeds, and every number that can be said of it or of a pair."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from usbench.errors import UsbenchError
from usbench.evaluate.segmentation import METRICS
from usbench.evaluate.statistics import Estimate, Strata, crossed_interval
from usbench.report.results import Result
from usbench.report.scores import NOTHING, Scores, counts_of, mean_of, over_videos, side_by_side


class Memo(dict[str, list[float]]):
    """Numbers by what they were made of, so that none is made twice."""

    def __init__(self, known: dict[str, list[float]] | None = None) -> None:
        super().__init__(known or {})
        self.asked: set[str] = set()

    def numbers(self, key: str, make: Callable[[], Sequence[float]]) -> list[float]:
        """The numbers of this key, made where nobody did."""
        self.asked.add(key)
        if key not in self:
            self[key] = list(make())
        return self[key]

    def estimate(self, key: str, make: Callable[[], Estimate]) -> Estimate:
        """The same for an interval."""

        def parts() -> list[float]:
            made = make()
            return [made.mean, made.low, made.high, made.p]

        return Estimate(*self.numbers(key, parts))


@dataclass(eq=False)
class Cell:
    """One row of the leaderboard: its seeds, and what follows from their scores."""

    results: list[Result]
    memo: Memo = field(default_factory=Memo)
    base: Cell | None = None  # the supervised baseline of its arena
    rivals: int = 0  # how many of its seeds were tested in another store too, with other scores

    def __post_init__(self) -> None:
        self.results.sort(key=lambda r: int(r.row["seed"]))
        facts = self.facts
        self.metrics: tuple[str, ...] = tuple(facts.get("metrics") or METRICS)
        self.primary: str = facts.get("primary") or self.metrics[0]

    @property
    def row(self) -> dict[str, Any]:
        """How it stands in tables."""
        return self.results[0].row

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded of its first seed."""
        return self.results[0].facts

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, in order."""
        return tuple(int(r.row["seed"]) for r in self.results)

    @property
    def tests(self) -> frozenset[str]:
        """The stages that it stands on."""
        return frozenset(result.folder.name for result in self.results)

    @property
    def labels(self) -> str:
        """Which labels its pretraining saw."""
        return self.facts.get("pretrain_labels") or "none"

    @property
    def corrupted(self) -> bool:
        """Whether its test images were corrupted: such rows are copies of one another as far as patients go."""
        return ":" in self.row["shift"]

    @functools.cached_property
    def key(self) -> str:
        """What its numbers are made of."""
        parts = [self.row["test_data"], self.primary, *self.metrics]
        parts += [f"{r.row['seed']}:{r.digest}" for r in self.results]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    @functools.cached_property
    def scores(self) -> Scores:
        """The scores, read when somebody asks for a number that nobody made before."""
        return side_by_side(self.results, (*self.metrics, self.primary))

    def values(self, seeds: Sequence[int], metric: str = "") -> np.ndarray:
        """(images, seeds) the metric, or the primary one, of these seeds in their order."""
        columns = [self.seeds.index(seed) for seed in seeds]
        return self.scores.values[metric or self.primary][:, columns]

    @property
    def strata(self) -> Strata | None:
        """What the mean of the primary metric is over, where it is not images alone."""
        return self.scores.strata.get(self.primary)

    def interval(self, metric: str = "") -> Estimate:
        """The mean of a metric, or of the primary one, with its interval."""
        name = metric or self.primary
        return self.memo.estimate(f"mean {name} {self.key}", lambda: mean_of(self.scores, name))

    def mean_over(self, seeds: tuple[int, ...]) -> float:
        """The mean of the primary metric over some of its seeds."""
        if seeds == self.seeds:
            return self.interval().mean

        def make() -> list[float]:
            values = self.values(seeds)
            if self.strata is None:
                return [float(np.nanmean(values))]
            return [crossed_interval(values, self.scores.groups, strata=self.strata).mean]

        return self.memo.numbers(f"mean of {seeds} {self.key}", make)[0]

    def video_interval(self) -> Estimate:
        """The primary metric over videos, where images belong to some.

        What weighs images by how many their class has is no mean over the images of a video.
        """
        if "balanced" in self.primary:
            return NOTHING
        return self.memo.estimate(f"videos {self.key}", lambda: over_videos(self.scores, self.primary))

    def counts(self) -> dict[str, float]:
        """Images and groups that count, and the plain shares and means."""
        names = ("images", "groups", "no_distance", "normal_fp_rate", "normal_fp_area", "ece", "lesions")
        numbers = self.memo.numbers(f"counts {self.key}", lambda: counts_of(self.scores))
        return dict(zip(names, numbers, strict=True))


def processors_of(some: Iterable[Cell]) -> list[str]:
    """What their trainings ran on; a process that had no GPU to name yet is of the same machine."""
    found = sorted({name for cell in some for result in cell.results for name in result.processors})
    return [one for one in found if not any(other.startswith(f"{one}, ") for other in found)]


def shared_seeds(some: Iterable[Cell]) -> tuple[int, ...]:
    """The seeds that all of them have, in order."""
    return tuple(sorted(set.intersection(*(set(cell.seeds) for cell in some))))


def usual_seeds(some: Sequence[Cell]) -> tuple[int, ...]:
    """The seeds that all of them have, or where these are fewer than most of them have, those that most have."""
    (most, count), *_ = Counter(cell.seeds for cell in some).most_common(1)
    shared = shared_seeds(some)
    return shared if count * 2 <= len(some) or len(shared) == len(most) else most


def cells(found: Sequence[Result], memo: Memo | None = None, together: Iterable[frozenset[str]] = ()) -> list[Cell]:
    """Results of one setting together, each seed once, in the order of a table; each knows its baseline.

    A setting that was chosen among trials, and that somebody asked for too, is two rows: each has its own baseline.
    Suites may have chosen other settings for a baseline: a row's is one that was tested `together` with it.
    """
    by_row: dict[tuple[str, str], dict[int, Result]] = {}
    trained: dict[tuple[str, int], Result] = {}
    rivals: dict[tuple[str, str], set[int]] = {}
    for result in found:
        which, seed = (result.row["setting"], result.row["arena"]), int(result.row["seed"])
        other = trained.setdefault((which[0], seed), result)
        if other.finetuned != result.finetuned:
            raise UsbenchError(
                f"{other.folder} and {result.folder} are one row and seed of two trainings: keep one of them."
            )
        seeds = by_row.setdefault(which, {})
        other = seeds.setdefault(seed, result)
        seeds[seed] = max(other, result, key=lambda r: r.revision)
        if other.folder != result.folder and other.revision == result.revision and other.digest != result.digest:
            rivals.setdefault(which, set()).add(seed)
    memo = Memo() if memo is None else memo
    made = sorted((Cell(list(seeds.values()), memo) for seeds in by_row.values()), key=order)
    for cell in made:
        cell.rivals = len(rivals.get((cell.row["setting"], cell.row["arena"]), ()))
    bases: dict[str, list[Cell]] = {}
    for cell in made:
        if cell.row["baseline"] == "plain":
            bases.setdefault(cell.row["arena"], []).append(cell)
    known = list(together)
    for cell in made:
        some = [] if cell.row["baseline"] == "plain" else bases.get(cell.row["arena"], [])
        if len(some) > 1:
            beside = set().union(*(tests for tests in known if tests & cell.tests))
            some = [base for base in some if base.tests & beside] or some
        cell.base = next(iter(some), None)
    return made


def order(cell: Cell) -> tuple[Any, ...]:
    """Where a row stands in a table."""
    row = cell.row
    rank = {"": 0, "plain": 1, "long": 2}.get(row["baseline"], 3)
    asked = [str(row.get(name, "")) for name in ("train_data", "shift", "test_data")]
    method = [str(row.get(name, "")) for name in ("backbone", "init")]
    return (
        *asked,
        row["label_fraction"],
        *method,
        rank,
        row["loss"],
        str(row.get("aug", "")),
        row["setting"],
        row["arena"],
    )
