"""Does a plan's missing stages: one after the other, by several workers of this machine, or by dask's.

Any number of processes may work on one store. A stage that another one does is left for last; then it is waited for.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from usbench.errors import Halt, Interrupted, UsbenchError, of_system
from usbench.hooks import Registry
from usbench.runs.agenda import Agenda, StagesFailed, missing
from usbench.runs.doing import Watch, do
from usbench.runs.foreman import Crew, Foreman, urgency
from usbench.runs.lease import Taken
from usbench.runs.pool import Pool
from usbench.runs.shares import pins
from usbench.runs.stage import Plan, Stage
from usbench.runs.stages import Stages
from usbench.runs.store import Store

if TYPE_CHECKING:
    from usbench.runs.cluster import Cluster

__all__ = ["Observer", "StagesFailed", "run_plan"]
GLANCE_SECONDS = 0.2  # between two looks at whether the user asked to stop, while others are waited for


class Observer(Protocol):
    """Who watches a plan being done."""

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop."""

    def begin(self, stage: Stage, place: int, total: int) -> None:
        """A stage begins."""

    def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
        """A training went on."""

    def end(self, stage: Stage) -> None:
        """A stage is finished."""

    def fail(self, stage: Stage, why: str) -> None:
        """A stage failed, and what does not need it goes on."""

    def wait(self, stage: Stage, who: str) -> None:
        """Nothing is left but what another process does."""


def run_plan(
    plan: Plan, store: Store, known: Registry, observer: Observer, *, workers: int = 1, fail_fast: bool = False,
    cluster: Cluster | None = None,
) -> int:  # fmt: skip
    """Do what is missing, in this process, by several of this machine, or by a cluster's workers; returns how many
    stages were computed here.

    A stage that fails leaves out what needs it, and nothing else: `StagesFailed` comes at the end. With `fail_fast` its
    error ends everything, as does one that would meet every stage: a full disk, or a bad option in the first stage.
    """
    wanted = len(missing(plan.stages, store))
    if not wanted:
        return 0
    titles = {stage.id: stage.title for stage in plan.stages}
    with store.wanting(titles, f"run {plan.spec.loss}", titles):
        workers = min(workers, wanted)
        if cluster is None and (workers == 1 or not known.travels):
            return _alone(plan, store, known, observer, fail_fast=fail_fast)
        agenda = Agenda(plan, store, sorted(plan.stages, key=urgency))
        if cluster is None:
            crew: Crew = Pool(store, known, pins(plan.stages, workers, workers))
        else:
            crew = cluster.crew(plan, store, known, workers)
        return Foreman(observer, agenda, crew, fail_fast=fail_fast).run()


def _alone(plan: Plan, store: Store, known: Registry, observer: Observer, *, fail_fast: bool) -> int:
    agenda, stages, first = Agenda(plan, store), Stages(store, known), None
    while (stage := _next(agenda, observer)) is not None:
        try:
            _one(stage, agenda, store, stages, observer)
        except (Halt, Interrupted):
            raise
        except (UsbenchError, OSError) as error:
            said = error if isinstance(error, UsbenchError) else of_system(error)
            agenda.fail(stage, said)
            observer.fail(stage, str(said))
            if fail_fast:
                raise
            first = first or error
        if observer.stopping:
            raise Interrupted(f"{stage.title} is done, and what comes after it is not")
    try:
        return agenda.close()
    except StagesFailed as failed:
        raise failed from first


def _next(agenda: Agenda, observer: Observer) -> Stage | None:
    """The next stage, once there is one; None when all is done that can be."""
    told: set[str] = set()
    while (stage := agenda.next()) is None and agenda.waiting:
        for other, owner in agenda.elsewhere.values():
            if other.id not in told:
                told.add(other.id)
                observer.wait(other, str(owner))
        while not agenda.rested:
            if observer.stopping:
                raise Interrupted("what was begun is saved")
            time.sleep(GLANCE_SECONDS)
    return stage


def _one(stage: Stage, agenda: Agenda, store: Store, stages: Stages, observer: Observer) -> None:
    def step(*facts: float) -> None:
        agenda.proven = True
        observer.step(stage, *facts)  # type: ignore[arg-type]

    watch = Watch(lambda: observer.stopping, step)
    try:
        computed = do(stage, store, stages, watch, lambda: observer.begin(stage, *agenda.begin()))
    except Taken:
        agenda.again(stage)
        return
    agenda.end(stage, computed=computed)
    if computed:
        observer.end(stage)
