"""The table that a run ends with, for a terminal of 80 columns or a plain file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from usbench.evaluate.statistics import Estimate, crossed_interval
from usbench.report.leaderboard import Cell, baseline_of, difference


def plain_table(*headers: str, title: str) -> Table:
    """A table with a rule under its head and no box, so that it fits 80 columns."""
    return Table(
        *headers, title=title, title_justify="left", pad_edge=False, collapse_padding=True, header_style="bold",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip


def results_table(every: Sequence[Cell]) -> Table:
    """Dice in and out of distribution for each label fraction, and the difference to the supervised baseline."""
    table = plain_table(title="Mean Dice of lesion images")
    table.add_column("labels", justify="right", no_wrap=True)
    table.add_column("loss", overflow="fold")
    for side in ("in", "out"):
        table.add_column(f"Dice\n{side}", justify="right", no_wrap=True)
        table.add_column("diff. [95 %]", justify="right", no_wrap=True)
    before = None
    for fraction, rows in sorted(_by_fraction(every).items(), reverse=True):
        for name, sides in rows.items():
            values = [part for side in ("in", "out") for part in _side(sides.get(side, []), every)]
            table.add_row("" if fraction == before else f"{fraction:g} %", escape(name), *values)
            before = fraction
        table.add_section()
    return table


def _by_fraction(every: Sequence[Cell]) -> dict[float, dict[str, dict[str, list[Cell]]]]:
    found: dict[float, dict[str, dict[str, list[Cell]]]] = {}
    for cell in every:
        row = cell.row
        name = row["loss"] if row["aug"] == "none" else f"{row['loss']} · {row['aug']}"
        if row["init"] != "random":
            name += f" · {row['init']}"
        sides = found.setdefault(float(row["label_fraction"]), {}).setdefault(name, {})
        sides.setdefault("in" if row["shift"] == "in" else "out", []).append(cell)
    return found


def _side(cells: list[Cell], every: Sequence[Cell]) -> tuple[str, str]:
    """Dice and difference of one side; several unseen sets are pooled, image by image."""
    if not cells:
        return "–", ""
    mean = pooled([cell.values["dice"] for cell in cells], cells)
    bases = [baseline_of(cell, every) for cell in cells]
    if any(base is None for base in bases):
        return f"{mean.mean:.3f}", ""
    if len(cells) == 1:
        return f"{mean.mean:.3f}", interval(difference(cells[0], bases[0]))
    pairs = [cell.paired(base) for cell, base in zip(cells, bases, strict=True) if base is not None]
    if any(pair is None for pair in pairs):
        return f"{mean.mean:.3f}", ""
    return f"{mean.mean:.3f}", interval(pooled([pair for pair in pairs if pair is not None], cells))


def pooled(values: Sequence[np.ndarray], cells: Sequence[Cell]) -> Estimate:
    """One interval over the images of several test sets; a patient belongs to one set."""
    seeds = min(v.shape[1] for v in values)
    return crossed_interval(np.concatenate([v[:, :seeds] for v in values]), np.concatenate([c.groups for c in cells]))


def interval(estimate: Estimate) -> str:
    """A difference as it stands in the table."""
    if math.isnan(estimate.mean):
        return ""
    numbers = [f"{x:+.3f}".replace("0.", ".", 1) for x in (estimate.mean, estimate.low, estimate.high)]
    return "{} [{}, {}]".format(*numbers)


def footnotes(every: Sequence[Cell], missing: Sequence[str]) -> list[str]:
    """What a reader must know to read the table rightly."""
    seeds = max((len(cell.seeds) for cell in every), default=0)
    notes = []
    if seeds == 1:
        notes.append("One seed: the intervals are over patients only, and no test is made. Use --seeds 3 for a claim.")
    else:
        notes.append(f"Intervals cross patients with {seeds} seeds.")
    unseen = sorted({cell.row["test_data"] for cell in every if cell.row["shift"] != "in"})
    if unseen:
        notes.append(f"Out of distribution: {', '.join(unseen)}, never trained on.")
    if any(cell.row["reconstruction"] for cell in every):
        names = sorted({cell.row["loss"] for cell in every if cell.row["reconstruction"]})
        notes.append(f"The formula of {', '.join(names)} is our reconstruction of its paper.")
    notes += [f"Not in the table: {name}." for name in missing]
    return notes
