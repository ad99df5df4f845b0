"""What each augmentation costs: milliseconds for the two views of a batch of 64 images, at 64 and 128 px.

    python benchmarks/perf/augmentation.py --threads 1

"draw" is the host's part, "views" gathers nothing and does all that follows: the resample and the steps. The row
`none` is the resample alone.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from usbench.bench.timing import in_turns, threads_pinned
from usbench.draws import generator
from usbench.hooks import registry
from usbench.machine import resolve_device
from usbench.train.memory import keep_freed_memory
from usbench.train.pretrain import Part, build_views
from usbench.views import Views

SECTOR = np.array([[-0.8, -1.0, 0.8, 0.9]], np.float32)


def milliseconds(views: Views, size: int, batch: int, device: torch.device, repeats: int) -> tuple[float, float]:
    """To draw, and to make the views: medians of the repeats, after two to warm up."""
    boxes, side = SECTOR.repeat(batch, 0), round(1.25 * size)
    images = torch.randint(0, 256, (batch, 1, side, side), dtype=torch.uint8, device=device)
    sector = torch.ones_like(images) if views.wants_sector else None
    drawn = views.draw(generator(0), boxes, device)

    def draw() -> int:
        views.draw(generator(0), boxes, device)
        return 1

    def make() -> int:
        views(images, sector, drawn)
        return 1

    found = in_turns({"draw": draw, "views": make}, device, repeats, warm_up=2)
    return found["draw"].median, found["views"].median


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="Augmentations; all of them unless given.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    given = parser.parse_args()

    keep_freed_memory()
    device = torch.device(resolve_device("auto"))
    entries = list(registry().entries("augmentation"))
    table = Table(title=f"ms for 2 views of {given.batch} images, {device.type}, {given.threads} threads")
    table.add_column("augmentation")
    for size in given.sizes:
        for part in ("draw", "views"):
            table.add_column(f"{part}, {size} px", justify="right")
    for entry in entries:
        if given.names and entry.name not in given.names:
            continue
        cells: list[float] = []
        for size in given.sizes:
            views = build_views((Part(entry, dict(entry.options)),), size, (2, 0))
            with threads_pinned(given.threads):
                cells += milliseconds(views, size, given.batch, device, given.repeats)
        table.add_row(entry.name, *(f"{cell:.1f}" for cell in cells))
    Console().print(table)


if __name__ == "__main__":
    main()
