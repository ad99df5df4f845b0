"""`usbench store`: check a store, clear away what nothing needs, and make one of a published result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbench.cli import Group
from usbench.errors import RunFailed

if TYPE_CHECKING:
    from usbench.report.upkeep import Needs, Upkeep

PLACE = click.argument("place", metavar="DIR", type=click.Path(path_type=Path))


@click.group(cls=Group)
def store() -> None:
    """Check a store, clear away what nothing needs, or make one of a published result."""


def _upkeep(place: Path) -> Upkeep:
    from usbench.report.upkeep import Upkeep
    from usbench.runs.store import Store

    return Upkeep(Store(place).check_schema())


def _say(text: str) -> None:
    from usbench.report.files import one_line

    click.echo(one_line(text))


def _say_unknown(needs: Needs) -> None:
    if needs.unknown:
        _say(f"what is needed is not known, so no finished stage is called needless: {needs.unknown}")


@store.command()
@PLACE
def check(place: Path) -> None:
    """Whether every stage is whole, who works on what, what nothing needs, and how large all of it is."""
    from rich.console import Console

    from usbench.report.upkeep import State, mib

    state = State()
    with Console(stderr=True).status("reading") as status:
        for found in _upkeep(place).check():
            if isinstance(found, State):
                state = found
            else:
                status.update(f"checking {found}")
    for kind, (count, size) in state.kinds.items():
        _say(f"{kind}: {count} stages, {mib(size)}")
    for what, lines in (
        ("in work", state.working), ("begun, and nobody works on it", state.stopped),
        ("nothing needs it", state.orphans), ("failed", state.failed), ("wrong", state.wrong),
    ):  # fmt: skip
        for line in lines:
            _say(f"{what}: {line}")
    _say_unknown(state.needs)
    if state.wrong:
        raise RunFailed(f"{place} does not hold: {len(state.wrong)} things are wrong.")
    click.echo("every finished stage is whole")


@store.command()
@PLACE
@click.option("--yes", is_flag=True, help="Remove it; else it is only listed.")
@click.option("--abandoned", is_flag=True, help="Also what only runs need that were begun and never ended well.")
def gc(place: Path, yes: bool, abandoned: bool) -> None:
    """List what nothing needs: stages of no run or suite, those given up, leftovers. With --yes remove it."""
    from usbench.report.upkeep import mib

    upkeep = _upkeep(place)
    found, needs = upkeep.rubbish(abandoned=abandoned)
    size = 0
    for rubbish in found:
        if yes and not upkeep.clear(rubbish, abandoned=abandoned):
            _say(f"kept, as somebody works on it or needs it now: {rubbish.path}")
            continue
        size += rubbish.size
        _say(f"{'removed' if yes else 'would go'}: {rubbish.what}: {rubbish.path} ({mib(rubbish.size)})")
    _say_unknown(needs)
    click.echo(f"{mib(size)} {'removed' if yes else 'would go; --yes removes it' if found else 'would go'}")


@store.command()
@click.argument("source", metavar="PUBLISHED", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The store, a new folder.")
def unpack(source: Path, output: Path) -> None:
    """Make a store of a published result, to go on with it: a folder with a scores.zip, or that file.

    It has no weights: what a new row needs those of is trained again.
    """
    from usbench.share.publish import unpack_into

    made = unpack_into(source, output)
    click.echo(f"{len(list((made.root / 'stages').iterdir()))} stages, without weights, are in {output}")
