"""`usbench suite`: many runs from one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from usbench.cli import Group, complete
from usbench.errors import Interrupted, UsbenchError, about

if TYPE_CHECKING:
    from usbench.runs.store import Store
    from usbench.runs.suite import SuitePlan

FILE = click.argument("file", type=click.Path(path_type=Path))
OUT = click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="The store.")
SKIP = click.option("--skip-missing", is_flag=True, help="Leave out runs whose data sets are not imported.")


@click.group(cls=Group)
def suite() -> None:
    """Many runs from one TOML file: plan them, run them, see how far they are."""


def _resolved(file: Path, skip_missing: bool) -> SuitePlan:
    from rich.console import Console

    from usbench.api.progress import Display
    from usbench.hooks import registry
    from usbench.runs.suite import plan_suite
    from usbench.suites import read_suite

    with about("in the suite", file), Display(Console(stderr=True)) as display:
        read = read_suite(file)
        return plan_suite(registry(), read, display.making, skip_missing=skip_missing)


def _store(out: Path) -> Store:
    from usbench.runs.store import Store

    store = Store(out)
    store.check_place()
    return store


@suite.command()
@FILE
@OUT
def plan(file: Path, out: Path) -> None:
    """Show the runs, their stages, what they share, and how long the rest will take."""
    _about(_resolved(file, True), _store(out))


@suite.command()
@FILE
@OUT
def status(file: Path, out: Path) -> None:
    """Show how far a suite is; may be asked from another terminal while it runs."""
    _about(_resolved(file, True), _store(out))


def _about(resolved: SuitePlan, store: Store) -> None:
    from rich.console import Console
    from rich.markup import escape

    from usbench.api.outlook import clock
    from usbench.report.table import plain_table
    from usbench.runs.suite import seconds_left

    console = Console()
    console.print(f"{resolved.suite.name}: {resolved.suite.about}", highlight=False, markup=False)
    table = plain_table("run", "stages", "done", title="")
    for run in resolved.runs:
        stages = {stage.id for _, plan in run.plans for stage in plan.stages}
        tests = sum(stage.kind == "evaluate" for stage in run.plans[0][1].stages)  # of one trial: the chosen one
        trials = f", {len(run.plans)} trials" if len(run.plans) > 1 else ""
        table.add_row(
            escape(_title(run.run.spec) + trials),
            str(len({s.id for s in run.trained}) + tests),
            str(sum(map(store.has, stages))),
        )
    console.print(table)
    trainings = resolved.trainings
    done = sum(store.has(stage.id) for stage in trainings)
    shared = resolved.asked - len({s.id for run in resolved.runs for _, plan in run.plans for s in plan.stages})
    lines = [f"{len(trainings)} trainings, {done} of them done; {shared} stages are shared between runs."]
    left = seconds_left(trainings, store)
    if done < len(trainings):
        lines.append(
            "Time left: not known until a training of each kind is done."
            if left is None
            else f"Time left: about {clock(left / resolved.runs[0].plans[0][1].workers)}."
        )
    for why in resolved.missing.values():
        lines.append(f"Left out: {why}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _title(spec: Any) -> str:
    words = [spec.loss, spec.aug, "+".join(spec.data), spec.backbone]
    return " · ".join(
        [*words, *(f"{name} {getattr(spec, name)}" for name in ("init",) if getattr(spec, name) != "random")]
    )


@complete.offered()
@suite.command()
@FILE
@OUT
@SKIP
@click.option("--yes", is_flag=True, help="Start however many runs there are.")
@click.option("--workers", type=click.IntRange(1), help="Stages at once on this machine.")
@click.option("--track", default="", help="Trackers that look on: tensorboard, wandb, mlflow.")
def run(file: Path, out: Path, skip_missing: bool, yes: bool, workers: int | None, track: str) -> None:
    """Do what is missing of a suite, and write one leaderboard. Ctrl-C saves; the same command goes on."""
    from rich.console import Console

    from usbench.api.progress import Display
    from usbench.api.trackers import Trackers, tracker_names
    from usbench.hooks import registry
    from usbench.report.shown import parts_of, print_parts
    from usbench.report.suite import suite_folder, write_suite
    from usbench.runs.observers import Observers
    from usbench.runs.suite import run_suite, unique
    from usbench.suites import MANY

    trackers = tracker_names(track)
    resolved, store, console = _resolved(file, skip_missing), _store(out), Console()
    if len(resolved.runs) > MANY and not yes:
        raise UsbenchError(f"{file} has {len(resolved.runs)} runs, more than {MANY}: start them with --yes.")
    for why in resolved.missing.values():
        console.print(f"Left out: {why}", highlight=False, markup=False, soft_wrap=True)
    store.open()
    facts = {f"run {place}": _title(trials.run.spec) for place, trials in enumerate(resolved.runs, 1)}
    facts |= {"suite": resolved.suite.name, "about": resolved.suite.about}
    with Trackers(trackers, suite_folder(resolved, store), facts, console) as watching:
        watching.expect(unique(stage for trials in resolved.runs for _, plan in trials.plans for stage in plan.stages))
        with Display(console) as display:
            try:
                observer = Observers(display, watching)
                tests, computed = run_suite(resolved, store, registry(), observer, workers=workers)
            except Interrupted as stop:
                raise Interrupted(f"stopped: {stop}; run the same command again to go on.") from None
        folder, every = write_suite(resolved, tests, store)
        watching.finish(every, [])
    print_parts(console, parts_of(every, [], [folder / "leaderboard.csv"]))
    console.print(f"{computed} stages computed, the rest was there.", highlight=False)
