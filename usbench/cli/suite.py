"""`usbench suite`: many runs from one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from usbench.cli import Group, complete
from usbench.cli.prospect import describe

FILE = click.argument("file", type=click.Path(path_type=Path))
OUT = click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="The store.")
FROM = click.option(
    "--times-from", "others", multiple=True, type=click.Path(path_type=Path), help="Other stores to take times of."
)  # fmt: skip
ENGINE = (
    click.option("--engine", default="local", show_default=True, help="Who does the stages: local or dask."),
    click.option("--scheduler", help="An existing dask scheduler, for example tcp://host:8786."),
    click.option("--scheduler-file", type=click.Path(path_type=Path), help="The file that it wrote."),
)
SKIP = click.option("--skip-missing", is_flag=True, help="Leave out runs whose data sets are not imported.")


def engine_options(command: Any) -> Any:
    """The options that say who does the stages."""
    for option in reversed(ENGINE):
        command = option(command)
    return command


@click.group(cls=Group)
def suite() -> None:
    """Many runs from one TOML file: plan them, run them, see how far they are."""


@suite.command()
@FILE
@OUT
@FROM
@click.option("--time", "probe", is_flag=True, help="Measure trainings that nobody knows the time of, 10 s a kind.")
def plan(file: Path, out: Path, others: tuple[Path, ...], probe: bool) -> None:
    """Show the runs, their stages, what they share, and how long the rest will take."""
    from usbench.api.suites import resolve_suite, store_at

    describe(resolve_suite(file, True), store_at(out), others, probe=probe)


@suite.command()
@click.argument("place", metavar="FILE|DIR", type=click.Path(path_type=Path))
@OUT
@FROM
def status(place: Path, out: Path, others: tuple[Path, ...]) -> None:
    """Show how far a suite is; may be asked from another terminal while it runs.

    DIR is a store: everything that was begun there, who works on what, and what failed.
    """
    from usbench.api.suites import resolve_suite, store_at

    if place.is_dir():
        _in_store(place)
        return
    describe(resolve_suite(place, True), store_at(out), others)


def _in_store(folder: Path) -> None:
    from usbench.report.files import one_line
    from usbench.report.status import store_of, work_in

    every = work_in(store_of(folder))
    for work in every:
        for line in work.lines():
            click.echo(one_line(line))
    if not every:
        click.echo(f"nothing is in work in {folder}: all that was begun there has ended well")


@complete.offered()
@suite.command()
@FILE
@OUT
@SKIP
@click.option("--yes", is_flag=True, help="Start however many runs there are.")
@click.option("--workers", type=click.IntRange(1), help="Stages at once.")
@engine_options
@click.option("--auto-batch", is_flag=True, help="Where memory runs out, do the same training in less; keys stay.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first stage that fails.")
@click.option("--track", default="", help="Trackers that look on: tensorboard, wandb, mlflow.")
def run(**options: Any) -> None:
    """Do what is missing of a suite, and write one leaderboard.

    Ctrl-C and SIGTERM save; the same command goes on. Several may work on one store. What fails does not stop the rest.
    """
    import usbench
    from usbench.runs.agenda import StagesFailed

    try:
        result = usbench.run_suite(**options)
    except StagesFailed as failed:
        if failed.result is not None:
            failed.result.print()
            click.echo(f"{failed.computed} stages computed; the table has what could be tested.")
        for line in failed.lines:
            click.echo(line)
        raise
    result.print()
    click.echo(f"{result.computed} stages computed, the rest was there.")
