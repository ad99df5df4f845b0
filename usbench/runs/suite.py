"""A suite as one set of stages: shared work is done once, settings are chosen on inner validation. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from usbench.data.home import NotImported, Progress
from usbench.errors import UsbenchError
from usbench.hooks import Registry
from usbench.runs.agenda import StagesFailed
from usbench.runs.engines import Observer, run_plan
from usbench.runs.plan import Common, make_plan
from usbench.runs.stage import Plan, Stage, unique
from usbench.runs.store import Store
from usbench.suites import Suite, SuiteRun

if TYPE_CHECKING:
    from usbench.runs.cluster import Cluster

Row = tuple[str, float]  # loss and label fraction: what a setting is chosen for


@dataclass
class Trials:
    """One run of a suite with its trials, each a plan of its own."""

    run: SuiteRun
    plans: list[tuple[str, Plan]]

    @property
    def trained(self) -> list[Stage]:
        """All trainings of all trials."""
        return [stage for _, plan in self.plans for stage in plan.stages if stage.kind != "evaluate"]

    def chosen(self, store: Store) -> list[Stage]:
        """The tests of each row's best trial by mean inner-validation score over its seeds.

        A row of which a trial could not be trained is left out: not all rows would have had the same trials.
        """
        best = {row: self._best(row, store) for row in self._rows() if self._whole(row, store)}
        tests = []
        for place, (text, plan) in enumerate(self.plans):
            for stage in plan.stages:
                if stage.kind == "evaluate" and best.get(_row(stage)) == place:
                    said = f"{text} (of {len(self.plans)})" if len(self.plans) > 1 else ""
                    tests.append(replace(stage, row={**stage.row, "chosen": said}))
        return tests

    def unchosen(self, store: Store) -> list[Stage]:
        """The tests, of one trial, that no choice can be made for."""
        lacking = {row for row in self._rows() if not self._whole(row, store)}
        return [s for s in self.plans[0][1].stages if s.kind == "evaluate" and _row(s) in lacking]

    def wanted(self, store: Store) -> list[Stage]:
        """Every training, and the tests of the chosen trials; those of one trial where nothing is chosen yet."""
        return unique([*self.trained, *self.chosen(store), *self.unchosen(store)])

    def _whole(self, row: Row, store: Store) -> bool:
        """Whether all trials of a row are trained, or there is nothing to choose."""
        tuned = [s for _, plan in self.plans for s in plan.stages if s.kind == "finetune" and _row(s) == row]
        return len(self.plans) == 1 or all(store.has(stage.id) for stage in tuned)

    def _rows(self) -> list[Row]:
        return list(dict.fromkeys(_row(s) for s in self.plans[0][1].stages if s.kind == "evaluate"))

    def _best(self, row: Row, store: Store) -> int:
        if len(self.plans) == 1:
            return 0
        means = []
        for _, plan in self.plans:
            tuned = [s for s in plan.stages if s.kind == "finetune" and _row(s) == row]
            scores = [_inner(store.record(stage.id)["facts"]) for stage in tuned]
            means.append(sum(scores) / len(scores) if scores else math.nan)
        if any(map(math.isnan, means)):
            return 0  # too few labels to validate on: nothing is chosen
        return means.index(max(means))


@dataclass
class SuitePlan:
    """All runs of a suite, resolved."""

    suite: Suite
    runs: list[Trials]
    missing: dict[str, str] = field(default_factory=dict)  # sets that are not installed → how to get them
    skipped: int = 0  # runs that want one of them

    @property
    def trainings(self) -> list[Stage]:
        """Every training once, in an order in which they can be done."""
        return unique(stage for run in self.runs for stage in run.trained)

    def tests(self, store: Store) -> list[Stage]:
        """Every test of what was chosen, once; the trainings must be there where there is a choice."""
        return unique(stage for run in self.runs for stage in run.chosen(store))

    def without_choice(self, store: Store) -> list[Stage]:
        """Every training, and the tests that wait for no choice."""
        plain = [stage for run in self.runs if len(run.plans) == 1 for stage in run.chosen(store)]
        return unique([*self.trainings, *plain])

    def chosen_last(self, store: Store) -> list[Stage]:
        """Every test of what was chosen, and the trainings that are there: the weights of one may be wanted again."""
        return unique([*(stage for stage in self.trainings if store.has(stage.id)), *self.tests(store)])

    @property
    def asked(self) -> int:
        """How many stages the runs would take if nothing were shared."""
        return sum(len(plan.stages) for run in self.runs for _, plan in run.plans)

    def wanted(self, store: Store) -> list[Stage]:
        """As many stages as will be done, whatever is chosen."""
        return unique(stage for run in self.runs for stage in run.wanted(store))

    def as_plan(self, stages: list[Stage]) -> Plan:
        """Some of its stages as a plan that an engine takes."""
        first = self.runs[0].plans[0][1]
        return Plan(first.spec, stages, first.missing, first.workers)


def plan_suite(registry: Registry, suite: Suite, progress: Progress, *, skip_missing: bool) -> SuitePlan:
    """Resolve every run. Sets that are not installed are named all at once, and skipped only if that is allowed."""
    made = SuitePlan(suite, [])
    for run in suite.runs:
        try:
            shared = Common(run.spec, {k: list(v) for k, v in run.selection.over.items()}) if run.selection else None
            plans = [(text, make_plan(registry, spec, progress, common=shared)) for text, spec in run.trials()]
        except NotImported as error:
            made.missing[error.name] = str(error)
            made.skipped += 1
            continue
        made.runs.append(Trials(run, plans))
    if made.missing and not skip_missing:
        raise UsbenchError(
            f"{made.skipped} of {len(suite.runs)} runs of {suite.path} want sets that are not imported "
            f"({', '.join(sorted(made.missing))}): import them, or leave those runs out with --skip-missing."
        )
    if not made.runs:
        raise UsbenchError(f"no run of {suite.path} can be done: {' '.join(made.missing.values())}")
    return made


def _inner(facts: Mapping[str, Any]) -> float:
    """A training's score on inner validation, in its protocol's own metric; NaN where there is none."""
    score = next((facts[name] for name in facts if name.endswith("_inner")), None)
    return math.nan if score is None else float(score)


def _row(stage: Stage) -> Row:
    return stage.row["loss"], stage.row["label_fraction"]


def do_suite(
    plan: SuitePlan, store: Store, registry: Registry, observer: Observer, *, workers: int | None = None,
    fail_fast: bool = False, cluster: Cluster | None = None,
) -> tuple[list[Stage], int]:  # fmt: skip
    """Do what is missing: trainings and tests, those that need a choice last. Returns the tests, and how many ran.

    Where stages failed, `StagesFailed` comes when all that does not need them is done.
    """
    titles = {stage.id: stage.title for run in plan.runs for _, each in run.plans for stage in each.stages}
    with store.wanting(titles, f"suite {plan.suite.name}", titles):
        return _do_suite(plan, store, registry, observer, workers=workers, fail_fast=fail_fast, cluster=cluster)


def _do_suite(
    plan: SuitePlan, store: Store, registry: Registry, observer: Observer, *, workers: int | None, fail_fast: bool,
    cluster: Cluster | None,
) -> tuple[list[Stage], int]:  # fmt: skip
    failed: dict[str, tuple[Stage, str]] = {}
    left_out: dict[str, Stage] = {}
    computed, bad_input = 0, True
    tests: list[Stage] = []
    for stages in (plan.without_choice, plan.chosen_last):
        some = plan.as_plan([stage for stage in stages(store) if stage.id not in failed])
        # Chosen once: a training that is made again for its weights may score otherwise on another machine.
        tests = [stage for stage in some.stages if stage.kind == "evaluate"]
        try:
            computed += run_plan(
                some, store, registry, observer, workers=workers or some.workers, fail_fast=fail_fast, cluster=cluster
            )  # fmt: skip
        except StagesFailed as error:
            failed |= error.failed
            left_out |= error.left_out
            computed += error.computed
            bad_input &= error.bad_input or not error.failed
            if fail_fast:
                break
    if failed or left_out:
        left_out |= {stage.id: stage for run in plan.runs for stage in run.unchosen(store)}
        raise StagesFailed(failed, left_out, computed, bad_input=bad_input and bool(failed) and not computed)
    return tests, computed
