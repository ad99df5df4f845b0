"""`usbench suite`: many runs from one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from usbench.cli import Group, complete
from usbench.cli.prospect import describe, title_of
from usbench.errors import Interrupted, UsbenchError, about

if TYPE_CHECKING:
    from usbench.runs.agenda import StagesFailed
    from usbench.runs.store import Store
    from usbench.runs.suite import SuitePlan

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


def _resolved(file: Path, skip_missing: bool, **always: Any) -> SuitePlan:
    from rich.console import Console

    from usbench.api.progress import Display
    from usbench.hooks import registry
    from usbench.runs.suite import plan_suite
    from usbench.suites import read_suite

    with about("in the suite", file), Display(Console(stderr=True)) as display:
        read = read_suite(file, **always)
        return plan_suite(registry(), read, display.making, skip_missing=skip_missing)


def _store(out: Path) -> Store:
    from usbench.runs.store import Store

    store = Store(out)
    store.check_place()
    return store


@suite.command()
@FILE
@OUT
@FROM
@click.option("--time", "probe", is_flag=True, help="Measure trainings that nobody knows the time of, 10 s a kind.")
def plan(file: Path, out: Path, others: tuple[Path, ...], probe: bool) -> None:
    """Show the runs, their stages, what they share, and how long the rest will take."""
    describe(_resolved(file, True), _store(out), others, probe=probe)


@suite.command()
@click.argument("place", metavar="FILE|DIR", type=click.Path(path_type=Path))
@OUT
@FROM
def status(place: Path, out: Path, others: tuple[Path, ...]) -> None:
    """Show how far a suite is; may be asked from another terminal while it runs.

    DIR is a store: everything that was begun there, who works on what, and what failed.
    """
    if place.is_dir():
        _in_store(place)
        return
    describe(_resolved(place, True), _store(out), others)


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
def run(
    file: Path, out: Path, skip_missing: bool, yes: bool, workers: int | None, fail_fast: bool, track: str,
    auto_batch: bool, engine: str, scheduler: str | None, scheduler_file: Path | None,
) -> None:  # fmt: skip
    """Do what is missing of a suite, and write one leaderboard.

    Ctrl-C and SIGTERM save; the same command goes on. Several may work on one store. What fails does not stop the rest.
    """
    from rich.console import Console

    from usbench.api.engine import cluster_of
    from usbench.api.progress import Display
    from usbench.api.tally import Tally
    from usbench.api.trackers import Trackers, tracker_names
    from usbench.hooks import registry
    from usbench.report.shown import parts_of, print_parts
    from usbench.report.suite import suite_folder, write_suite
    from usbench.runs.agenda import StagesFailed
    from usbench.runs.observers import Observers
    from usbench.runs.shares import fitting
    from usbench.runs.suite import run_suite, unique
    from usbench.suites import MANY

    trackers, working = tracker_names(track), cluster_of(engine, workers, scheduler, scheduler_file)
    always = {"auto_batch": True} if auto_batch else {}
    resolved, store, console = _resolved(file, skip_missing, **always), _store(out), Console()
    if len(resolved.runs) > MANY and not yes:
        raise UsbenchError(f"{file} has {len(resolved.runs)} runs, more than {MANY}: start them with --yes.")
    for why in resolved.missing.values():
        console.print(f"Left out: {why}", highlight=False, markup=False, soft_wrap=True)
    store.open()
    if workers is None and engine == "local":
        resolved.runs[0].plans[0][1].workers, why = fitting(resolved.as_plan(resolved.wanted()), store)
        if why:
            console.print(why, highlight=False, markup=False, soft_wrap=True)
    facts = {f"run {place}": title_of(trials.run.spec) for place, trials in enumerate(resolved.runs, 1)}
    facts |= {"suite": resolved.suite.name, "about": resolved.suite.about}
    failure: StagesFailed | None = None
    with Trackers(trackers, suite_folder(resolved, store), facts, console) as watching:
        watching.expect(unique(stage for trials in resolved.runs for _, plan in trials.plans for stage in plan.stages))
        with working as cluster, Display(console) as display:
            try:
                display.expect(Tally(resolved.wanted(), store, workers or resolved.runs[0].plans[0][1].workers))
                observer = Observers(display, watching)
                tests, computed = run_suite(
                    resolved, store, registry(), observer, workers=workers, fail_fast=fail_fast, cluster=cluster
                )
            except Interrupted as stop:
                raise Interrupted(f"stopped: {stop}; run the same command again to go on.") from None
            except StagesFailed as failed:
                failure, computed = failed, failed.computed
                tests = [stage for stage in resolved.tests(store) if store.has(stage.id)]
        if failure is not None and not tests:
            _list_failures(failure)
            raise failure
        folder, every = write_suite(resolved, tests, store)
        watching.finish(every, [])
    print_parts(console, parts_of(every, [], [folder / "leaderboard.csv"]))
    rest = "the rest was there" if failure is None else f"{len(tests)} tests are in the table"
    console.print(f"{computed} stages computed, {rest}.", highlight=False)
    if failure is not None:
        _list_failures(failure)
        raise failure


def _list_failures(failure: StagesFailed) -> None:
    for line in failure.lines:
        click.echo(line)
