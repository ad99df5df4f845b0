"""`usbench.run_suite`: many runs from one file, from Python. The command line calls it too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from usbench.api.engine import cluster_of
from usbench.api.progress import Display, say, shown
from usbench.api.result import Result
from usbench.api.tally import Tally
from usbench.api.trackers import Trackers, tracker_names
from usbench.errors import UsbenchError, about, system_errors, text_of
from usbench.hooks import registry
from usbench.report.suite import replaced, suite_folder, write_suite
from usbench.runs.agenda import StagesFailed
from usbench.runs.observers import Observers
from usbench.runs.rehearsal import rehearse
from usbench.runs.shares import fitting
from usbench.runs.stage import Stage, unique
from usbench.runs.store import Store
from usbench.runs.suite import SuitePlan, do_suite, plan_suite
from usbench.source import refuse_edited
from usbench.spec import RunSpec
from usbench.suites import MANY, read_suite

PathLike = str | os.PathLike[str]


def run_suite(
    file: PathLike,
    *,
    out: PathLike = "runs",
    skip_missing: bool = False,
    yes: bool = False,
    auto_batch: bool = False,
    fail_fast: bool = False,
    track: str | Sequence[str] = (),
    progress: bool = True,
    workers: int | None = None,
    engine: str = "local",
    scheduler: str | None = None,
    scheduler_file: PathLike | None = None,
) -> Result:
    """Do what is missing of a suite and write its leaderboard; returns the results.

    The arguments are the options of `usbench suite run`: `skip_missing` leaves out runs whose data sets are not
    imported, `yes` starts however many runs there are, and the others are those of `usbench.run`.
    Bad input raises a UsbenchError. An interrupt saves and raises an Interrupted; the same call goes on. Where a stage
    fails, the others are done, and the StagesFailed that comes at the end holds their `result`.
    """
    asked = dict(locals())
    with system_errors():
        return _run(asked)


def resolve_suite(file: Path, skip_missing: bool, **always: Any) -> SuitePlan:
    """A suite with all its stages; `always` is set in every run. Simulated sets are made, others must be there."""
    with about("in the suite", file), Display(Console(stderr=True)) as display:
        return plan_suite(registry(), read_suite(file, **always), display.making, skip_missing=skip_missing)


def store_at(out: Path) -> Store:
    """The store in a folder, which need not be there yet."""
    store = Store(out)
    store.check_place()
    return store


def _run(asked: dict[str, Any]) -> Result:
    refuse_edited(entry.where for entry in registry().entries())
    trackers = tracker_names(asked["track"])
    working = cluster_of(asked["engine"], asked["workers"], asked["scheduler"], asked["scheduler_file"])
    file, console = Path(text_of(asked["file"], "run_suite:")), Console(quiet=not asked["progress"])
    resolved = resolve_suite(file, asked["skip_missing"], **({"auto_batch": True} if asked["auto_batch"] else {}))
    store = store_at(Path(text_of(asked["out"], "--out")))
    if len(resolved.runs) > MANY and not asked["yes"]:
        raise UsbenchError(f"{file} has {len(resolved.runs)} runs, more than {MANY}: start them with --yes.")
    for why in resolved.missing.values():
        say(console, f"Left out: {why}")
    rehearse(resolved.trainings, store, registry())
    store.open()
    say(console, replaced(resolved, store))
    whole = resolved.as_plan(resolved.wanted(store))
    workers = asked["workers"] or whole.workers
    if asked["workers"] is None and asked["engine"] == "local":
        workers, why = fitting(whole, store)
        say(console, why)
    titles = titles_of([trials.run.spec for trials in resolved.runs])
    facts = {f"run {place}": title for place, title in enumerate(titles, 1)}
    facts |= {"suite": resolved.suite.name, "about": resolved.suite.about}
    failure: StagesFailed | None = None
    with Trackers(trackers, suite_folder(resolved, store), facts, console) as watching:
        watching.expect(unique(stage for trials in resolved.runs for _, plan in trials.plans for stage in plan.stages))
        try:
            with working as cluster:
                tests, computed = _do(resolved, store, console, watching, workers, asked["fail_fast"], cluster)
        except StagesFailed as failed:
            failure, computed = failed, failed.computed
            tests = [stage for stage in resolved.tests(store) if store.has(stage.id)]
            if not tests:
                raise
        folder, every = write_suite(resolved, tests, store)
        watching.finish(every, [])
    result = Result(folder, store, every, files=["leaderboard.csv"], computed=computed)
    if failure is not None:
        failure.result = result
        raise failure
    return result


def _do(
    resolved: SuitePlan, store: Store, console: Console, watching: Trackers, workers: int, fail_fast: bool, cluster: Any
) -> tuple[list[Stage], int]:
    with shown(console, Tally(resolved.wanted(store), store, workers)) as display:
        observer = Observers(display, watching)
        return do_suite(resolved, store, registry(), observer, workers=workers, fail_fast=fail_fast, cluster=cluster)


def titles_of(specs: Sequence[RunSpec]) -> list[str]:
    """What each run is called in a line, with what tells it from others that would be called the same."""
    titles, settings = [_title(spec) for spec in specs], [_flat(spec) for spec in specs]
    found = []
    for title, own in zip(titles, settings, strict=True):
        alike = [other for other, name in zip(settings, titles, strict=True) if name == title]
        apart = [name for name in own if any(other[name] != own[name] for other in alike)]
        found.append(" · ".join([title, *(f"{name} {_word(own[name])}" for name in apart)]))
    return found


def _title(spec: RunSpec) -> str:
    words = [spec.loss, spec.aug, "+".join(spec.data), spec.backbone]
    return " · ".join([*words, *([f"init {spec.init}"] if spec.init != "random" else [])])


def _flat(spec: RunSpec) -> dict[str, Any]:
    """Its settings by the names that a suite has for them."""
    flat: dict[str, Any] = {}
    for name, value in spec.model_dump(mode="json").items():
        flat |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
