"""`usbench plugins`: what is installed, whether it keeps its promises, and a package to begin one's own with."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from usbench.cli import Group, complete
from usbench.hookspecs import KINDS

if TYPE_CHECKING:
    from usbench.hooks import Entry

KIND = click.Choice(KINDS)


@click.group(cls=Group)
def plugins() -> None:
    """List, describe, check and begin plugins."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(as_json: bool) -> None:
    """Every registered name in one line."""
    from usbench.hooks import registry

    known = registry()
    if as_json:
        rows = [
            {
                "name": e.name, "kind": e.kind, "package": e.plugin, "summary": e.summary, "reference": e.reference,
                "needs": list(e.needs), "uses": list(e.uses), "reconstruction": e.reconstruction,
            }
            for e in known.entries()
        ]  # fmt: skip
        click.echo(json.dumps(rows, indent=1))
        return
    width = max((len(e.name) for e in known.entries()), default=0)
    for kind in KINDS:
        click.echo(f"{kind}:")
        for entry in known.entries(kind):
            needs = f" [needs {', '.join(entry.needs)}]" if entry.needs else ""
            mark = " [reconstruction]" if entry.reconstruction else ""
            _line(f"  {entry.name:<{width}}  ", f"{entry.summary}{needs}{mark}", width + 4)
    for name, reason in known.broken.items():
        click.echo(f"broken: plugin '{name}' could not be loaded ({reason})")


@complete.offered(name=complete.any_plugin)
@plugins.command()
@click.argument("name")
@click.option("--kind", type=KIND, help="Where one name stands in several kinds.")
def show(name: str, kind: str | None) -> None:
    """All that is known about one NAME."""
    from usbench.explained import explained
    from usbench.report.citation import bibtex

    for entry in _named(name, kind):
        click.echo(f"{entry.kind} {entry.name}: {entry.summary}")
        click.echo(f"  paper      {entry.reference or '–'}")
        click.echo(f"  plugin     {entry.plugin} ({entry.where})")
        for what in ("source", "licence") if entry.kind == "dataset" else ():
            if said := getattr(entry.resolve(), what, ""):
                click.echo(f"  {what:<10} {said}")
        click.echo(f"  needs      {', '.join(entry.needs) or 'nothing'}")
        if entry.uses:
            click.echo(f"  uses       {', '.join(entry.uses)}, where there is one")
        if entry.gives:
            click.echo(f"  gives      {', '.join(entry.gives)}")
        click.echo(f"  formula    {'our reconstruction' if entry.reconstruction else 'as published'}")
        means = explained(entry)
        for place, (key, value) in enumerate(entry.options.items()):
            shown = "/".join(map(str, value)) if isinstance(value, tuple) else value
            _line(
                f"  {'options' if place == 0 else '':<10} {key}={shown}", f"  {means[key]}" if key in means else "", 15
            )
        if entry.reference:
            click.echo(bibtex(entry.reference))


@complete.offered(name=complete.any_plugin)
@plugins.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Everything that is registered.")
@click.option("--kind", type=KIND, help="Of one kind only.")
def check(name: str | None, every: bool, kind: str | None) -> None:
    """Whether NAME keeps what every plugin must; exit code 1 where a promise is broken."""
    from usbench.errors import UsbenchError
    from usbench.hooks import registry

    if (name is None) != every:
        raise UsbenchError("name one plugin, or all with --all: 'usbench plugins list' shows the names.")
    entries = list(registry().entries(kind)) if name is None else _named(name, kind)
    broken = sum(_judge(entry, brief=every) for entry in entries)
    unloaded = registry().broken if every else {}
    for plugin, reason in unloaded.items():
        click.echo(f"broken: plugin '{plugin}' could not be loaded ({reason})")
    if broken or unloaded:
        click.get_current_context().exit(1)


@plugins.command()
@click.argument("name")
@click.option("--kind", type=KIND, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path(), help="Where the folder NAME goes.")
def new(name: str, kind: str, output: Path) -> None:
    """Write a package with one working plugin NAME, its test and a README, to begin with."""
    from usbench.scaffold import write_package

    folder = write_package(name, kind, output)
    typed = shlex.quote(os.path.join(os.curdir, folder))  # noqa: PTH118 - pip looks a bare name up in its index
    click.echo(f"{folder}: {kind} {name}, ready to work; next: pip install {typed} && usbench plugins check {name}")


def _line(head: str, rest: str, indent: int) -> None:
    """A line; on a terminal it is broken between words, and what follows is indented."""
    if not sys.stdout.isatty():
        click.echo(f"{head}{rest}".rstrip())
        return
    wide = shutil.get_terminal_size().columns
    click.echo(textwrap.fill(f"{head}{rest}", max(wide, indent + 20), subsequent_indent=" " * indent).rstrip())


def _named(name: str, kind: str | None) -> list[Entry]:
    """The entries of a name, one a kind."""
    from usbench.hooks import registry

    found = [entry for entry in registry().entries(kind) if entry.name == name]
    if not found:
        raise registry().unknown(kind, name)
    return found


def _judge(entry: Entry, *, brief: bool) -> int:
    """Print the verdicts on an entry; how many promises are broken."""
    from usbench import conformance

    verdicts = conformance.check(entry)
    broken = sum(not verdict.kept for verdict in verdicts)
    seconds = sum(verdict.seconds for verdict in verdicts)
    told = f"{broken} of {len(verdicts)} promises broken" if broken else f"{len(verdicts)} promises kept"
    click.echo(f"{entry.kind} {entry.name}: {told} ({seconds:.1f} s)")
    for verdict in verdicts:
        if not verdict.kept:
            click.echo(f"  BROKEN  {verdict.promise}: {verdict.note}")
        elif not brief:
            click.echo(f"  kept    {verdict.promise}{f' ({verdict.note})' if verdict.note else ''}")
    return broken
