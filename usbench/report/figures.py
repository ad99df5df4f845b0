"""Pictures of a run: truth and prediction outlined, loss curves, Dice against label fraction."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.report.cells import Cell
from usbench.report.differences import pooled
from usbench.report.families import Family
from usbench.report.files import one_line
from usbench.report.masks import Masks
from usbench.report.robustness import Line, shared_severities
from usbench.report.table import title_of
from usbench.runs.store import Store
from usbench.whole import written

TRUTH, BASE, ROW = "#ffd400", "#00c8ff", "#ff4fa3"
PALETTE = {"plain": "#6b7280", "long": "#b08968", "": "#d6246e"}


def pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 130})
    return plt


def form_of(path: Path) -> str:
    """The kind of picture that a file's ending asks for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    form = path.suffix.removeprefix(".").lower() or "png"
    if form not in (known := FigureCanvasAgg.get_supported_filetypes()):
        raise UsbenchError(f"a picture cannot be written as '{form}': use {', '.join(sorted(known))}.")
    return form


def save_figure(figure: Any, path: Path) -> None:
    """Write a picture whole or not at all, and let go of it."""
    try:
        form = form_of(path)
        with written(path) as temporary:
            figure.savefig(temporary, format=form)
    finally:
        pyplot().close(figure)


def overlays(rows: Sequence[tuple[Cell, Cell]], packs: dict[str, Pack], path: Path) -> None:
    """Best, median and worst lesion image of each test set, at one fraction and the first seed: a row beside its
    baseline."""
    plt = pyplot()
    figure, axes = plt.subplots(len(rows), 3, figsize=(7.2, 2.65 * len(rows)), squeeze=False)
    for line, (cell, other) in enumerate(rows):
        pack, metric = packs[cell.row["test_data"]], cell.primary
        scores = cell.results[0].scores()
        lesions = np.flatnonzero(scores.lesion.to_numpy())
        ordered = lesions[np.argsort(scores[metric].to_numpy()[lesions], kind="stable")]
        mine, theirs = (Masks(one.results[0].folder).all() for one in (cell, other))
        other_scores = other.results[0].scores()
        place = pd.Series(np.arange(pack.count), index=pack.table.name)
        for column, (which, at) in enumerate((("best", -1), ("median", len(ordered) // 2), ("worst", 0))):
            chosen = int(ordered[at])
            index = int(place[scores.name[chosen]])
            axis = axes[line, column]
            axis.imshow(pack.images[index], cmap="gray", vmin=0, vmax=255)
            truth = pack.plane("mask", np.array([index]))[0]
            for mask, colour in ((truth, TRUTH), (theirs[chosen], BASE), (mine[chosen], ROW)):
                if mask.any():
                    axis.contour(mask, [0.5], colors=colour, linewidths=1.2)
            axis.set_title(
                f"{which}: {cell.row['loss']} {scores[metric][chosen]:.2f}, "
                f"{other.row['loss']} {other_scores[metric][chosen]:.2f}", fontsize=8,
            )  # fmt: skip
            axis.set(xticks=[], yticks=[])
            if column == 0:
                axis.set_ylabel(f"{cell.row['test_data']} ({cell.row['shift']})")
    handles = [plt.Line2D([], [], color=c) for c in (TRUTH, BASE, ROW)]
    names = ["truth", rows[0][1].row["loss"], rows[0][0].row["loss"]]
    figure.legend(handles, names, loc="lower center", ncol=3, frameon=False)
    figure.suptitle(f"{rows[0][0].row['label_fraction']:g} % of the labels", fontsize=10)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    save_figure(figure, path)


def curves(stages: Sequence[tuple[str, str]], store: Store, path: Path) -> None:
    """Loss over steps of every training: pretraining on the left, fine-tuning on the right; seeds share a colour."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, kind in zip(axes, ("pretrain", "finetune"), strict=True):
        trained = [(stage_id, title) for stage_id, title in stages if stage_id.startswith(kind)]
        chosen = [stage for stage in trained if (store.folder(stage[0]) / "curve.csv").is_file()]  # not of a mere fit
        lines: dict[str, Any] = {}  # by what they are a seed of
        for stage_id, title in chosen:
            curve = pd.read_csv(store.folder(stage_id) / "curve.csv")
            parts = [c for c in curve.columns if c not in ("step", "lr", "loss")] if kind == "pretrain" else []
            name = title.split(" ", 1)[1].rpartition(", seed ")[0]
            for part in ("loss", *parts):
                label = name if part == "loss" else f"{name}: {part}"
                style = {"linewidth": 1.2} if part == "loss" else {"linewidth": 0.9, "linestyle": "--"}
                if label in lines:
                    axis.plot(curve.step, curve[part], color=lines[label].get_color(), **style)
                else:
                    (lines[label],) = axis.plot(curve.step, curve[part], label=plain_text(label), **style)
        axis.set(xlabel="step", ylabel="loss", title="pretraining" if kind == "pretrain" else "fine-tuning")
        if lines:
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18), "ncol": 1 if len(lines) < 4 else 2}
            axis.legend(frameon=False, fontsize=7, **below)
    save_figure(figure, path)


def mean_ranks(families: Sequence[Family], path: Path) -> None:
    """Mean ranks on a line, best on the left; a bar beside the names joins methods of which paired differences tell no
    two apart."""
    plt = pyplot()
    heights = [1.3 + 0.24 * len(family.ranks) for family in families]
    shape = {"squeeze": False, "gridspec_kw": {"height_ratios": heights}}
    figure, axes = plt.subplots(len(families), 1, figsize=(8, sum(heights)), **shape)
    for axis, family in zip(axes[:, 0], families, strict=True):
        ranks, bars = family.ranks, family.bars
        end = len(ranks) + 0.1
        step = len(ranks) * 0.025
        for line, (method, rank) in enumerate(ranks.items()):
            axis.plot([rank, rank, end], [0, -line - 1, -line - 1], color=PALETTE["plain"], linewidth=0.8)
            axis.plot(rank, 0, "o", color=PALETTE[""], markersize=4)
            text = f"  {rank:.2f}  {plain_text(str(method))}"
            axis.annotate(text, (end + step * len(bars), -line - 1), va="center")
        for place, (first, last) in enumerate(bars, 1):
            axis.plot([end + step * place] * 2, [-first - 0.7, -last - 1.3], color="black", linewidth=2.5)
        said = (family.title, family.over, family.verdict)
        axis.set_title("\n".join(textwrap.fill(plain_text(part), 120) for part in said), fontsize=8)
        axis.set(xlabel="mean rank (1 is best)", yticks=[], xlim=(0.8, len(ranks) * 1.7 + 0.5))
        axis.set_ylim(bottom=-len(ranks) - 0.9)
        axis.set_xticks(range(1, len(ranks) + 1))
        axis.spines["left"].set_visible(False)
    figure.tight_layout()
    save_figure(figure, path)


def plain_text(text: str) -> str:
    """A name that the drawing does not take for a formula."""
    return one_line(text).replace("$", r"\$")


def hide(axes: Any, count: int) -> None:
    """Leave out the panels behind the first `count`; those above them have the numbers of the axis then."""
    for place in range(count, axes.size):
        axes.flat[place].set_visible(False)
        if place >= axes.shape[1]:
            axes.flat[place - axes.shape[1]].tick_params(labelbottom=True)


def robustness(lines: Sequence[Line], path: Path) -> None:
    """The mean score with its interval over severity, 0 for clean images: a panel a corruption, a line a loss."""
    plt = pyplot()
    shared = shared_severities(lines)
    columns = min(3, max(1, len(shared)))
    rows = max(1, -(-len(shared) // columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 2.3 * rows + 0.6), sharex=True, sharey=True, squeeze=False
    )
    hide(axes, len(shared))
    alone = sum(not line.clean[0].row["baseline"] for line in lines) == 1
    for axis, (what, severities) in zip(axes.flat, shared.items(), strict=False):
        for line in lines:
            if what not in line.corrupted:
                continue
            points = [pooled(line.clean), *(pooled(line.corrupted[what][severity]) for severity in severities)]
            mean, low, high = (np.array([getattr(p, part) for p in points]) for part in ("mean", "low", "high"))
            baseline = line.clean[0].row["baseline"]
            colour = PALETTE.get(baseline) if baseline or alone else None
            axis.plot([0, *severities], mean, marker="o", markersize=3, color=colour, label=line.name)
            axis.fill_between([0, *severities], low, high, color=axis.lines[-1].get_color(), alpha=0.15, linewidth=0)
        axis.set_title(what, fontsize=9)
        axis.set_xticks(range(6))
    figure.supxlabel("severity, 0 for clean images", fontsize=9)
    figure.supylabel(f"mean {title_of(lines[0].clean[0].primary)}, 95 % interval", fontsize=9)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="upper center", ncol=4, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.3 / (2.3 * rows + 0.6)))
    save_figure(figure, path)


def contact_sheet(tiles: Sequence[tuple[np.ndarray, str]], columns: int, path: Path, outlines: Any = None) -> None:
    """Grey tiles with captions in a grid; `outlines` holds a mask or None for each."""
    plt = pyplot()
    rows = -(-len(tiles) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.5 * columns, 1.68 * rows), squeeze=False)
    for place, axis in enumerate(axes.flat):
        axis.axis("off")
        if place >= len(tiles):
            continue
        image, caption = tiles[place]
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        axis.set_title(caption, fontsize=6, pad=2)
        if outlines is not None and outlines[place] is not None and outlines[place].any():
            axis.contour(outlines[place], [0.5], colors=TRUTH, linewidths=0.8)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.15 / rows, 0.04, 0.12)
    save_figure(figure, path)
