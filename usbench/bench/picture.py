"""The figure of a bench: a panel a comparison, shorter bars being faster but where they are rates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from usbench.bench.lines import Line, short
from usbench.bench.machine import described

if TYPE_CHECKING:
    from usbench.bench.bench import Bench

OURS, OTHER = "#d6246e", "#6b7280"
SHARES = ("#00a6c8", "#7c5cd6", "#9ca3af", "#b08968", "#374151")
ROW = 0.24  # inches


def draw(bench: Bench, path: Path) -> None:
    """Write the picture."""
    from usbench.report.figures import pyplot, save_figure

    plt = pyplot()
    panels = _panels([line for line in bench.lines if line.samples is not None])
    heights = [max(2, len(lines)) * ROW + 0.75 for _, lines in panels] or [1.0]
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(9, sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axis, (title, lines) in zip(axes[:, 0], panels, strict=False):
        legend = 16 if lines[0].shares else 6  # points between the title and the bars
        axis.set_title(title, loc="left", fontsize=9, fontweight="bold", pad=legend)
        (_stacked if lines[0].shares else _bars)(axis, lines)
        axis.invert_yaxis()
    if not panels:
        axes[0, 0].set_axis_off()
    figure.suptitle(described(bench.machine), fontsize=7, x=0.01, ha="left")
    save_figure(figure, path)


def _panels(lines: list[Line]) -> list[tuple[str, list[Line]]]:
    """Lines of one comparison and unit together."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(f"{line.case.what} ({line.unit})", []).append(line)
    return list(found.items())  # in the order in which they were measured


def _bars(axis: Any, lines: list[Line]) -> None:
    values = [line.samples.median for line in lines if line.samples]
    spread = [line.samples.quartiles for line in lines if line.samples]
    whiskers = [[v - low for v, (low, _) in zip(values, spread, strict=True)],
                [high - v for v, (_, high) in zip(values, spread, strict=True)]]  # fmt: skip
    colours = [OURS if line.side.startswith("ours") else OTHER for line in lines]
    axis.barh(range(len(lines)), values, xerr=whiskers, color=colours, height=0.7, error_kw={"elinewidth": 0.8})
    for place, (line, value, (_, high)) in enumerate(zip(lines, values, spread, strict=True)):
        ratio = f"   ({line.ratio.median:.3g} {line.ratio_of})" if line.ratio else ""
        text = f"{short(value)}{ratio}"
        axis.annotate(text, (high, place), (4, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_yticks(range(len(lines)), [_name(line) for line in lines], fontsize=7)
    axis.set_xlim(0, 1.6 * max(high for _, high in spread))  # room for the text
    axis.tick_params(axis="x", labelsize=7)


def _stacked(axis: Any, lines: list[Line]) -> None:
    """Shares of the time, with the rate beside each bar."""
    phases = dict.fromkeys(phase for line in lines for phase in line.shares)
    left = [0.0] * len(lines)
    for phase, colour in zip(phases, SHARES, strict=False):
        shares = [100 * line.shares.get(phase, 0.0) for line in lines]
        axis.barh(range(len(lines)), shares, left=left, color=colour, height=0.7, label=phase.replace("_", ", "))
        left = [a + b for a, b in zip(left, shares, strict=True)]
    for place, line in enumerate(lines):
        assert line.samples is not None
        text = f"{short(line.samples.median)} {line.unit}"
        axis.annotate(text, (100, place), (4, 0), textcoords="offset points", va="center", fontsize=7)
    axis.set_yticks(range(len(lines)), [_name(line) for line in lines], fontsize=7)
    axis.set_xlim(0, 118)
    axis.tick_params(axis="x", labelsize=7)
    axis.set_xlabel("% of the time", fontsize=7, loc="left")
    axis.legend(fontsize=7, ncols=len(phases), loc="lower left", frameon=False, bbox_to_anchor=(0, 1), borderpad=0)


def _name(line: Line) -> str:
    return f"{line.side}  ({line.case})" if str(line.case) else line.side
