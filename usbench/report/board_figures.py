"""A leaderboard's pictures for paper and slides: scores over the label fraction, and masks as outlines without images.

Methods have the colours that they have on the page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.report.cells import Cell
from usbench.report.families import LEAST_METHODS, LEAST_TRAININGS, families
from usbench.report.figures import hide, mean_ranks, plain_text, pyplot, save_figure
from usbench.report.files import visible
from usbench.report.folds import folded
from usbench.report.gallery import SHARED, Group, cases_of_all, groups_of, opened, whole
from usbench.report.page_figures import label_lines, where
from usbench.report.page_lines import Method, holder_of, legend, methods_of, shown_together
from usbench.report.summary import places_of
from usbench.report.table import title_of
from usbench.runs.store import Store

COLUMNS = 3  # panels side by side
LOOKS: dict[str, tuple[str, str, Any]] = {  # of the page's styles: colour, mark, line
    "s1": ("#0067a5", "o", "-"), "s2": ("#c24a08", "s", "-"), "s3": ("#00795a", "^", "-"), "s4": ("#a83f7f", "D", "-"),
    "s5": ("#7d6000", "v", "-"), "s6": ("#5b4fb3", "P", "-"), "base": ("#59626d", "o", "--"),
    "long": ("#86694a", "s", "--"), "more": ("#b3bac2", ".", "-"),
}  # fmt: skip
LESION = "#e3e6ea"  # the truth, filled
ROOM = 0.12  # of a tile, around what it shows
LEAST = 0.2  # of an image, a tile shows


def against_labels(every: Sequence[Cell], path: Path) -> None:
    """The mean score with its interval over the label fraction: a panel a test set, a line a method."""
    methods = methods_of(shown_together(folded(every)), of_panels=True)
    x, places = label_lines(methods)
    if not places:
        raise UsbenchError(f"{path}: there is no row to draw.")
    wide = min(COLUMNS, len(places))
    high = math.ceil(len(places) / wide)
    plt = pyplot()
    size = (3.0 * wide + 0.6, 2.5 * high + 0.6)
    figure, axes = plt.subplots(high, wide, figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (place, lines) in zip(axes.flat, places.items(), strict=False):
        for line in lines:
            colour, mark, dash = LOOKS[line.style]
            means = np.array([p.mean for p in line.points])
            ends = np.abs([[p.low for p in line.points], [p.high for p in line.points]] - means)
            at = [p.x for p in line.points]
            axis.errorbar(at, means, ends, color=colour, marker=mark, linestyle=dash, markersize=4, linewidth=1.1)
        unseen = " (unseen)" if place[2] == "out" else ""
        axis.set_title(plain_text(f"{where(place)}{unseen}"), fontsize=8.5)
    hide(axes, len(places))
    axes[0, 0].set_xticks(list(x.values()), [f"{fraction:g}" for fraction in x])
    metric = title_of(next(iter(methods.values())).cells[0].primary)
    figure.supxlabel("label fraction, %", fontsize=9)
    figure.supylabel(f"mean {metric}, 95 % interval", fontsize=9)
    _key(figure, size, list(methods.values()))
    save_figure(figure, path)


def ranks(every: Sequence[Cell], path: Path) -> None:
    """Mean ranks, where comparable methods share enough."""
    if not (drawn := [family for family in families(every) if family.enough]):
        raise UsbenchError(
            f"--ranks {path}: mean ranks need {LEAST_METHODS} comparable methods that share {LEAST_TRAININGS} "
            "trainings (a set with a share of its labels), and there are none: run more methods, shares or sets."
        )
    mean_ranks(drawn, path)


def outlines_of(stores: Sequence[Store]) -> Callable[[Sequence[Cell], Path], None]:
    """Draws outlines, with the truth of the packs that these stores or the data home have."""
    return lambda every, path: outlines(every, places_of(stores), path)


def outlines(every: Sequence[Cell], places: Mapping[str, Path], path: Path) -> None:
    """The images of a test set that are best, median, worst and most disputed, as its rows' first seeds see them.

    A line of tiles for each test set and label fraction; the truth is filled where its pack is here. No image is shown.
    """
    groups = groups_of(every)
    kept = shown_together([cell for group in groups for cell, _ in group.rows])
    methods = {method.name: method for method in legend(methods_of(kept).values())}
    strips = [strip for group in groups for strip in _strips(group, methods, places)]
    if not strips:
        raise UsbenchError(
            f"{path}: no row kept masks to draw outlines of, and none is ever published: run a protocol that segments."
        )
    plt = pyplot()
    size = (2.0 * len(SHARED) + 0.3, 2.15 * len(strips) + 0.5)
    figure, axes = plt.subplots(len(strips), len(SHARED), figsize=size, squeeze=False)
    for line, strip in zip(axes, strips, strict=True):
        line[0].set_ylabel(plain_text(strip.title), fontsize=8.5)
        for axis in line[len(strip.tiles) :]:
            axis.set_visible(False)
        for axis, name, tile in zip(line, SHARED, strip.tiles, strict=False):
            _draw(axis, tile)
            known = [score for score in tile.scores if not math.isnan(score)]
            axis.set_title(f"{name}: {min(known):.2f} to {max(known):.2f}" if known else name, fontsize=8)
    drawn = {method.place for strip in strips for tile in strip.tiles for method, _ in tile.masks}
    _key(figure, size, [method for method in methods.values() if method.place in drawn], truth=True)
    save_figure(figure, path)


@dataclass(frozen=True)
class Tile:
    """An image as some methods see it."""

    truth: np.ndarray | None
    masks: list[tuple[Method, np.ndarray]]
    scores: list[float]
    window: tuple[float, float, float]  # middle across and down, side


@dataclass(frozen=True)
class Strip:
    """The cases of a test set at one label fraction."""

    title: str
    tiles: list[Tile]


def _strips(group: Group, methods: Mapping[str, Method], places: Mapping[str, Path]) -> Iterator[Strip]:
    """The cases are those of all rows and the same at every fraction, as on the page."""
    if not (rows := whole(group)):
        return
    cases = cases_of_all(np.stack([values for _, values, _ in rows]))
    truths = _truths(opened(places.get(group.pack)), group.names[cases])
    shown = [
        (float(cell.row["label_fraction"]), method, values, [np.asarray(mask) for mask in masks.of(cases)])
        for cell, values, masks in rows
        if (method := holder_of(cell, methods)) is not None
    ]
    if not shown:
        return
    windows = [
        _window([seen[at] for *_, seen in shown] + ([] if truth is None else [truth]))
        for at, truth in enumerate(truths)
    ]
    for fraction in sorted({labels for labels, *_ in shown}):
        here = [(method, values[cases], seen) for labels, method, values, seen in shown if labels == fraction]
        tiles = [
            Tile(truth, [(m, seen[at]) for m, _, seen in here], [float(v[at]) for _, v, _ in here], windows[at])
            for at, truth in enumerate(truths)
        ]
        yield Strip(f"{visible(group.name)}, {fraction:g} % of the labels", tiles)


def _window(planes: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The middle and the side of the square that shows all masks of an image, whatever the labels."""
    height, width = planes[0].shape
    y, x = np.nonzero(np.any(planes, axis=0))
    if not len(y):
        return width / 2, height / 2, float(max(height, width))
    side = (1 + 2 * ROOM) * max(np.ptp(y), np.ptp(x), LEAST * max(height, width))
    return float(x.min() + x.max()) / 2, float(y.min() + y.max()) / 2, float(side)


