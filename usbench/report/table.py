"""The table that a run ends with, for a terminal of 80 columns or a plain file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from usbench.evaluate.statistics import Estimate
from usbench.report.cells import Cell, pooled
from usbench.report.files import one_line
from usbench.report.folds import FOLDS, folded

LINES = 400  # of a table on a terminal
TRANSDUCTIVE = "out-transductive"
# What may tell two lines of one loss, augmentation and start apart.
APART = {
    "train_data": "{}", "pretrain_data": "from {}", "chosen": "{}", "fold": "fold {}", "backbone": "{}",
    "pack": "pack {:.6}", "protocol": "{}", "device": "{}", "precision": "{}", "threads": "{} threads",
    "steps": "{} steps", "pixels_seen": "{:.2g} pixels", "setting": "{:.6}",
}  # fmt: skip


Tested = tuple[str, str]
Common = dict[tuple[tuple[Any, ...], str], set[Tested]]


def plain_table(*headers: str, title: str) -> Table:
    """A table with a rule under its head and no box, so that it fits 80 columns."""
    return Table(
        *headers, title=title, title_justify="left", pad_edge=False, collapse_padding=True, header_style="bold",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip


def results_tables(every: Sequence[Cell]) -> list[Table]:
    """A table of results for each metric, and one of its own for targets whose images were pretrained on.

    Corrupted copies of test sets stand in neither.
    """
    tables, every = [], folded(every)
    for primary in dict.fromkeys(cell.primary for cell in every):
        some = [cell for cell in every if cell.primary == primary and not cell.corrupted]
        seen = [cell for cell in some if cell.row["shift"] == TRANSDUCTIVE]
        among = "lesion images" if any(cell.counts()["lesions"] for cell in some) else "images"
        others = [cell for cell in some if cell.row["shift"] != TRANSDUCTIVE]
        if others:
            tables.append(results_table(others, f"Mean {title_of(primary)} of {among}"))
        if seen:
            arenas = {cell.row["arena"] for cell in seen}
            bases = [cell for cell in some if cell.row["arena"] in arenas and cell.row["baseline"]]
            tables.append(results_table([*bases, *seen], "Transductive: images of the target were pretrained on"))
    return tables


def title_of(metric: str) -> str:
    """A metric's name as a heading."""
    return one_line(metric.replace("_", " "))[:20].capitalize()


def results_table(every: Sequence[Cell], title: str) -> Table:
    """The score in and out of distribution for each label fraction, and the difference to the supervised baseline."""
    table = plain_table(title=escape(title))
    table.add_column("labels", justify="right", no_wrap=True)
    table.add_column("loss", overflow="fold")
    metric = title_of(every[0].primary) if every else "Score"
    for side in ("in", "out"):
        head = escape(metric).replace(" ", "\n")  # a long one leaves no room for the names of the rows
        table.add_column(f"{head}\n{side}", justify="right", no_wrap=True)
        table.add_column("diff. [95 %]", justify="right", no_wrap=True)
    before, dropped = None, False
    for fraction, rows in sorted(by_fraction(every).items(), reverse=True):
        common = _common(rows.values())
        for name, sides in rows.items():
            if table.row_count == LINES:
                table.caption = f"The first {LINES} lines; all of them are in the CSV."
                return table
            kept = {side: _kept(sides, side, common) for side in ("in", "out")}
            dropped = dropped or any(len(some) < len(sides.get(side, [])) for side, some in kept.items())
            values = [part for some in kept.values() for part in _side(some)]
            table.add_row("" if fraction == before else f"{fraction:g} %", escape(one_line(name)), *values)
            before = fraction
        table.add_section()
    if dropped:
        table.caption = "A column pools only the test sets that all lines of the same training have."
    return table


def by_fraction(every: Sequence[Cell]) -> dict[float, dict[str, dict[str, list[Cell]]]]:
    """Fraction → line → side → cells. What differs in anything but the test set is never one line."""
    lines: list[list[Cell]] = []  # the test sets of the same fine-tunes
    line_of: dict[str, list[Cell]] = {}
    for cell in every:
        # A fine-tune that was chosen among trials is another line than the same one that nobody chose.
        tuned = [f"{result.finetuned} {cell.row.get('chosen', '')}" for result in cell.results]
        line = next((line_of[key] for key in tuned if key in line_of), None)
        if line is None:
            lines.append(line := [])
        line.append(cell)
        line_of |= dict.fromkeys(tuned, line)
    found: dict[float, dict[str, dict[str, list[Cell]]]] = {}
    for line, name in zip(lines, _names([line[0] for line in lines]), strict=True):
        for cell in line:
            sides = found.setdefault(float(cell.row["label_fraction"]), {}).setdefault(name, {})
            sides.setdefault("in" if cell.row["shift"] == "in" else "out", []).append(cell)
    return found


def _tested(cell: Cell) -> Tested:
    """A test set by its name and its images: two packs may be called the same."""
    return str(cell.row["test_data"]), str(cell.facts.get("pack", ""))


