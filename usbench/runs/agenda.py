"""What of a plan is still to be done: what can begin, what others work on, what failed, and what that leaves out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from usbench.errors import Refused, RunFailed, UsbenchError
from usbench.runs.owner import Owner
from usbench.runs.stage import KINDS, Plan, Stage
from usbench.runs.store import Store

LOOK_SECONDS = 1.0  # between two looks at what other processes have finished


class StagesFailed(RunFailed):
    """Some stages failed; all that does not need them is done. Where nothing could be done, it is bad input."""

    def __init__(
        self, failed: dict[str, tuple[Stage, str]], left_out: dict[str, Stage], computed: int, *, bad_input: bool
    ) -> None:
        self.failed, self.left_out, self.computed, self.bad_input = failed, left_out, computed, bad_input
        if bad_input:
            self.exit_code = UsbenchError.exit_code
        self.result: Any = None  # what did not fail, where somebody made something of it
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        whys, more = [why.rstrip(".") for _, why in self.failed.values()], len(self.left_out)
        need = f"{more} stage{' that needs' if more == 1 else 's that need'} {'it' if len(whys) == 1 else 'them'}"
        left = f"{need} {'was' if more == 1 else 'were'} left out"
        if self.bad_input:
            return f"{whys[0]}."
        if len(whys) == 1:
            return f"{whys[0]}; {left}." if more else f"{whys[0]}."
        said = f"{len(whys)} stages failed{f' and {left}' if more else ''}"
        return f"{said}: mend what is said of them above, and run the same command again."

    @property
    def lines(self) -> list[str]:
        """A line for each that failed."""
        return [f"failed: {of_stage(stage, why)}" for stage, why in self.failed.values()]


def of_stage(stage: Stage, why: str) -> str:
    """Why a stage failed, on one line that names it."""
    return " ".join((why if stage.title in why else f"{stage.title}: {why}").split())


def missing(stages: Iterable[Stage], store: Store) -> list[Stage]:
    """What is to be done of some stages: those that are not there, and those of which one of these needs the weights
    where they were left out, as they are of a published result."""
    every = list(stages)
    found: set[str] = set()
    needed: set[str] = set()
    for kind in reversed(KINDS):
        for stage in every:
            if stage.kind == kind and not (store.ready if stage.id in needed else store.has)(stage.id):
                found.add(stage.id)
                needed.update(stage.needs)
    return [stage for stage in every if stage.id in found]


class Agenda:
    """The missing stages of a plan, in the order in which they are wanted."""

    def __init__(self, plan: Plan, store: Store, order: Iterable[Stage] | None = None) -> None:
        self.store = store
        self.waiting = missing(order or plan.stages, store)
        self.total, self.begun, self.computed = len(plan.stages), len(plan.stages) - len(self.waiting), 0
        self.running: dict[str, Stage] = {}
        self.done: set[str] = set()
        self.failed: dict[str, tuple[Stage, str]] = {}
        self.left_out: dict[str, Stage] = {}
        self.elsewhere: dict[str, tuple[Stage, Owner]] = {}  # what other processes were seen to work on
        self.proven = False  # whether any stage was seen to work
        self.bad_input = True  # whether it is what was asked for that every failure tells of
        self._looked = -LOOK_SECONDS

    def next(self) -> Stage | None:
        """A stage that can begin now, and now counts as running; None where there is none at the moment.

        What another process works on comes last: when nothing else is left, it is looked at now and then, and begun
        where that process is gone.
        """
        left_out = -1
        while left_out != len(self.left_out):  # what is left out may leave out what was looked at before it
            left_out = len(self.left_out)
            open_ids = {stage.id for stage in self.waiting} | self.running.keys()
            for stage in list(self.waiting):
                if self._met(stage, open_ids) and self._free(stage):
                    self.waiting.remove(stage)
                    self.running[stage.id] = stage
                    return stage
        self._looked = time.monotonic()
        return None

    @property
    def rested(self) -> bool:
        """Whether it is worth while to look again, though nothing happened here."""
        return time.monotonic() - self._looked >= LOOK_SECONDS

    def _met(self, stage: Stage, open_ids: set[str]) -> bool:
        """Whether all that a stage needs is there; one that can never have it is left out."""
        for need in stage.needs:
            if need in self.done:
                continue
            if self.store.ready(need):
                self.done.add(need)
                continue
            if need not in open_ids:
                self.waiting.remove(stage)
                self.left_out[stage.id] = stage
            return False
        return True

    def _free(self, stage: Stage) -> bool:
        """Whether nobody has done a stage meanwhile, or does it now."""
        if self.store.ready(stage.id):
            self.done.add(stage.id)
            self.waiting.remove(stage)
            self.elsewhere.pop(stage.id, None)
            return False
        owner = self.store.holder(stage.id)
        if owner is None:
            self.elsewhere.pop(stage.id, None)
            return True
        self.elsewhere[stage.id] = stage, owner
        return False

    def begin(self) -> tuple[int, int]:
        """A stage begins: which one it is, and of how many."""
        self.begun += 1
        return min(self.begun, self.total), self.total

    def end(self, stage: Stage, *, computed: bool) -> None:
        """A stage is finished, by us or, just before us, by somebody else."""
        del self.running[stage.id]
        self.done.add(stage.id)
        self.computed += computed
        self.proven |= computed

    def again(self, stage: Stage) -> None:
        """A stage was begun and not finished, and is still wanted."""
        del self.running[stage.id]
        self.waiting.insert(0, stage)

    def fail(self, stage: Stage, error: UsbenchError) -> None:
        """A stage failed. Raises what nothing else can come after: a bad option in the first stage of all."""
        del self.running[stage.id]
        if isinstance(error, Refused) and not self.proven and not self.failed:
            raise error
        self.bad_input &= error.exit_code == UsbenchError.exit_code
        self.failed[stage.id] = stage, str(error)
        self.store.note_failure(stage.id, stage.title, str(error))

    def close(self) -> int:
        """How many stages were computed here; raises where some could not be."""
        if self.failed or self.left_out:
            bad_input = bool(self.failed) and self.bad_input and not self.proven
            raise StagesFailed(self.failed, self.left_out, self.computed, bad_input=bad_input)
        return self.computed
