"""Several observers as one."""

from __future__ import annotations

from usbench.runs.engines import Observer
from usbench.runs.stage import Stage


class Observers:
    """Tells each of them everything; any of them may ask to stop."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop."""
        return any(observer.stopping for observer in self.observers)

    def begin(self, stage: Stage, place: int, total: int) -> None:
        """A stage begins."""
        for observer in self.observers:
            observer.begin(stage, place, total)

    def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
        """A training went on."""
        for observer in self.observers:
            observer.step(stage, done, total, loss, rate)

    def end(self, stage: Stage) -> None:
        """A stage is finished."""
        for observer in self.observers:
            observer.end(stage)

    def fail(self, stage: Stage, why: str) -> None:
        """A stage failed, and what does not need it goes on."""
        for observer in self.observers:
            observer.fail(stage, why)

    def wait(self, stage: Stage, who: str) -> None:
        """Nothing is left but what another process does."""
        for observer in self.observers:
            observer.wait(stage, who)
