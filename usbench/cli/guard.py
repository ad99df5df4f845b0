"""`usbench data leaks` and `usbench data splits`: who must not stand on two sides, and who stands where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbench.errors import UsbenchError

if TYPE_CHECKING:
    import numpy as np

COLUMNS, MOST_TILES = 8, 240  # of a contact sheet


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of clusters, each a list of names.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A contact sheet of the clusters (PNG).")
def leaks(names: tuple[str, ...], as_json: bool, output: Path | None) -> None:
    """Near-duplicate images inside packs and between them; NAMES are files or data sets."""
    from rich.console import Console

    from usbench.data.home import any_pack
    from usbench.data.leaks import clusters, conflicts, label_of, names_of
    from usbench.hooks import registry
    from usbench.report.files import one_line

    packs = [any_pack(registry(), name) for name in dict.fromkeys(names)]
    with Console(stderr=True).status(f"comparing {sum(pack.count for pack in packs)} images"):
        for pack in packs:
            pack.check()
        found = clusters(packs)
    called = names_of(packs)
    listed = [[f"{called[pack.path]}/{pack.table.name[row]}" for pack, row in members] for members in found]
    conflicting = set(conflicts(found))
    if output is not None:
        order = [*sorted(conflicting), *(place for place in range(len(found)) if place not in conflicting)]
        if order:
            _sheet([(found[place], listed[place], f"{place + 1}") for place in order], output)
        else:
            click.echo(f"{output} is not drawn: there is nothing to show.", err=True)
    if as_json:
        click.echo(json.dumps(listed, indent=1, ensure_ascii=False))
        return
    for place, (members, texts) in enumerate(zip(found, listed, strict=True)):
        shown = ", ".join(f"{text} ({label_of(m) or 'unknown'})" for text, m in zip(texts, members, strict=True))
        click.echo(one_line(f"{place + 1}: {'labels conflict: ' if place in conflicting else ''}{shown}"))
    click.echo(
        f"{len(found)} clusters of near-duplicates, {sum(map(len, found))} of {sum(p.count for p in packs)} images; "
        f"labels conflict in {len(conflicting)}"
    )


def _sheet(clusters: list[tuple[list, list[str], str]], path: Path) -> None:
    """The clusters one after the other, those with conflicting labels first."""
    from usbench.data.leaks import label_of
    from usbench.report.figures import contact_sheet

    tiles: list[tuple[np.ndarray, str]] = [
        (pack.images[row], f"{number}: {text.rpartition('/')[2]}\n{label_of((pack, row)) or 'unknown'} in {pack.name}")
        for members, texts, number in clusters
        for text, (pack, row) in zip(texts, members, strict=True)
    ]
    try:
        contact_sheet(tiles[:MOST_TILES], COLUMNS, path)
    except OSError as error:
        raise UsbenchError(f"{path} cannot be written ({error.strerror}): name another file.") from None
    if len(tiles) > MOST_TILES:
        click.echo(f"{path}: the first {MOST_TILES} of {len(tiles)} images", err=True)


@click.command()
@click.argument("pack")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The split file (JSON) to write.")
@click.option("--fold", type=click.IntRange(0), default=0, show_default=True, help="Which test fold.")
@click.option("--labels", type=click.FloatRange(0, 100, min_open=True), default=100.0, help="Per cent.  [100]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Moves the label subset.")
def splits(pack: str, output: Path, fold: int, labels: float, seed: int) -> None:
    """Write who is trained on, validated on and tested on as lists of names, for `usbench run --split FILE`.

    Of the images that have masks, or labels where the set has no masks."""
    from usbench.data.frozen import write_split
    from usbench.data.home import any_pack
    from usbench.data.splits import Division, Wanted, as_lists, split
    from usbench.hooks import registry

    opened = any_pack(registry(), pack)
    division = Division(fold, wanted=Wanted.fitting(opened))
    sides = as_lists(opened, split(opened, division, fraction=labels, seed=seed))
    if not sides["train"]:
        raise UsbenchError(f"{pack} has neither masks nor labels: there is nobody to train on in a split of it.")
    write_split(output, sides)
    click.echo(f"{output}: {', '.join(f'{len(names)} {side}' for side, names in sides.items())}")
