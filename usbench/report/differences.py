"""Rows image by image: the paired difference of two methods, on one test set or on several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from usbench.errors import UsbenchError
from usbench.evaluate.statistics import Estimate, Strata, crossed_interval
from usbench.report.cells import Cell, shared_seeds
from usbench.report.scores import NOTHING


def difference(cell: Cell, base: Cell | None) -> Estimate:
    """The paired difference of the primary metric, with its interval; NaN where there is nothing to compare with."""
    return pooled([cell], [base])


@dataclass(frozen=True)
class Side:
    """The primary metric of a method over the images of several test sets, put together once for many differences."""

    seeds: tuple[int, ...]
    values: np.ndarray  # (images, seeds)
    groups: np.ndarray  # (images,) numbered
    strata: Strata | None
    names: tuple[np.ndarray, ...]  # of the images of each test set

    def difference(self, other: Side) -> Estimate:
        """Image by image, over the seeds that both have."""
        if not all(map(np.array_equal, self.names, other.names)):
            raise UsbenchError("rows of one arena list other images: 'usbench verify' names them.")
        if not (shared := sorted(set(self.seeds) & set(other.seeds))):
            return NOTHING
        mine, theirs = (side.values[:, [side.seeds.index(s) for s in shared]] for side in (self, other))
        return crossed_interval(mine - theirs, self.groups, strata=self.strata)


def paired(cells: Sequence[Cell]) -> Side:
    """The rows of a method, over the seeds that all of them have."""
    seeds = shared_seeds(cells)
    values = np.concatenate([cell.values(seeds) for cell in cells])
    groups, _ = pd.factorize(np.concatenate([cell.scores.groups for cell in cells]))
    return Side(
        seeds,
        values,
        groups,
        Strata.joined([cell.strata for cell in cells]),
        tuple(cell.scores.names for cell in cells),
    )


def pooled(cells: Sequence[Cell], bases: Sequence[Cell | None] | None = None) -> Estimate:
    """The primary metric, or its paired difference to the bases, over the images of several test sets.

    Only seeds that all of them have count; NaN where there is none, or a base is missing.
    """
    known = [base for base in bases or () if base is not None]
    shared = shared_seeds((*cells, *known))
    if not shared or (bases is not None and len(known) < len(cells)):
        return NOTHING
    key = " ".join(["pooled", *(c.key for c in cells), "less", *(c.key for c in known)])

    def make() -> Estimate:
        values = np.concatenate([cell.values(shared) for cell in cells])
        if known:
            values = values - np.concatenate([_matching(b, c, shared) for b, c in zip(known, cells, strict=True)])
        groups = np.concatenate([cell.scores.groups for cell in cells])
        strata = Strata.joined([cell.strata for cell in cells])
        return crossed_interval(values, groups, strata=strata, share=not known)

    return cells[0].memo.estimate(key, make)


def _matching(base: Cell, cell: Cell, seeds: Sequence[int]) -> np.ndarray:
    if not np.array_equal(base.scores.names, cell.scores.names):
        raise UsbenchError(
            f"{base.results[0].folder.name} and {cell.results[0].folder.name} list other images though they stand in "
            "one arena: delete both folders, run again."
        )
    return base.values(seeds)
