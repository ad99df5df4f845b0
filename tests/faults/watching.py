"""Who watches a plan being done, and what it came to."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from usbench.report.columns import NOT_MEASURED
from usbench.report.summary import summarise
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store


class Watcher:
    """Notes what it is told, and does something at a step or at the end of a stage."""

    def __init__(
        self, step: Callable[[Stage], None] = lambda stage: None, end: Callable[[Stage], None] = lambda stage: None
    ) -> None:
        self.at_step, self.at_end, self.stopping = step, end, False
        self.ended: list[str] = []
        self.failed: dict[str, str] = {}

    def begin(self, stage: Stage, place: int, total: int) -> None:
        pass

    def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
        self.at_step(stage)

    def end(self, stage: Stage) -> None:
        self.ended.append(stage.id)
        self.at_end(stage)

    def fail(self, stage: Stage, why: str) -> None:
        self.failed[stage.title] = why

    def wait(self, stage: Stage, who: str) -> None:
        pass


def table_of(plan: Plan, store: Store) -> str:
    """The run's CSV without the columns that are measured of the machine."""
    summary = summarise(plan, store)
    return pd.read_csv(summary.folder / "leaderboard.csv").drop(columns=list(NOT_MEASURED)).to_csv()
