"""`usbench preview`: what an augmentation, or a corruption for tests, does to real images of a pack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbench.cli import complete
from usbench.errors import UsbenchError

if TYPE_CHECKING:
    import numpy as np


@complete.offered()
@click.command()
@click.option("--aug", help="Augmentation; a+b composes.")
@click.option("--shifts", help="Corruptions of a test image instead: 'all', or for example speckle,shadow.")
@click.option("--data", "data_name", default="phantom", show_default=True, help="Data set or pack.")
@click.option("--size", type=click.IntRange(32, 1024), default=128, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The PNG to write.")
def preview(aug: str | None, shifts: str | None, data_name: str, size: int, seed: int, output: Path) -> None:
    """A contact sheet: each row an image, then seven views of it.

    With --shifts each row is a corruption of one image (--seed says which): as it is, then at severities 1 to 5.
    """
    from rich.console import Console

    from usbench.api.progress import Display
    from usbench.data.home import find_pack, options_of
    from usbench.hooks import registry
    from usbench.spec import Choice

    if (aug is None) == (shifts is None):
        raise UsbenchError("preview shows --aug or --shifts: give one of them.")
    if shifts is not None:
        _preview_shifts(shifts, data_name, seed, output)
        return
    assert aug is not None
    choices = [Choice.parse(text) for text in aug.split("+")]
    entries = [registry().get("augmentation", choice.name) for choice in choices]
    with Display(Console()) as display:
        pack = find_pack(registry(), data_name, display.making)

    import numpy as np
    import torch

    from usbench.data.feed import Feed
    from usbench.draws import generator
    from usbench.source import told
    from usbench.train.pretrain import Part, build_views
    from usbench.views import DEVIATION, MEAN

    parts = tuple(Part(entry, options_of(entry, choice)) for entry, choice in zip(entries, choices, strict=True))
    blamed = f"augmentation '{aug}'", [entry.where for entry in entries]
    with told(*blamed):
        views = build_views(parts, size, (7, 0))
    rows = np.unique(np.linspace(0, pack.count - 1, 5).astype(np.int64))
    feed = Feed([(pack, rows)], size, torch.device("cpu"), sectors=views.wants_sector)
    planes = [None if plane is None else feed.take(plane, np.arange(len(rows))) for plane in (feed.images, feed.sector)]
    with told(*blamed):
        made, _, _ = views(*planes, views.draw(generator(seed, "preview"), feed.boxes, feed.device))
    tiles = []
    for row, index in enumerate(rows):
        tiles.append((pack.images[index], str(pack.table.name[index])))
        for view in made:
            grey = (view[row, 0] * DEVIATION + MEAN).clamp(0, 1) * 255
            tiles.append((grey.round().to(torch.uint8).numpy(), ""))
    _write(tiles, 8, output)
    click.echo(f"{output}: {len(rows)} images under {aug}")


def _preview_shifts(names: str, data_name: str, seed: int, output: Path) -> None:
    from rich.console import Console

    from usbench.api.progress import Display
    from usbench.data.home import find_pack
    from usbench.draws import generator
    from usbench.evaluate.shifts import SEVERITIES, corrupt, named
    from usbench.hooks import registry

    chosen = named([name.strip() for name in names.split(",") if name.strip()])
    if not chosen:
        raise UsbenchError("--shifts names no corruption: write 'all', or for example speckle,shadow.")
    with Display(Console()) as display:
        pack = find_pack(registry(), data_name, display.making)
    row = generator(seed, "preview").integers(pack.count, size=1)
    image, sector, name = pack.images[row], pack.plane("sector", row), str(pack.table.name[row[0]])
    tiles = []
    for what in chosen:
        tiles.append((image[0], name))
        for severity in SEVERITIES:
            made = corrupt(image, sector, [name], what, severity, seed=pack.digest)
            tiles.append((made[0], f"{what}:{severity}"))
    _write(tiles, 1 + len(SEVERITIES), output)
    click.echo(f"{output}: {name} of {pack.name} under {', '.join(chosen)}")


def _write(tiles: list[tuple[np.ndarray, str]], columns: int, output: Path) -> None:
    from usbench.report.figures import contact_sheet

    try:
        contact_sheet(tiles, columns, output)
    except OSError as error:
        raise UsbenchError(f"{output} cannot be written ({error.strerror}): name another file.") from None