def _trained(sides: Mapping[str, list[Cell]]) -> tuple[Any, ...]:
    """What a line was trained on: only such lines are tested on the same sets."""
    row = next(iter(sides.values()))[0].row
    return row["train_data"], row["fold"], *sorted(map(_tested, sides.get("in", [])))


def _common(lines: Iterable[Mapping[str, list[Cell]]]) -> Common:
    """(training sets, side) → the test sets that every line of them has: a column pools the same images for all."""
    found: Common = {}
    for sides in lines:
        for side, cells in sides.items():
            tested = set(map(_tested, cells))
            place = (_trained(sides), side)
            found[place] = found.get(place, tested) & tested
    return found


def _kept(sides: Mapping[str, list[Cell]], side: str, common: Common) -> list[Cell]:
    """A line's results on the sets that it shares with the others; all of them where there is no such set."""
    cells = sides.get(side, [])
    kept = [cell for cell in cells if _tested(cell) in common.get((_trained(sides), side), set())]
    return kept or cells


def _names(firsts: Sequence[Cell]) -> list[str]:
    """A name a line: its loss, augmentation and start, and what else tells it from others that have the same."""
    rows = [{**cell.results[0].facts, **cell.row} for cell in firsts]
    names = [_name(row) for row in rows]
    for what, words in APART.items():
        values: dict[tuple[str, float], set[Any]] = {}
        for name, row in zip(names, rows, strict=True):
            values.setdefault((name, row["label_fraction"]), set()).add(row.get(what))
        twice = {name for (name, _), some in values.items() if len(some) > 1}
        names = [
            f"{name} · {words.format(row.get(what))}" if name in twice else name
            for name, row in zip(names, rows, strict=True)
        ]
    return names


def _name(row: Mapping[str, Any]) -> str:
    name = row["loss"] if row["aug"] == "none" else f"{row['loss']} · {row['aug']}"
    name = name if row["init"] == "random" else f"{name} · {row['init']}"
    return f"{name} · leaks" if row.get("leaks") else name


def _side(cells: list[Cell]) -> tuple[str, str]:
    """Score and difference of one side; several unseen sets are pooled, image by image."""
    if not cells:
        return "–", ""
    mean = pooled(cells).mean
    return "–" if math.isnan(mean) else f"{mean:.3f}", interval(pooled(cells, [cell.base for cell in cells]))


def interval(estimate: Estimate) -> str:
    """A difference as it stands in the table; alone where one patient allows no interval."""
    if math.isnan(estimate.mean):
        return ""
    if math.isnan(estimate.low):
        return f"{estimate.mean:+.3f}".replace("0.", ".", 1)
    numbers = [f"{x:+.3f}".replace("0.", ".", 1) for x in (estimate.mean, estimate.low, estimate.high)]
    return "{} [{}, {}]".format(*numbers)


def footnotes(every: Sequence[Cell], missing: Sequence[str]) -> list[str]:
    """What a reader must know to read the table rightly, each on one line."""
    return [one_line(note) for note in (*_notes(every), *(f"Not in the table: {name}." for name in missing))]


def _notes(every: Sequence[Cell]) -> list[str]:
    counts = sorted({len(cell.seeds) for cell in every})
    notes = []
    if counts == [1]:
        notes.append("One seed: the intervals are over patients only, and no test is made. Use --seeds 3 for a claim.")
    elif len(counts) > 1:
        alone = " (with one: over patients only)" if counts[0] == 1 else ""
        notes.append(
            f"Intervals cross patients with {counts[0]} to {counts[-1]} seeds{alone}; a difference is over the seeds "
            "that both rows have, so means of other seeds need not differ by it."
        )
    else:
        notes.append(f"Intervals cross patients with {max(counts, default=0)} seeds.")
    if any(str(cell.row["setting"]).endswith(FOLDS) for cell in folded(every)):
        notes.append(
            "Folds are one row: each image counts once, in the fold that held it out; the CSV has each fold's row too."
        )
    unseen = sorted({cell.row["test_data"] for cell in every if cell.row["shift"] == "out" and not cell.row["leaks"]})
    if unseen:
        notes.append(f"Out of distribution: {', '.join(unseen)}; no row is tested there that was trained on it.")
    if any(cell.row["reconstruction"] for cell in every):
        names = sorted({cell.row["loss"] for cell in every if cell.row["reconstruction"]})
        notes.append(f"The formula of {', '.join(names)} is our reconstruction of its paper.")
    if leaky := sorted({f"{c.row['leaks']} of {c.row['test_data']}" for c in every if c.row["leaks"]}):
        notes.append(
            f"Let pass by --allow-leaks: training images that are near-duplicates of tested ones, {', '.join(leaky)}."
        )
    versions: dict[str, set[str]] = {}
    for cell in every:
        for result in cell.results:
            for library, number in result.versions.items():
                versions.setdefault(library, set()).add(number)
    if mixed := [f"{library} {' and '.join(sorted(some))}" for library, some in versions.items() if len(some) > 1]:
        notes.append(f"Rows were made with different versions: {', '.join(mixed)}.")
    return notes
