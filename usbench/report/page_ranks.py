"""The page's figure of mean ranks, one method a line, so that it can be read however many there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from usbench.report import chart
from usbench.report.cells import Cell
from usbench.report.families import Family, families
from usbench.report.files import visible
from usbench.report.page_figures import Panel
from usbench.report.page_lines import Method, holder_of


def rank_panels(every: Sequence[Cell], methods: Mapping[str, Method]) -> list[Panel]:
    """Mean ranks with bars that join what is not told apart: a panel a family of comparable methods."""
    return [_ranks(family, methods) for family in families(every) if family.enough]


def _ranks(family: Family, methods: Mapping[str, Method]) -> Panel:
    ranks, bars = family.ranks, family.bars
    names = {name: visible(name) if len(visible(name)) < 29 else f"{visible(name)[:27]}…" for name in ranks.index}
    names_wide, row, width, height = 12 + 6.4 * max(map(len, names.values())), 19, 440, 34 + 19 * len(ranks)
    plot_wide = width - names_wide - 16 - 9 * len(bars)
    most = max(len(ranks), 2)

    def along(rank: float) -> float:
        return names_wide + (rank - 1) / (most - 1) * plot_wide

    ticks = sorted({1, most, *range(1, most + 1, max(1, -(-most // 6)))})
    parts = [
        Markup('<path class="grid" d="M{0:.1f} 26v{1}"/>').format(along(t), height - 24)
        + chart.text(along(t), 18, str(t), "tx")
        for t in ticks
    ]  # fmt: skip
    heights = []
    for number, (name, rank) in enumerate(ranks.items()):
        method = holder_of(family.cells[str(name)][0], methods)
        style, place = (method.style, method.place) if method else ("more", 10_000)
        heights.append(y := 38 + number * row)
        called = visible(name)
        parts.append(Markup('<g class="ln {}" data-m="{}">').format(style, place))
        parts.append(Markup('<path class="lead" d="M{} {}H{:.1f}"/>').format(names_wide, y, along(rank)))
        parts.append(chart.text(names_wide - 8, y + 4, names[name], "ty name"))
        parts.append(chart.dot(along(rank), y, style, f"{called}: mean rank {rank:.2f}") + Markup("</g>"))
    for number, (first, last) in enumerate(bars):
        x = names_wide + plot_wide + 14 + 9 * number
        parts.append(Markup('<path class="bar" d="M{} {}V{}"/>').format(x, heights[first] - 6, heights[last] + 6))
    said = "Mean ranks, 1 is best: " + "; ".join(f"{visible(name)} {rank:.2f}" for name, rank in ranks.items()) + "."
    drawn = chart.picture(f"Mean ranks: {visible(family.title)}", said, width, height, Markup("").join(parts))
    return Panel(visible(family.title), drawn, f"Over {family.over}; {family.verdict}.")
