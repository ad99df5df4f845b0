"""The page's figures, drawn of the same estimates as its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from usbench.evaluate.statistics import Estimate
from usbench.report import chart
from usbench.report.cells import Cell
from usbench.report.chart import Line, Point, axis, panel
from usbench.report.differences import pooled
from usbench.report.files import visible
from usbench.report.page_lines import Method, holder_of
from usbench.report.robustness import lines_of, shared_severities
from usbench.report.table import title_of

SHADES = 9  # of a heat map
BUDGETS = {"steps": "optimiser steps", "images_seen": "images seen", "device_seconds": "device seconds"}


@dataclass
class Panel:
    """One plot and its heading."""

    title: str
    drawn: Markup
    note: str = ""


@dataclass
class Heat:
    """A table of means: rows are methods, columns test sets, and how dark each is."""

    fraction: str
    columns: list[tuple[str, str, str]]  # trained on, tested on, shift
    rows: list[tuple[Method, list[tuple[str, int] | None]]] = field(default_factory=list)


def label_lines(methods: Mapping[str, Method]) -> tuple[dict[float, float], dict[tuple[str, ...], list[Line]]]:
    """Mean score over the label fraction: where each fraction stands, and each test set's lines, trained ones first.

    Fractions stand at equal distances: few labels are what matters, and 5 and 10 % lie close together.
    """
    fractions = sorted({float(cell.row["label_fraction"]) for method in methods.values() for cell in method.cells})
    x = {fraction: float(place) for place, fraction in enumerate(fractions)}
    made: dict[tuple[str, ...], dict[str, Line]] = {}
    for method in methods.values():
        for cell in sorted(method.cells, key=lambda c: c.row["label_fraction"]):
            line = made.setdefault(_place(cell), {}).setdefault(method.name, Line(method.place, method.style))
            fraction = float(cell.row["label_fraction"])
            line.points.append(_point(x[fraction], cell.interval(), f"{method.name}, {fraction:g} %"))
    ordered = sorted(made.items(), key=lambda item: (item[0][2] != "in", item[0]))
    return x, {place: _dodged(list(lines.values()), 0.24) for place, lines in ordered}


def against_labels(methods: Mapping[str, Method]) -> list[Panel]:
    """Mean score over the label fraction: a panel a test set."""
    metric = next((title_of(method.cells[0].primary) for method in methods.values()), "")
    x, places = label_lines(methods)
    y = _common([line for lines in places.values() for line in lines], f"mean {metric}")
    ticks = tuple((at, f"{fraction:g}") for fraction, at in x.items())
    reach = (min(x.values(), default=0) - 0.35, max(x.values(), default=1) + 0.35)
    along = chart.Axis(*reach, ticks, "label fraction, %")
    panels = []
    for place, lines in places.items():
        title = where(place)
        said = f"Mean {metric} with 95 % intervals over the label fraction, for {len(lines)} methods: see the table."
        panels.append(Panel(title, panel(f"{metric} over label fraction: {title}", said, lines, along, y), place[2]))
    return panels


def _place(cell: Cell) -> tuple[str, ...]:
    row = cell.row
    return str(row["train_data"]), str(row["test_data"]), str(row["shift"]), str(row.get("fold", ""))


def where(place: Sequence[str]) -> str:
    """A panel's heading: trained on → tested on."""
    trained, tested, *_ = map(visible, place)
    return f"{trained} → {tested}" if trained != tested else tested


def _point(x: float, estimate: Estimate, name: str) -> Point:
    ends = "" if math.isnan(estimate.low) else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return Point(x, estimate.mean, estimate.low, estimate.high, f"{name}: {estimate.mean:.3f}{ends}")


def _common(lines: Sequence[Line], title: str) -> chart.Axis:
    """A vertical axis that all panels of a figure share: the thin lines' intervals do not widen it."""
    means = [p.mean for line in lines for p in line.points]
    ends = [end for line in lines if line.style != "more" for p in line.points for end in (p.low, p.high)]
    return axis([*means, *(min(1.0, max(0.0, end)) for end in ends)], title)


def _dodged(lines: list[Line], width: float) -> list[Line]:
    """Lines a little beside each other, so that intervals can be told apart; the thin ones stay and lie below."""
    bold = [line for line in lines if line.style != "more"]
    for place, line in enumerate(bold):
        shift = (place - (len(bold) - 1) / 2) * width / max(1, len(bold) - 1)
        line.points = [Point(p.x + shift, p.mean, p.low, p.high, p.words) for p in line.points]
    return [*(line for line in lines if line.style == "more"), *bold]


