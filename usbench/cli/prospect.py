"""What a suite will do: its runs, what is done of them, and how long the rest takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from usbench.runs.store import Store
    from usbench.runs.suite import SuitePlan
    from usbench.runs.timing import Estimate


def describe(resolved: SuitePlan, store: Store, others: tuple[Path, ...], *, probe: bool = False) -> None:
    """Print the runs of a suite, how far they are, how long the rest takes, and what failed."""
    from rich.console import Console
    from rich.markup import escape

    from usbench.api.suites import titles_of
    from usbench.report.table import plain_table
    from usbench.runs.agenda import missing, of_stage

    console = Console()
    console.print(f"{resolved.suite.name}: {resolved.suite.about}", highlight=False, markup=False)
    table = plain_table("run", "stages", "done", title="")
    every = {stage.id: stage for run in resolved.runs for _, plan in run.plans for stage in plan.stages}
    todo = {stage.id for stage in missing(resolved.wanted(store), store)}
    titles = titles_of([run.run.spec for run in resolved.runs])
    for run, title in zip(resolved.runs, titles, strict=True):
        stages = {stage.id for stage in run.wanted(store)}
        trials = f", {len(run.plans)} trials" if len(run.plans) > 1 else ""
        table.add_row(escape(title + trials), str(len(stages)), str(len(stages - todo)))
    console.print(table)
    trainings = resolved.trainings
    done = sum(stage.id not in todo for stage in trainings)
    shared = resolved.asked - len(every)
    lines = [f"{len(trainings)} trainings, {done} of them done; {shared} stages are shared between runs."]
    estimated = _estimated(resolved, store, others, probe=probe)
    if estimated:
        console.print(_times_table(estimated))
        lines.append(_time_left(estimated, resolved.runs[0].plans[0][1].workers))
    if done < len(trainings):
        lines.append("What refuses its options says so before the first stage begins, and not here.")
    for why in resolved.missing.values():
        lines.append(f"Left out: {why}")
    for stage in every.values():
        if stage.id in todo and (owner := store.holder(stage.id)) is not None:
            lines.append(f"In work: {stage.title}, by {owner}")
    for stage in every.values():
        if why := store.failure(stage.id):
            lines.append(f"Failed: {of_stage(stage, why)}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _estimated(
    resolved: SuitePlan, store: Store, others: tuple[Path, ...], *, probe: bool
) -> list[Estimate]:  # fmt: skip
    """How long each kind of missing stage will take."""
    from rich.console import Console

    from usbench.hooks import registry
    from usbench.runs.store import Store
    from usbench.runs.timing import Known, estimates, measure

    known = Known.of([store, *(Store(place).check_schema() for place in others)])
    measured = {}
    if probe:
        with Console(stderr=True).status("measuring") as line:
            measured = measure(
                resolved.wanted(store), store, known, registry(), lambda kind: line.update(f"measuring {kind}")
            )  # fmt: skip
    return estimates(resolved.wanted(store), store, known, measured)


def _times_table(every: list[Estimate]) -> Table:
    """A line for each kind of training, and one for all tests."""
    from rich.markup import escape

    from usbench.api.outlook import clock
    from usbench.report.table import plain_table

    table = plain_table("to do", "stages", "time", "known by", title="Time, one after the other")
    trainings = [row for row in every if row.kind.kind != "evaluate"]
    for row in trainings:
        took = "" if row.seconds is None else clock(row.seconds)
        table.add_row(escape(str(row.kind)), str(row.stages), took, row.by)
    if tests := [row for row in every if row.kind.kind == "evaluate"]:
        sums = [row.seconds for row in tests if row.seconds is not None]
        by = list(dict.fromkeys(row.by for row in tests))
        table.add_row("tests", str(sum(row.stages for row in tests)), clock(sum(sums)) if sums else "", ", ".join(by))
    return table


def _time_left(every: list[Estimate], workers: int) -> str:
    from usbench.api.outlook import clock

    trainings = [row for row in every if row.kind.kind != "evaluate"]
    seconds = sum(row.seconds or 0.0 for row in every)
    of = f"{workers} workers" if workers > 1 else "one worker"
    unknown = sum(row.seconds is None and bool(row.kind.batch) for row in trainings)
    if unknown and unknown == len(trainings):
        return "Time left: unknown; suite plan --time measures."
    text = f"Time left: {'at least' if unknown else 'about'} {clock(seconds / workers)} with {of}."
    return f"{text[:-1]}; {unknown} kinds of training are unknown, and suite plan --time measures." if unknown else text
