"""`usbench preview`: what an augmentation does to real images of a pack."""

from __future__ import annotations

from pathlib import Path

import click

from usbench.errors import UsbenchError


@click.command()
@click.option("--aug", required=True, help="Augmentation; a+b composes.")
@click.option("--data", "data_name", default="phantom", show_default=True, help="Data set or pack.")
@click.option("--size", type=click.IntRange(32, 1024), default=128, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The PNG to write.")
def preview(aug: str, data_name: str, size: int, seed: int, output: Path) -> None:
    """A contact sheet: each row an image, then seven views of it."""
    from rich.console import Console

    from usbench.cli.progress import Display
    from usbench.data.home import find_pack, options_of
    from usbench.hooks import registry
    from usbench.spec import Choice

    choices = [Choice.parse(text) for text in aug.split("+")]
    entries = [registry().get("augmentation", choice.name) for choice in choices]
    with Display(Console()) as display:
        pack = find_pack(registry(), data_name, display.making)

    import numpy as np
    import torch

    from usbench.data.feed import Feed
    from usbench.draws import generator
    from usbench.report.figures import contact_sheet
    from usbench.train.pretrain import Part, build_views
    from usbench.views import DEVIATION, MEAN

    parts = tuple(Part(entry, options_of(entry, choice)) for entry, choice in zip(entries, choices, strict=True))
    views = build_views(parts, size, (7, 0))
    rows = np.unique(np.linspace(0, pack.count - 1, 5).astype(np.int64))
    feed = Feed([(pack, rows)], size, torch.device("cpu"), sectors=views.wants_sector)
    drawn = views.draw(generator(seed, "preview"), feed.boxes, feed.device)
    made, _, _ = views(feed.images, feed.sector, drawn)
    tiles = []
    for row, index in enumerate(rows):
        tiles.append((pack.images[index], str(pack.table.name[index])))
        for view in made:
            grey = (view[row, 0] * DEVIATION + MEAN).clamp(0, 1) * 255
            tiles.append((grey.round().to(torch.uint8).numpy(), ""))
    try:
        contact_sheet(tiles, 8, output)
    except OSError as error:
        raise UsbenchError(f"{output} cannot be written ({error.strerror}): name another file.") from None
    click.echo(f"{output}: {len(rows)} images under {aug}")
