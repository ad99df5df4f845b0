"""The rows that rank with one another in a table."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from usbench.report.cells import Cell, usual_seeds


@dataclass
class Block:
    """The cells that rank with one another."""

    cells: list[Cell]

    @functools.cached_property
    def means(self) -> np.ndarray:
        """Their primary metric over the same seeds, since others are other labels; NaN for a row without these."""
        seeds = usual_seeds(self.cells)
        return np.array([c.mean_over(seeds) if seeds and set(seeds) <= set(c.seeds) else math.nan for c in self.cells])

    def rank(self, cell: Cell) -> float:
        """1 is best; equal means share the better rank; NaN without a mean."""
        mine = float(self.means[next(i for i, other in enumerate(self.cells) if other is cell)])
        return math.nan if math.isnan(mine) else 1.0 + int((self.means > mine).sum())

    def best_beside(self, cell: Cell) -> Cell | None:
        """The best of them; none for the best itself."""
        if np.isnan(self.means).all():
            return None
        best = self.cells[int(np.nanargmax(self.means))]
        return None if best is cell else best


def rank_blocks(every: Sequence[Cell]) -> dict[int, Block]:
    """The block of each cell, by the cell's id: one arena, one shift, one metric, the same labels seen in pretraining
    and the same pretraining budget. Rows with leaks that were let pass rank apart.

    Baselines are exempt from the budget: they stand in every block. Where there are several budgets, a baseline's own
    rank is the one among the baselines.
    """
    together: dict[tuple[str, ...], list[Cell]] = {}
    for cell in every:
        leaks = "leaks" if cell.row.get("leaks") else ""
        block = (cell.row["arena"], cell.row["shift"], cell.labels, cell.primary, leaks)
        together.setdefault(block, []).append(cell)
    found: dict[int, Block] = {}
    for cells in together.values():
        baselines = [c for c in cells if c.row["baseline"]]
        by_budget: dict[tuple[int, ...], list[Cell]] = {}
        for cell in cells:
            if not cell.row["baseline"]:
                by_budget.setdefault(cell.results[0].budget, []).append(cell)
        for rows in by_budget.values():
            found |= dict.fromkeys(map(id, rows), Block([*rows, *baselines]))
        of_baselines = Block(cells if len(by_budget) <= 1 else baselines)
        found |= dict.fromkeys(map(id, baselines), of_baselines)
    return found
