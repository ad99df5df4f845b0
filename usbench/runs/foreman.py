"""Gives an agenda's stages to workers as soon as what these need is done, and hears what became of them.

Who the workers are is the matter of a crew: processes of this machine, or a cluster's. The store alone says what is
done.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from usbench.errors import Halt, Interrupted, Refused, RunFailed, UsbenchError
from usbench.runs import lease
from usbench.runs.agenda import Agenda
from usbench.runs.stage import Stage

if TYPE_CHECKING:
    from usbench.runs.engines import Observer

GRACE_SECONDS = 6.0  # what has not saved and left so long after it was asked to goes back to its last checkpoint
LISTEN_SECONDS = 0.2
DEATHS = 2  # of its workers, and a stage has failed


def urgency(stage: Stage) -> tuple[int, int]:
    """Pretrainings first, since most waits for them; then what is short and ready; then the longest training."""
    return {"pretrain": 0, "evaluate": 1, "finetune": 2}[stage.kind], -stage.steps


class Crew(Protocol):
    """Workers, each of whom does one stage at a time."""

    def free(self) -> int:
        """How many have nothing to do."""

    def give(self, stage: Stage, order: dict[str, Any]) -> None:
        """Let one of them do a stage; the order is its plain form."""

    def hear(self, seconds: float) -> list[tuple[str, dict[str, Any]]]:
        """What was said since, by the ids of stages; waits for a word. "died" is said of a worker that is no more."""

    def stop(self) -> None:
        """Ask all who work to save and stop."""

    def drop(self, stages: Collection[str]) -> None:
        """End those who were given these and have begun nothing that would have to be saved."""

    def kill(self) -> None:
        """End those who still work."""

    def dismiss(self, *, asked: bool) -> None:
        """Let all go, after some moments if they were asked to stop."""

    @property
    def absent(self) -> str:
        """Who has to come before anything can be given; empty where somebody is there."""


class Foreman:
    """Does an agenda by a crew."""

    def __init__(self, observer: Observer, agenda: Agenda, crew: Crew, *, fail_fast: bool) -> None:
        self.observer, self.agenda, self.crew, self.fail_fast = observer, agenda, crew, fail_fast
        self.asked: float | None = None  # when all were asked to save and stop
        self.failure: UsbenchError | None = None  # what ends everything
        self.begun: set[str] = set()
        self.deaths: dict[str, int] = {}
        self.reached: dict[str, int] = {}  # the step that a stage was last heard of
        self.died_at: dict[str, int] = {}  # the step at which it was when a worker died
        self.told: set[str] = set()

    @property
    def busy(self) -> dict[str, Stage]:
        """What somebody does now."""
        return self.agenda.running

    def run(self) -> int:
        """Do all stages; returns how many were computed. When the user asks, they save and stop."""
        try:
            look = True
            while self.busy or (self.agenda.waiting and self.failure is None):
                if self.observer.stopping and self.failure is None:
                    self.failure = Interrupted("every training is saved")
                if self.failure is not None:
                    self._stop()
                elif look or self.agenda.rested:
                    self._give()
                heard = self.crew.hear(LISTEN_SECONDS)
                look = bool(heard)
                for stage_id, message in heard:
                    if stage_id in self.busy:
                        self._hear(self.busy[stage_id], message)
        finally:
            self.crew.dismiss(asked=self.asked is not None)
        if self.failure is not None:
            raise self.failure
        return self.agenda.close()

    def _stop(self) -> None:
        """Ask all to save and stop; those who have nothing to save or take too long are ended."""
        if self.asked is None:
            self.asked = time.monotonic()
            self.crew.stop()
            self.crew.drop(self.busy.keys() - self.begun)
        if time.monotonic() - self.asked > GRACE_SECONDS:
            self.crew.kill()

    def _give(self) -> None:
        """A stage for every worker that has none, as far as there are some."""
        for _ in range(self.crew.free()):
            if self.busy and not self.agenda.proven:
                return  # a bad option shows when the first stage is built, and then nothing else has begun
            stage = self.agenda.next()
            if stage is None:
                break
            self.crew.give(stage, {"stage": asdict(stage), "watched": lease.seen()})
        if not self.busy:
            if self.agenda.waiting and (absent := self.crew.absent):
                self._wait(self.agenda.waiting[0], absent)
            for other, owner in self.agenda.elsewhere.values():
                self._wait(other, str(owner))

    def _wait(self, stage: Stage, who: str) -> None:
        if stage.id not in self.told:
            self.told.add(stage.id)
            self.observer.wait(stage, who)

    def _begin(self, stage: Stage) -> None:
        if stage.id not in self.begun:
            self.begun.add(stage.id)
            self.observer.begin(stage, *self.agenda.begin())

    def _hear(self, stage: Stage, message: dict[str, Any]) -> None:
        what = message["what"]
        if what == "begun":
            self._begin(stage)
        elif what == "step":
            self._begin(stage)
            self.agenda.proven = True
            self.reached[stage.id] = int(message["facts"][0])
            self.observer.step(stage, *message["facts"])
        elif what == "taken":
            self.agenda.again(stage)
        elif what == "died":
            self._bury(stage, message["how"])
        elif what == "failed":
            if message["kind"] == "130" and self.asked is None:  # its worker was told to go by somebody else, and saved
                self.agenda.again(stage)
                return
            kinds = {"halt": Halt, "130": Interrupted, "1": RunFailed, "refused": Refused}
            self._fail(stage, kinds.get(message["kind"], UsbenchError)(message["text"]))
        else:
            self.agenda.end(stage, computed=what == "done")
            if what == "done":
                self._begin(stage)  # where its worker said so in vain
                self.observer.end(stage)

    def _bury(self, stage: Stage, how: str) -> None:
        """A worker died: its stage is gone on with by another one. What came further than before died of something else
        than of itself: workers may be lent for less time than a training takes."""
        reached = self.reached.get(stage.id, 0)
        further = reached > self.died_at.get(stage.id, -1)
        self.deaths[stage.id] = 1 if further else self.deaths.get(stage.id, 0) + 1
        self.died_at[stage.id] = max(reached, self.died_at.get(stage.id, 0))
        if self.failure is not None or self.deaths[stage.id] < DEATHS:
            self.agenda.again(stage)
            return
        self._fail(
            stage,
            RunFailed(
                f"the worker that did {stage.title} died ({how}; killed, or out of memory?), "
                "and so did the one before it, no further on: run the same command again to go on."
            ),
        )

    def _fail(self, stage: Stage, error: UsbenchError) -> None:
        """Note a failure; what it ends everything with, what follows it is only others stopping."""
        if isinstance(error, Halt | Interrupted) or self.failure is not None:
            self.agenda.again(stage)
            self.failure = self.failure or error
            return
        try:
            self.agenda.fail(stage, error)
        except UsbenchError as bad:
            self.failure = bad
            return
        self.observer.fail(stage, str(error))
        if self.fail_fast:
            self.failure = error