def _truths(pack: Pack | None, names: np.ndarray) -> list[np.ndarray | None]:
    if pack is None:
        return [None] * len(names)
    rows = pd.Series(np.arange(pack.count), index=pack.table.name).reindex(names)
    return [None if math.isnan(row) else pack.plane("mask", np.array([int(row)]))[0] for row in rows]


def _draw(axis: Any, tile: Tile) -> None:
    """Truth and outlines, as close as they fit."""
    if tile.truth is not None and tile.truth.any():
        axis.contourf(tile.truth, [0.5, 1.5], colors=[LESION])
    for method, mask in tile.masks:
        if mask.any():
            colour, _, dash = LOOKS[method.style]
            axis.contour(mask, [0.5], colors=colour, linewidths=0.9, linestyles=dash)
    across, down, side = tile.window
    axis.set(xlim=(across - side / 2, across + side / 2), ylim=(down + side / 2, down - side / 2))
    axis.set(xticks=[], yticks=[])
    axis.set_box_aspect(1)
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color(LESION)


def _key(figure: Any, size: tuple[float, float], methods: Sequence[Method], *, truth: bool = False) -> None:
    """The legend, above all panels; lines that are not told apart have one place in it."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=LESION, label="truth")] if truth else []
    thin = [method.name for method in methods if method.style == "more"]
    named = [(method.style, method.name) for method in legend(methods)]
    named += [("more", thin[0] if len(thin) == 1 else f"{len(thin)} others")] if thin else []
    for style, name in named:
        colour, mark, dash = LOOKS[style]
        handles.append(
            Line2D([], [], color=colour, marker="" if truth else mark, ls=dash, ms=4, label=plain_text(name))
        )
    wide = max(1.15, 0.5 + 0.062 * max(len(handle.get_label()) for handle in handles))
    columns = max(1, int(size[0] / wide))
    lines = math.ceil(len(handles) / columns)
    size = size[0], size[1] + 0.2 * (lines - 1)
    figure.set_size_inches(size)
    figure.legend(handles=handles, loc="upper center", ncols=columns, frameon=False, fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 1 - (0.1 + 0.2 * lines) / size[1]))
