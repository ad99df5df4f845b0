"""What is left of a score when the test images are corrupted: beside the clean one, for each corruption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.markup import escape
from rich.table import Table

from usbench.report.cells import Cell
from usbench.report.differences import pooled
from usbench.report.table import by_fraction, interval, plain_table, title_of


@dataclass
class Line:
    """One method at one label fraction: its clean results, and of each corruption those of each severity."""

    name: str
    clean: list[Cell]  # one a test set
    corrupted: dict[str, dict[int, list[Cell]]] = field(default_factory=dict)

    def of(self, what: str, severities: Iterable[int]) -> tuple[list[Cell], list[Cell]]:
        """The results of a corruption at these severities, and beside each the clean one of the same set."""
        cells = [cell for severity in severities for cell in self.corrupted[what][severity]]
        same = {cell.row["test_data"]: cell for cell in self.clean}
        return cells, [same[cell.row["test_data"]] for cell in cells]


def lines_of(every: Sequence[Cell]) -> list[Line]:
    """The methods whose corrupted results stand beside clean ones, at the largest label fraction of these."""
    clean = {(r.finetuned, c.row["test_data"]): c for c in every if c.row["shift"] == "in" for r in c.results}
    found: dict[int, list[tuple[str, int, Cell]]] = {}  # by the clean cell
    for cell in every:
        what, colon, severity = cell.row["shift"].partition(":")
        partner = clean.get((cell.results[0].finetuned, cell.row["test_data"])) if colon else None
        if partner is not None:
            found.setdefault(id(partner), []).append((what, int(severity), cell))
    fractions = by_fraction([cell for cell in every if id(cell) in found])
    lines = [Line(name, sides["in"]) for name, sides in fractions.get(max(fractions, default=0.0), {}).items()]
    for line in lines:
        for what, severity, cell in (each for clean_cell in line.clean for each in found[id(clean_cell)]):
            line.corrupted.setdefault(what, {}).setdefault(severity, []).append(cell)
    return [_of_shared_seeds(line) for line in lines]


def _of_shared_seeds(line: Line) -> Line:
    """A line with those seeds alone that all its results have: means of other seeds would not stand side by side."""
    every = [
        *line.clean,
        *(c for by_severity in line.corrupted.values() for some in by_severity.values() for c in some),
    ]
    shared = set.intersection(*(set(cell.seeds) for cell in every))
    if not shared:
        return line

    def of(some: list[Cell]) -> list[Cell]:
        return [
            cell if set(cell.seeds) == shared
            else Cell([r for r in cell.results if int(r.row["seed"]) in shared], cell.memo)
            for cell in some
        ]  # fmt: skip

    corrupted = {what: {severity: of(some) for severity, some in by.items()} for what, by in line.corrupted.items()}
    return Line(line.name, of(line.clean), corrupted)


def shared_severities(lines: Sequence[Line]) -> dict[str, list[int]]:
    """Corruption → the severities at which every line that has it was tested on all its sets: others do not compare."""
    found: dict[str, set[int]] = {}
    for line in lines:
        for what, by_severity in line.corrupted.items():
            whole = {severity for severity, cells in by_severity.items() if len(cells) == len(line.clean)}
            found[what] = found.get(what, whole) & whole
    return {what: sorted(severities) for what, severities in found.items() if severities}


def robustness_tables(every: Sequence[Cell]) -> list[Table]:
    """A table for each metric that has corrupted results."""
    primaries = dict.fromkeys(cell.primary for cell in every)
    found = (lines_of([cell for cell in every if cell.primary == primary]) for primary in primaries)
    return [_table(lines) for lines in found if lines]


def _table(lines: Sequence[Line]) -> Table:
    """The mean score over the severities of each corruption and its change against the clean images."""
    first = lines[0].clean[0]
    metric, fraction = escape(title_of(first.primary)), first.row["label_fraction"]
    table = plain_table(title=f"Robustness: mean {metric} over severities, {fraction:g} % of the labels")
    table.add_column("corruption", no_wrap=True)
    table.add_column("loss", overflow="fold")
    table.add_column(metric, justify="right", no_wrap=True)
    table.add_column("change [95 %]", justify="right", no_wrap=True)
    for place, line in enumerate(lines):
        table.add_row("" if place else "clean", escape(line.name), f"{pooled(line.clean).mean:.3f}", "")
    for what, severities in shared_severities(lines).items():
        table.add_section()
        shown = f"{what} {_span(severities)}"
        for line in lines:
            if what in line.corrupted:
                cells, clean = line.of(what, severities)
                change = interval(pooled(cells, clean))
                table.add_row(escape(shown), escape(line.name), f"{pooled(cells).mean:.3f}", change)
                shown = ""
    return table


def _span(numbers: Sequence[int]) -> str:
    """1–5 where none is left out, else 1,3,5."""
    whole = len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1
    return f"{numbers[0]}–{numbers[-1]}" if whole else ",".join(map(str, numbers))
