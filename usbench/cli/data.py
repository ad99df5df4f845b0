"""`usbench data`: make and inspect packs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbench.cli import Group, complete
from usbench.cli.guard import leaks, splits
from usbench.errors import RunFailed, UsbenchError

if TYPE_CHECKING:
    from rich.console import Console

    from usbench.data.pack import Pack


@click.group(cls=Group)
def data() -> None:
    """Make and inspect packs of images."""


data.add_command(leaks)
data.add_command(splits)


@data.command()
@click.argument("name")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The pack to write; default: the data home.")
def make(name: str, output: Path | None) -> None:
    """Make a simulated data set, for example phantom or phantom:l12,patients=60,size=256."""
    from rich.console import Console

    from usbench.api.progress import Display
    from usbench.data.home import build_dataset, find_pack, options_of, short_name, write
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
            size = int(str(options_of(entry, choice).get("size", 128)))
            dataset = build_dataset(entry, choice)
            pack = write(entry, dataset, short_name(entry, choice), output, None, size, display.making)
    _describe(console, pack)


@complete.offered(name=complete.release)
@data.command("import")
@click.argument("name")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The pack to write; default: in the data home.")
@click.option("--size", type=click.IntRange(32, 1024), default=256, show_default=True, help="Pixels a side.")
@click.option("--skip-broken", is_flag=True, help="Leave out images that cannot be read, and count them.")
@click.option("--force", is_flag=True, help="Replace a folder or clips of your own that have this name.")
def import_(name: str, path: Path, output: Path | None, size: int, skip_broken: bool, force: bool) -> None:
    """Import the official release of the data set NAME, at PATH, as a pack."""
    from rich.console import Console

    from usbench.api.progress import Display
    from usbench.data.home import import_pack
    from usbench.hooks import registry
    from usbench.spec import Choice

    choice = Choice.parse(name)
    entry = registry().get("dataset", choice.name)
    if entry.generated:
        raise UsbenchError(f"'{entry.name}' is simulated: make it with 'usbench data make {name}'.")
    console = Console()
    with Display(console) as display:
        pack = import_pack(entry, choice, output, path, size, display.making, skip_broken=skip_broken, force=force)
    _describe(console, pack)
    _left_out(pack)


@data.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def list_(as_json: bool) -> None:
    """The packs in the data home."""
    from usbench.data.inventory import listed
    from usbench.data.place import data_home, stored_packs

    rows = [listed(path) for path in stored_packs()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        click.echo(f"There is no pack in {data_home()}: 'usbench data import NAME PATH' puts one there.")
    for row in rows:
        click.echo(
            _inert(
                row.get("trouble") or f"{row['name']:<16} {row['images']:>6} images  {row['size']} px  {row['licence']}"
            )
        )


def _inert(line: str) -> str:
    """A line without characters that a terminal would obey: names in packs come from strangers."""
    return "".join(c if c.isprintable() else " " for c in line)


@complete.offered()
@data.command()
@click.argument("pack")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def info(pack: str, as_json: bool) -> None:
    """What is in a PACK, a file or a name: counts, splits, sector, and what was left out."""
    from usbench.data.home import any_pack
    from usbench.data.inventory import described, lines
    from usbench.hooks import registry

    facts = described(any_pack(registry(), pack))
    for line in [json.dumps(facts, indent=2)] if as_json else lines(facts):
        click.echo(line if as_json else _inert(line))


@complete.offered()
@data.command()
@click.argument("packs", nargs=-1, required=True)
def check(packs: tuple[str, ...]) -> None:
    """Read PACKS whole, files or names, and compare each with its digest."""
    from usbench.data.home import any_pack
    from usbench.hooks import registry

    for pack in [any_pack(registry(), text) for text in packs]:
        try:
            pack.check()
        except UsbenchError as error:
            raise RunFailed(str(error)) from error
        click.echo(f"{pack.path}: {pack.count} images, digest {pack.digest} is right")


def _left_out(pack: Pack) -> None:
    count, reasons = pack.skipped
    for reason in sorted(set(reasons.values())):
        names = [name for name, why in reasons.items() if why == reason]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        click.echo(_inert(f"left out {len(names)}: {reason} ({', '.join(names[:3])}{more})"))
    if count > len(reasons):
        click.echo(f"left out {count - len(reasons)} more")


def _describe(console: Console, pack: Pack) -> None:
    table = pack.table
    patients = table.patient[table.patient != ""].nunique()
    console.print(
        f"{pack.path}: {pack.count} images of {patients or 'unknown'} patients, {pack.size} px, "
        f"{int(table.has_mask.sum())} annotated", highlight=False, soft_wrap=True, markup=False,
    )  # fmt: skip


@complete.offered()
@data.command()
@click.argument("packs", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The PNG to write.")
@click.option("--columns", type=click.IntRange(2, 20), default=8, show_default=True)
def preview(packs: tuple[str, ...], output: Path, columns: int) -> None:
    """A contact sheet with masks outlined: a row a class of one pack, or a row a pack of several (files or names)."""
    import numpy as np

    from usbench.data.home import any_pack
    from usbench.hooks import registry
    from usbench.report.figures import contact_sheet

    rows = []
    for pack in [any_pack(registry(), name) for name in packs]:
        label = pack.table.label.to_numpy()
        if len(packs) > 1:
            rows.append((pack, np.argsort(label, kind="stable")))
        else:
            rows += [(pack, np.flatnonzero(label == each)) for each in sorted(set(label))]
    tiles, outlines = [], []
    for pack, members in rows:
        chosen = members[np.unique(np.linspace(0, len(members) - 1, columns).astype(int))]
        masks = pack.plane("mask", chosen)
        for place, index in enumerate(chosen):
            known = int(pack.table.label[index])
            of = pack.classes[known] if 0 <= known < len(pack.classes) else "unknown"
            tiles.append((pack.images[index], f"{of} {pack.table.name[index]}"))
            outlines.append(masks[place])
        missing = columns - len(chosen)
        tiles += [(np.full((pack.size,) * 2, 255, np.uint8), "")] * missing
        outlines += [None] * missing
    try:
        contact_sheet(tiles, columns, output, outlines)
    except OSError as error:
        raise UsbenchError(f"{output} cannot be written ({error.strerror}): name another file.") from None
    click.echo(f"{output}: {len(rows)} rows of {columns}")
