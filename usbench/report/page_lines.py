"""The methods of the page's figures: one line each, with the style and the place that it has in all of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from usbench.report import chart
from usbench.report.cells import Cell
from usbench.report.families import mean_rank_of, saw_tests
from usbench.report.files import visible
from usbench.report.table import TRANSDUCTIVE, by_fraction

COLOURS = 6  # methods in a colour of their own; more are not told apart


@dataclass
class Method:
    """A line's name, its cells, and how it is drawn."""

    name: str
    place: int
    style: str
    cells: list[Cell]

    @property
    def mark(self) -> Markup:
        """How it looks in a legend."""
        return chart.mark(self.style)


def methods_of(every: Sequence[Cell], *, of_panels: bool = False) -> dict[str, Method]:
    """Lines by the names that the terminal's table gives them, baselines first, then the best. Where every training set
    has panels of its own, a method is one line in all of them.

    Baselines are grey. The best by mean rank have colours; where nothing is ranked, the first do. The rest is thin.
    """
    cells: dict[str, list[Cell]] = {}
    trained = dict.fromkeys(str(cell.row["train_data"]) for cell in every) if of_panels else {}
    parts = [[cell for cell in every if cell.row["train_data"] == name] for name in trained] or [list(every)]
    for lines in (lines for part in parts for lines in by_fraction(part).values()):
        for name, sides in lines.items():
            cells.setdefault(name, []).extend(cell for side in sides.values() for cell in side)
    ranks = mean_rank_of(every)

    def order(name: str) -> tuple[int, float]:
        kind = cells[name][0].row["baseline"]
        known = [ranks[id(cell)] for cell in cells[name] if id(cell) in ranks]
        return (0 if kind == "plain" else 1 if kind else 2), min(known, default=math.inf)

    found: dict[str, Method] = {}
    used = 0
    for place, name in enumerate(sorted(cells, key=order)):
        kind = {"plain": "base", "long": "long"}.get(cells[name][0].row["baseline"], "")
        alike = kind and any(method.style == kind for method in found.values())
        used += not kind
        style = ("more" if alike else kind) if kind else f"s{used}" if used <= COLOURS else "more"
        found[name] = Method(visible(name), place, style, cells[name])
    return found


def shown_together(every: Sequence[Cell]) -> list[Cell]:
    """What one figure can hold: rows of the metric that most have, on clean images, of networks whose pretraining saw
    no test set; or where there are no others, these on what they did not see."""
    seen = saw_tests(every)
    plain = [cell for cell in every if not cell.corrupted and cell.row["shift"] != TRANSDUCTIVE]
    plain = [cell for cell in plain if cell.results[0].finetuned not in seen] or plain
    counted = Counter(cell.primary for cell in plain).most_common(1)
    return [cell for cell in plain if cell.primary == counted[0][0]]


def legend(methods: Iterable[Method]) -> list[Method]:
    """Those that a legend names: the thin ones can be picked from a list."""
    return [method for method in methods if method.style != "more"]


def _row(cell: Cell) -> tuple[str, str]:
    return cell.row["setting"], cell.row["arena"]


def holder_of(cell: Cell, methods: Mapping[str, Method]) -> Method | None:
    """The method that holds the same cell, where other lines beside it gave it another name."""
    return next(
        (method for method in methods.values() if any(_row(c) == _row(cell) for c in method.cells)),
        None,
    )
