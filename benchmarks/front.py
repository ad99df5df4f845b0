"""The picture on the README's front page, drawn from a finished run of the quick preset on phantoms.

usbench run --config benchmarks/quick.toml --out runs
python benchmarks/front.py runs/rcl-freq-… -o docs/front.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import usbench
from usbench.data.feed import Feed
from usbench.data.home import find_pack
from usbench.data.pack import Pack
from usbench.draws import generator
from usbench.hooks import registry
from usbench.report.cells import Cell
from usbench.report.differences import pooled
from usbench.report.figures import ROW, TRUTH, pyplot, save_figure
from usbench.report.masks import Masks
from usbench.train.pretrain import Part, build_views
from usbench.views import DEVIATION, MEAN

FRACTIONS = (20.0, 100.0)
SCANNERS = ("l7", "l12", "c5")
METHODS = {
    "none": ("#6b7280", "without"),
    "none-long": ("#b08968", "longer training"),
    "rcl": ("#d6246e", "pretrained"),
}


def views_of(pack: Pack, row: int, aug: str, size: int) -> list[np.ndarray]:
    """Two views of an image, as a pretraining sees them."""
    entry = registry().get("augmentation", aug)
    views = build_views((Part(entry, dict(entry.options)),), size, (2, 0))
    feed = Feed([(pack, np.array([row]))], size, torch.device("cpu"), sectors=views.wants_sector)
    drawn = views.draw(generator(3, "front"), feed.boxes, feed.device)
    planes = [None if plane is None else feed.take(plane, np.array([0])) for plane in (feed.images, feed.sector)]
    made, _, _ = views(*planes, drawn)
    return [(view[0, 0] * DEVIATION + MEAN).clamp(0, 1).numpy() for view in made]


def show(axis: Any, image: np.ndarray, title: str, **outlines: np.ndarray) -> None:
    """An image with masks outlined."""
    axis.imshow(image, cmap="gray", vmin=0, vmax=1 if image.dtype.kind == "f" else 255)
    for colour, mask in outlines.items():
        axis.contour(mask, [0.5], colors="#" + colour, linewidths=1.3)
    axis.set_title(title, fontsize=8.5, pad=3)
    axis.set_xticks([]), axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def predicted(found: Any, pack: Pack, fractions: Sequence[float]) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """The lesion image of median Dice with the most labels, its mask, and (mask, Dice) predicted at each fraction."""
    cells = [
        next(c for c in found.cells if (c.row["loss"], c.row["test_data"], c.row["label_fraction"]) == wanted)
        for wanted in (("rcl", pack.name, fraction) for fraction in fractions)
    ]
    tables = [cell.results[0].scores() for cell in cells]
    lesions = np.flatnonzero(tables[-1].lesion.to_numpy())
    at = lesions[np.argsort(tables[-1].dice.to_numpy()[lesions], kind="stable")][len(lesions) // 2]
    row = int(np.flatnonzero(pack.table.name == tables[-1].name[at])[0])
    masks = [Masks(cell.results[0].folder).of([int(at)])[0] for cell in cells]
    made = list(zip(masks, (float(table.dice[at]) for table in tables), strict=True))
    return pack.images[row], pack.plane("mask", np.array([row]))[0], made


def chart(axis: Any, every: list[Cell], *, ticks: bool) -> None:
    """Dice against the labels, with intervals, over the images of all test sets."""
    fractions = sorted({float(cell.row["label_fraction"]) for cell in every})
    for place, (loss, (colour, name)) in enumerate(METHODS.items()):
        rows = [
            pooled([c for c in every if c.row["loss"] == loss and c.row["label_fraction"] == fraction])
            for fraction in fractions
        ]
        x = np.arange(len(rows)) + 0.14 * (place - 1)
        ends = [[r.mean - r.low for r in rows], [r.high - r.mean for r in rows]]
        axis.errorbar(x, [r.mean for r in rows], ends, color=colour, fmt="o-", ms=4, linewidth=1.3, label=name)
    axis.set_xticks(range(len(fractions)), [f"{f:g} %" for f in fractions])
    axis.set_ylim(0, 1)
    axis.grid(axis="y", alpha=0.25)
    if not ticks:
        axis.set_yticklabels([])


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    found = usbench.load(given.run)
    packs = [find_pack(registry(), f"phantom:{name}", lambda *_: None) for name in SCANNERS]
    plt = pyplot()
    figure = plt.figure(figsize=(10.4, 3.25))
    grid = figure.add_gridspec(
        2, 6, width_ratios=(1, 1, 0.16, 1, 1, 1), left=0.01, right=0.65, top=0.8, bottom=0.03, wspace=0.06, hspace=0.2
    )  # fmt: skip
    home = packs[0]
    some = np.flatnonzero(home.table.label > 0)[[4, 20]]
    for line, row in enumerate(some):
        for column, view in enumerate(views_of(home, int(row), "freq", 96)):
            show(figure.add_subplot(grid[line, column]), view, f"view {column + 1}" if line == 0 else "")
    for column, pack in enumerate(packs):
        labels = "same scanner" if column == 0 else "unseen scanner"
        image, truth, made = predicted(found, pack, FRACTIONS)
        for line, (fraction, (mask, dice)) in enumerate(zip(FRACTIONS, made, strict=True)):
            title = f"{fraction:g} %, Dice {dice:.2f}"
            outlines = {TRUTH[1:]: truth, ROW[1:]: mask}
            axis = figure.add_subplot(grid[line, 3 + column])
            show(axis, image, title if line else f"{labels}\n{title}", **outlines)
    charts = figure.add_gridspec(1, 2, left=0.7, right=0.99, top=0.8, bottom=0.13, wspace=0.12)
    for place, (shift, name) in enumerate((("in", "same scanner"), ("out", "unseen scanners"))):
        axis = figure.add_subplot(charts[place])
        chart(axis, [cell for cell in found.cells if cell.row["shift"] == shift], ticks=place == 0)
        axis.set_title(name, fontsize=8.5, pad=3)
    axis.legend(loc="upper left", fontsize=7.5, frameon=False)
    for x, text in (
        (0.01, "1  pretrain without labels"), (0.245, "2  fine-tune a U-Net with few, test everywhere"),
        (0.70, "3  Dice against labels: does it help?"),
    ):  # fmt: skip
        figure.text(x, 0.94, text, fontsize=10.5, weight="bold")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, given.output)


if __name__ == "__main__":
    main()