def heat_maps(methods: Mapping[str, Method]) -> list[Heat]:
    """Every method on every test set, a table a label fraction, the largest first."""
    cells = [cell for method in methods.values() for cell in method.cells]
    means = [m for cell in cells if not math.isnan(m := cell.interval().mean)]
    low, high = min(means, default=0.0), max(means, default=1.0)
    maps = []
    for fraction in sorted({float(cell.row["label_fraction"]) for cell in cells}, reverse=True):
        here = {
            m.name: {_place(c): c for c in m.cells if c.row["label_fraction"] == fraction} for m in methods.values()
        }
        places = sorted({p for held in here.values() for p in held}, key=lambda p: (p[0], p[3], p[2] != "in", p[1]))
        heat = Heat(f"{fraction:g} %", [(visible(p[0]), visible(p[1]), visible(p[2])) for p in places])
        for method in methods.values():
            if held := here[method.name]:
                heat.rows.append((method, [_shade(held.get(place), low, high) for place in places]))
        maps.append(heat)
    return maps


def _shade(cell: Cell | None, low: float, high: float) -> tuple[str, int] | None:
    if cell is None or math.isnan(mean := cell.interval().mean):
        return None
    share = (mean - low) / (high - low) if high > low else 0.5
    return f"{mean:.3f}", min(SHADES - 1, int(share * SHADES))


def robustness_panels(every: Sequence[Cell], methods: Mapping[str, Method]) -> tuple[str, list[Panel]]:
    """Mean score over the severity of each corruption, 0 for clean images; and of which label fraction."""
    lines = lines_of(every)
    if not lines:
        return "", []
    styles = {method.name: method for method in methods.values()}
    made: dict[str, list[Line]] = {}
    for what, severities in shared_severities(lines).items():
        for number, line in enumerate(line for line in lines if what in line.corrupted):
            method = styles.get(visible(line.name)) or holder_of(line.clean[0], methods)
            drawn = Line(method.place if method else 10_000 + number, method.style if method else "more")
            cells = [line.clean, *(line.corrupted[what][severity] for severity in severities)]
            for severity, some in zip((0, *severities), cells, strict=True):
                drawn.points.append(_point(severity, pooled(some), f"{visible(line.name)}, severity {severity}"))
            made.setdefault(what, []).append(drawn)
    metric = title_of(lines[0].clean[0].primary)
    y = _common([line for some in made.values() for line in some], f"mean {metric}")
    x = chart.Axis(-0.3, 5.3, tuple((float(s), str(s) if s else "clean") for s in range(6)), "severity")
    said = f"Mean {metric} with 95 % intervals over the severity of the corruption, 0 for clean images."
    panels = [
        Panel(visible(what), panel(f"{metric} under {visible(what)}", said, _dodged(some, 0.3), x, y))
        for what, some in made.items()
    ]
    return f"{lines[0].clean[0].row['label_fraction']:g} %", panels


def budget_panels(methods: Mapping[str, Method]) -> tuple[str, list[Panel], str]:
    """Mean score against what was spent on it, at the largest label fraction: in and out of distribution.

    What all rows spent alike is no figure: it is said in words.
    """
    cells = [cell for method in methods.values() for cell in method.cells]
    if not cells:
        return "", [], ""
    fraction = max(float(cell.row["label_fraction"]) for cell in cells)
    metric = title_of(cells[0].primary)
    sides: dict[str, list[tuple[Method, list[Cell], Estimate]]] = {}
    for method in methods.values():
        for side in ("in", "out"):
            some = [
                c
                for c in method.cells
                if c.row["label_fraction"] == fraction and (c.row["shift"] == "in") == (side == "in")
            ]
            if some:
                sides.setdefault(side, []).append((method, some, pooled(some)))
    panels: list[Panel] = []
    same: dict[str, str] = {}
    for side, held in sides.items():
        for name, title in BUDGETS.items():
            spent = [_spent(some, name) for _, some, _ in held]
            known = [value for value in spent if value > 0]
            if len(set(known)) < 2:
                same |= {title: f"{known[0]:,.0f} {title}"} if known else {}
                continue
            x = axis(known, title, log=max(known) > 10 * min(known))
            lines = [
                Line(m.place, m.style, [_point(value, estimate, f"{m.name}, {chart.short(value)} {title}")])
                for (m, _, estimate), value in zip(held, spent, strict=True)
                if value > 0
            ]
            y = _common(lines, f"mean {metric}")
            where = "in distribution" if side == "in" else "out of distribution"
            said = f"Mean {metric} {where} with 95 % intervals against {title}, one mark a method."
            lines.sort(key=lambda line: line.style != "more")
            panels.append(Panel(where, panel(f"{metric} against {title}, {where}", said, lines, x, y, joined=False)))
    alike = f" All rows took {' and '.join(same.values())}." if same else ""
    return f"{fraction:g} %", panels, alike


def _spent(cells: Sequence[Cell], name: str) -> float:
    """What a row's trainings took, mean over seeds; its test sets share them."""
    found = [float(value) for r in cells[0].results if (value := r.facts.get(name)) is not None]
    return sum(found) / len(found) if found else math.nan
