"""`usbench data`: make and inspect packs."""

from __future__ import annotations

from pathlib import Path

import click

from usbench.errors import UsbenchError


@click.group()
def data() -> None:
    """Make and inspect packs of images."""


@data.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The pack to write; default: the data home.")
def make(name: str, output: Path | None) -> None:
    """Make a simulated data set, for example phantom or phantom:l12,patients=60,size=256."""
    from rich.console import Console

    from usbench.cli.progress import Display
    from usbench.data.home import find_pack, make_pack, options_of
    from usbench.data.pack import Pack
    from usbench.hooks import registry
    from usbench.spec import Choice

    choice = Choice.parse(name)
    entry = registry().get("dataset", choice.name)
    if not entry.generated:
        raise UsbenchError(f"'{choice.name}' is not simulated: it is imported from its official release.")
    console = Console()
    with Display(console) as display:
        if output is None:
            pack = find_pack(registry(), name, display.making)
        else:
            try:
                size = int(str(options_of(entry, choice).get("size", 128)))
                make_pack(entry, choice, output, None, size, display.making)
            except OSError as error:
                raise UsbenchError(f"{output} cannot be written ({error.strerror}): name another file.") from error
            pack = Pack(output)
    table = pack.table
    console.print(
        f"{pack.path}: {pack.count} images of {table.patient.nunique()} patients, {pack.size} px, "
        f"{int(table.has_mask.sum())} annotated", highlight=False, soft_wrap=True,
    )  # fmt: skip


@data.command()
@click.argument("pack", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The PNG to write.")
@click.option("--columns", type=click.IntRange(2, 20), default=8, show_default=True)
def preview(pack: Path, output: Path, columns: int) -> None:
    """A contact sheet of a PACK with its masks outlined, a row a class."""
    import numpy as np

    from usbench.data.pack import Pack
    from usbench.report.figures import contact_sheet

    opened = Pack(pack)
    tiles, outlines = [], []
    for label in sorted(set(opened.table.label)):
        members = np.flatnonzero(opened.table.label.to_numpy() == label)
        chosen = members[np.unique(np.linspace(0, len(members) - 1, columns).astype(int))]
        name = opened.classes[label] if 0 <= label < len(opened.classes) else "unknown"
        masks = opened.plane("mask", chosen)
        for column in range(columns):
            some = column < len(chosen)
            image = opened.images[chosen[column]] if some else np.full((opened.size,) * 2, 255, np.uint8)
            tiles.append((image, f"{name} {opened.table.name[chosen[column]]}" if some else ""))
            outlines.append(masks[column] if some else None)
    contact_sheet(tiles, columns, output, outlines)
    click.echo(f"{output}: {opened.count} images, {len(tiles) // columns} classes")
