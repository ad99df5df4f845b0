"""The table that a run ends with, for a terminal of 80 columns or a plain file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from usbench.evaluate.statistics import Estimate
from usbench.report.cells import Cell, processors_of
from usbench.report.differences import pooled
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
Sides = dict[str, list[Cell]]  # in and out of distribution


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
    return one_line(metric.replace("_", " "))[:24].capitalize()


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
        kept = {name: sides for group in _alike(rows) for name, sides in _kept(group).items()}
        for name, sides in rows.items():
            if table.row_count == LINES:
                table.caption = f"The first {LINES} lines; all of them are in the CSV."
                return table
            dropped = dropped or any(len(kept[name][side]) < len(cells) for side, cells in sides.items())
            values = [part for side in ("in", "out") for part in _side(kept[name].get(side, []))]
            table.add_row("" if fraction == before else f"{fraction:g} %", escape(one_line(name)), *values)
            before = fraction
        table.add_section()
    if dropped:
        table.caption = "A column pools only the test sets that all lines of the same training have."
    return table


def by_fraction(every: Sequence[Cell]) -> dict[float, dict[str, Sides]]:
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
    found: dict[float, dict[str, Sides]] = {}
    for line, name in zip(lines, _names([line[0] for line in lines]), strict=True):
        for cell in line:
            sides = found.setdefault(float(cell.row["label_fraction"]), {}).setdefault(name, {})
            sides.setdefault("in" if cell.row["shift"] == "in" else "out", []).append(cell)
    return found


def _tested(cell: Cell) -> Tested:
    """A test set by its name and its images: two packs may be called the same."""
    return str(cell.row["test_data"]), str(cell.facts.get("pack", ""))


def _alike(lines: Mapping[str, Sides]) -> list[dict[str, Sides]]:
    """Lines that stand beside each other: trained on sets of one name, and linked by test sets of the same images."""
    groups: list[tuple[set[tuple[Any, ...]], dict[str, Sides]]] = []
    for name, sides in lines.items():
        every = [cell for cells in sides.values() for cell in cells]
        links = {(cell.row["train_data"], cell.row["fold"], *_tested(cell)) for cell in every}
        near = [group for group in groups if group[0] & links]
        groups = [group for group in groups if not group[0] & links]
        together = {key: value for _, group in near for key, value in group.items()}
        groups.append((links.union(*(group[0] for group in near)), {**together, name: sides}))
    return [group for _, group in groups]


def _kept(lines: Mapping[str, Sides]) -> dict[str, Sides]:
    """The lines with the test sets that all of them have, so that a column pools the same images for all; a line that
    shares none keeps its own."""
    kept: dict[str, Sides] = {name: {} for name in lines}
    for side in ("in", "out"):
        having = {name: sides[side] for name, sides in lines.items() if side in sides}
        common = set.intersection(*(set(map(_tested, cells)) for cells in having.values())) if having else set()
        for name, cells in having.items():
            kept[name][side] = [cell for cell in cells if _tested(cell) in common] or cells
    return kept


def _names(firsts: Sequence[Cell]) -> list[str]:
    """A name a line: its loss, augmentation and start, and what else tells it from others that have the same. Where
    that is the training set for any of them, all say theirs: scores of two training sets are not compared."""
    rows = [{**cell.results[0].facts, **cell.row} for cell in firsts]
    names = [_name(row) for row in rows]
    for what, words in APART.items():
        values: dict[tuple[str, float], set[Any]] = {}
        for name, row in zip(names, rows, strict=True):
            values.setdefault((name, row["label_fraction"]), set()).add("" if row.get(what) is None else row[what])
        twice = {name for (name, _), some in values.items() if len(some) > 1}
        told = set(names) if twice and what == "train_data" else twice
        names = [
            f"{name} · {words.format(row.get(what))}" if name in told and row.get(what) not in (None, "") else name
            for name, row in zip(names, rows, strict=True)
        ]
    return names


def _name(row: Mapping[str, Any]) -> str:
    name = row["loss"] if row["aug"] == "none" else f"{row['loss']} · {row['aug']}"
    name = name if row["init"] == "random" else f"{name} · {row['init'].removesuffix('.safetensors')}"
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
        return _signed(estimate.mean)
    return f"{_signed(estimate.mean)} [{_signed(estimate.low)}, {_signed(estimate.high)}]"


def _signed(number: float) -> str:
    return re.sub(r"^([+-])0\.", r"\1.", f"{number:+.3f}")


def footnotes(every: Sequence[Cell], missing: Sequence[str]) -> list[str]:
    """What a reader must know to read the table rightly, each on one line."""
    return [one_line(note) for note in (*_notes(every), *(f"Not in the table: {name}." for name in missing))]


def _notes(every: Sequence[Cell]) -> list[str]:
    counts, other = sorted({len(cell.seeds) for cell in every}), len({cell.seeds for cell in every}) > 1
    notes = []
    if counts == [1] and not other:
        notes.append("One seed: the intervals are over patients only, and no test is made. Use --seeds 3 for a claim.")
    elif other:
        some = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        alone = " (with one: over patients only)" if counts[0] == 1 else ""
        notes.append(
            f"Intervals cross patients with {some} seeds{alone}, not the same for all rows; a difference is over the "
            "seeds that both rows have, so means of other seeds need not differ by it."
        )
    else:
        notes.append(f"Intervals cross patients with {max(counts, default=0)} seeds.")
    if any(str(cell.row["setting"]).endswith(FOLDS) for cell in folded(every)):
        notes.append(
            "Folds are one row: each image counts once, in the fold that held it out; the CSV has each fold's row too."
        )
    unseen = sorted({cell.row["test_data"] for cell in every if cell.row["shift"] == "out" and not cell.row["leaks"]})
    if unseen:
        notes.append(f"Out of distribution: {', '.join(unseen)}; no row that counts there as such was trained on it.")
    if starts := sorted({cell.row["init"] for cell in every} - {"random", "imagenet"}):
        notes.append(
            f"Which images {', '.join(starts)} was made from is not known here: if tested ones are among them, those "
            "tests are of images that were seen."
        )
    if any(cell.row["reconstruction"] for cell in every):
        names = sorted({cell.row["loss"] for cell in every if cell.row["reconstruction"]})
        notes.append(f"The formula of {', '.join(names)} is our reconstruction of its paper.")
    if leaky := sorted({f"{c.row['leaks']} of {c.row['test_data']}" for c in every if c.row["leaks"]}):
        notes.append(
            f"Let pass by --allow-leaks: training images that are near-duplicates of tested ones, {', '.join(leaky)}."
        )
    if rivals := sum(cell.rivals for cell in every):
        notes.append(
            f"Tests that stand in several stores with other scores, as another machine may give them: {rivals}; those "
            "of the store that is named first are shown."
        )
    if len(processors := processors_of(every)) > 1:
        notes.append(
            f"Rows were trained on different processors ({'; '.join(processors)}): equal seeds pair nothing between "
            "them, and rounding alone moves scores."
        )
    versions: dict[str, set[str]] = {}
    for cell in every:
        for result in cell.results:
            for library, number in result.versions.items():
                versions.setdefault(library, set()).add(number)
    if mixed := [f"{library} {' and '.join(sorted(some))}" for library, some in versions.items() if len(some) > 1]:
        notes.append(f"Rows were made with different versions: {', '.join(mixed)}.")
    return notes
