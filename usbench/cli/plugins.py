"""`usbench plugins`: what is installed. Imports no torch."""

from __future__ import annotations

import json

import click

from usbench.cli import Group


@click.group(cls=Group)
def plugins() -> None:
    """List and describe what is installed."""


@plugins.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(as_json: bool) -> None:
    """Every registered name in one line."""
    from usbench.hooks import KINDS, registry

    known = registry()
    if as_json:
        rows = [
            {
                "name": e.name, "kind": e.kind, "package": e.plugin, "summary": e.summary, "reference": e.reference,
                "needs": list(e.needs), "reconstruction": e.reconstruction,
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
            click.echo(f"  {entry.name:<{width}}  {entry.summary}{needs}{mark}")
    for name, reason in known.broken.items():
        click.echo(f"broken: plugin '{name}' could not be loaded ({reason})")


@plugins.command()
@click.argument("name")
def show(name: str) -> None:
    """All that is known about one NAME."""
    from usbench.errors import unknown
    from usbench.hooks import registry

    known = registry()
    found = [entry for entry in known.entries() if entry.name == name]
    if not found:
        raise unknown("plugin", name, {entry.name for entry in known.entries()})
    for entry in found:
        click.echo(f"{entry.kind} {entry.name}: {entry.summary}")
        click.echo(f"  paper      {entry.reference or '–'}")
        click.echo(f"  plugin     {entry.plugin} ({entry.where})")
        click.echo(f"  needs      {', '.join(entry.needs) or 'nothing'}")
        if entry.gives:
            click.echo(f"  gives      {', '.join(entry.gives)}")
        click.echo(f"  formula    {'our reconstruction' if entry.reconstruction else 'as published'}")
        for place, (key, value) in enumerate(entry.options.items()):
            shown = "/".join(map(str, value)) if isinstance(value, tuple) else value
            click.echo(f"  {'options' if place == 0 else '':<10} {key}={shown}")
