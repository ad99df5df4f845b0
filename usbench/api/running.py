"""`usbench.run`: one method beside its baselines, from Python. The command line calls it too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from usbench.api.asked import spec_of
from usbench.api.engine import cluster_of
from usbench.api.outlook import outlook
from usbench.api.progress import Display, say, shown
from usbench.api.result import Result
from usbench.api.tally import Tally
from usbench.api.trackers import Trackers, tracker_names
from usbench.errors import UsbenchError, about, system_errors, text_of
from usbench.hooks import registry
from usbench.report.summary import run_name, summarise
from usbench.runs.agenda import StagesFailed
from usbench.runs.engines import run_plan
from usbench.runs.observers import Observers
from usbench.runs.plan import make_plan
from usbench.runs.shares import fitting
from usbench.runs.stage import Plan
from usbench.runs.store import Store
from usbench.source import refuse_edited
from usbench.spec import config_text
from usbench.whole import written

PathLike = str | os.PathLike[str]
Texts = PathLike | Sequence[PathLike]
Numbers = float | str | Iterable[float]


def run(
    loss: str | None = None,
    *,
    aug: str | None = None,
    backbone: str | None = None,
    init: PathLike | None = None,
    data: Texts | None = None,
    ood: Texts | None = None,
    pretrain_data: Texts | None = None,
    pretrain_part: str | None = None,
    labels: Numbers | None = None,
    seeds: int | Iterable[int] | None = None,
    seed: Numbers | None = None,
    fold: int | None = None,
    split: Texts | None = None,
    leave_device: str | None = None,
    allow_leaks: bool = False,
    shifts: str | Sequence[str] | None = None,
    severities: Numbers | None = None,
    preset: str | None = None,
    size: int | None = None,
    protocol: str | None = None,
    device: str | None = None,
    devices: int | None = None,
    precision: str | None = None,
    threads: int | None = None,
    auto_batch: bool = False,
    set: Mapping[str, Any] | Sequence[str] | None = None,
    out: PathLike = "runs",
    config: PathLike | None = None,
    save_config: PathLike | None = None,
    dry_run: bool = False,
    fail_fast: bool = False,
    track: str | Sequence[str] = (),
    progress: bool = True,
    workers: int | None = None,
    engine: str = "local",
    scheduler: str | None = None,
    scheduler_file: PathLike | None = None,
) -> Result:
    """Pretrain, fine-tune and test one method beside its baselines; returns the results.

    What stands in the store `out` already is not computed again. The arguments are the options of `usbench run`
    (`usbench run --help` explains them): `seeds` is how many or a list of them, and `set` overrides a schedule, as in
    `set={"pretrain.steps": 500}`. `progress` shows how far it is, and `workers` is how many stages run at once: by
    processes of this machine, or with `engine="dask"` by dask's workers.
    Bad input raises a UsbenchError. An interrupt saves and raises an Interrupted; the same call goes on. Where a stage
    fails, the others are done, and the StagesFailed that comes at the end holds their `result`.
    """
    asked = dict(locals())
    with system_errors():
        return _run(asked)


def _run(asked: dict[str, Any]) -> Result:
    refuse_edited(entry.where for entry in registry().entries())
    trackers = tracker_names(asked["track"])
    working = cluster_of(asked["engine"], asked["workers"], asked["scheduler"], asked["scheduler_file"])
    config = asked["config"]
    with about("with the config", config):
        spec = spec_of(asked, asked["set"], config)
    console = Console(quiet=not asked["progress"])
    store = Store(Path(text_of(asked["out"], "--out")))
    store.check_place()
    with Display(console) as display, about("with the config", config):
        plan = make_plan(registry(), spec, display.making)
    if asked["save_config"] is not None:
        _save_config(Path(text_of(asked["save_config"], "--save-config")), config_text(spec))
    folder = store.root / run_name(plan)
    if asked["dry_run"]:
        return Result.of_plan(plan, store, folder)
    store.open()
    if asked["workers"] is None and asked["engine"] == "local":
        plan.workers, why = fitting(plan, store)
        say(console, why)
    say(console, outlook(plan, store))
    facts = {"run": plan.key, **spec.model_dump(mode="json")}
    with Trackers(trackers, folder, facts, console) as watching:
        watching.expect(plan.stages)
        titles = {stage.id: stage.title for stage in plan.stages}
        try:
            with working as cluster, store.wanting(titles, f"run {spec.loss}", titles):  # until run.json says so
                computed = _do(plan, store, console, watching, asked, cluster)
                summary = summarise(plan, store)
        except StagesFailed as failed:
            failed.result = Result.of_rest(plan, store, folder)
            raise
        watching.finish(summary.cells, [folder / name for name in summary.pictures])
    return Result.of_summary(summary, store, spec, computed)


def _do(plan: Plan, store: Store, console: Console, watching: Trackers, asked: dict[str, Any], cluster: Any) -> int:
    workers = asked["workers"] or plan.workers
    with shown(console, Tally(plan.stages, store, workers)) as display:
        observer = Observers(display, watching)
        fast = asked["fail_fast"]
        return run_plan(plan, store, registry(), observer, workers=workers, fail_fast=fast, cluster=cluster)


def _save_config(path: Path, text: str) -> None:
    try:
        with written(path) as temporary:
            temporary.write_text(text, "utf-8")
    except OSError as error:
        raise UsbenchError(f"--save-config {path} cannot be written ({error.strerror}).") from None
