"""How far a whole run or suite is: done, there before, in work, failed, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Iterable

from usbench.api.outlook import clock
from usbench.runs.agenda import missing
from usbench.runs.stage import Stage
from usbench.runs.store import Store
from usbench.runs.timing import Kind, Known, kind_of


class Tally:
    """Counts stages as they begin and end, and learns from each how long its like takes."""

    def __init__(self, stages: Iterable[Stage], store: Store, workers: int = 1) -> None:
        self.stages = {stage.id: stage for stage in stages}
        self.workers = max(1, workers)
        self.there = self.stages.keys() - {stage.id for stage in missing(self.stages.values(), store)}
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.running: dict[str, tuple[float, float]] = {}  # since when, and the share that is done
        self.known = Known.of([store])

    def begin(self, stage: Stage) -> None:
        """A stage begins."""
        self.running[stage.id] = time.monotonic(), 0.0

    def step(self, stage: Stage, done: int, total: int) -> None:
        """A stage went on."""
        if stage.id in self.running:
            self.running[stage.id] = self.running[stage.id][0], done / max(1, total)

    def end(self, stage: Stage) -> None:
        """A stage is finished."""
        since, _ = self.running.pop(stage.id, (None, 0.0))
        self.done.add(stage.id)
        if since is not None:
            took = (time.monotonic() - since) / max(1, stage.steps)
            self.known.seconds.setdefault(_kind(stage), []).append(took)

    def fail(self, stage: Stage) -> None:
        """A stage failed."""
        self.running.pop(stage.id, None)
        self.failed.add(stage.id)

    def left(self) -> float | None:
        """Seconds until all is done, if these workers do it; None while a kind of training is unknown."""
        units: dict[Kind, float | None] = {}
        total = 0.0
        for name in self.stages.keys() - self.there - self.done - self.failed:
            stage = self.stages[name]
            kind = _kind(stage)
            if kind not in units:
                units[kind] = self.known.unit(kind)[0]
            unit = units[kind]
            if unit is None and stage.steps:
                return None
            total += (unit or 0.0) * max(1, stage.steps) * (1 - self.running.get(name, (0.0, 0.0))[1])
        return total / self.workers

    def __str__(self) -> str:
        """Everything in a line."""
        came = len(self.done | self.there)
        parts = [f"{came} of {len(self.stages)} stages done"]
        parts[0] += f" ({len(self.there)} were there)" if self.there else ""
        parts += [f"{len(self.running)} running"] if self.running else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        seconds = self.left() if came + len(self.failed) < len(self.stages) else None
        return ", ".join([*parts, f"about {clock(seconds)} left"] if seconds else parts)


def _kind(stage: Stage) -> Kind:
    return kind_of(stage.identity, stage.row)
