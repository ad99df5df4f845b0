"""What every method gains over the supervised baseline, with intervals: the picture of a suite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from usbench.report.cells import Cell
from usbench.report.differences import difference
from usbench.report.families import method_of
from usbench.report.figures import plain_text, pyplot, save_figure
from usbench.report.folds import folded
from usbench.report.table import title_of

Panel = tuple[str, str, str, str]  # training set, shift, test set, and what else its rows share
NAME = "differences.png"
APART = {"protocol": "by {}", "backbone": "{}", "init": "from {}", "size": "{} px"}  # what rows of a panel share
COLUMNS = 4  # panels side by side
SHADES = ("#d6246e", "#7c3aed", "#0f766e", "#b45309", "#6b7280")  # from few labels to many


def forest(every: Sequence[Cell], path: Path) -> None:
    """A panel for each test set, those of a training set side by side; a line for each method, a point for each label
    fraction."""
    cells = [cell for cell in folded(every) if not cell.corrupted and cell.base is not None]
    panels: dict[Panel, list[Cell]] = {}
    apart = [name for name in APART if len({cell.row.get(name) for cell in cells}) > 1]
    for cell in cells:
        by = ", ".join(APART[name].format(cell.row.get(name)) for name in apart)
        panels.setdefault((cell.row["train_data"], cell.row["shift"], cell.row["test_data"], by), []).append(cell)
    if not panels:
        return
    fractions = sorted({float(cell.row["label_fraction"]) for cell in cells})
    rows = _rows(panels)
    wide = max(map(len, rows))
    named = [list(dict.fromkeys(method_of(cell) for at in row for cell in panels[at])) for row in rows]
    plt = pyplot()
    heights = [0.27 * len(names) + 1.0 for names in named]
    size = (2.9 * wide + 1.2, sum(heights) + 0.3)
    shared = {"squeeze": False, "sharex": True, "sharey": "row", "height_ratios": heights}
    figure, axes = plt.subplots(len(named), wide, figsize=size, **shared)
    places = [(line, column, at) for line, row in enumerate(rows) for column, at in enumerate(row)]
    for line, column, (trained, shift, tested, by) in places:
        axis, methods, some = axes[line, column], named[line], panels[trained, shift, tested, by]
        axis.axvline(0, color="black", linewidth=0.8)
        for number, fraction in enumerate(fractions):
            shift_by = 0.5 * ((number + 0.5) / len(fractions) - 0.5)
            here = [cell for cell in some if cell.row["label_fraction"] == fraction]
            found = [difference(cell, cell.base) for cell in here]
            y = [methods.index(method_of(cell)) + shift_by for cell in here]
            mean = [each.mean for each in found]
            ends = [[e.mean - e.low for e in found], [e.high - e.mean for e in found]]
            label = f"{fraction:g} % of the labels" if axis is axes.flat[0] else None
            axis.errorbar(mean, y, xerr=ends, fmt="o", ms=3.5, lw=1.2, color=SHADES[number % len(SHADES)], label=label)
        where = "" if shift == "in" else " (unseen)" if shift == "out" else f" ({shift})"
        axis.set_title("\n".join(map(plain_text, filter(None, (f"{trained} → {tested}{where}", by)))), fontsize=8)
        axis.grid(axis="x", alpha=0.25)
    for number, column in enumerate(axes.T):
        shown = [axis for axis, row in zip(column, rows, strict=True) if number < len(row)]
        shown[-1].tick_params(labelbottom=True)
        for axis in set(column) - set(shown):
            axis.set_visible(False)
    for axis, names in zip(axes[:, 0], named, strict=True):
        axis.set_yticks(range(len(names)), [plain_text(name) for name in names])
        axis.set_ylim(len(names) - 0.5, -0.5)
    metrics = {cell.primary for cell in cells}
    score = f"mean {title_of(cells[0].primary)}" if len(metrics) == 1 else "the mean score"
    figure.supxlabel(f"difference of {score} to no pretraining, 95 % interval", fontsize=9)
    figure.legend(loc="upper right", ncols=len(fractions), frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.28 / size[1]))
    save_figure(figure, path)


def _rows(panels: Iterable[Panel]) -> list[list[Panel]]:
    """Panels of one training set beside each other, as many as fit."""
    trained: dict[str, list[Panel]] = {}
    for at in panels:
        trained.setdefault(at[0], []).append(at)
    return [some[at : at + COLUMNS] for some in trained.values() for at in range(0, len(some), COLUMNS)]
