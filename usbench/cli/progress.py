"""How long work shows: a live display on a terminal, plain lines into a pipe."""

from __future__ import annotations

import signal
import time
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0  # between two lines about the same stage


class Display:
    """Shows stages and steps, and turns the first Ctrl-C into a request to save and stop."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stopping = False
        self.live = console.is_terminal
        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=18), TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(compact=True), console=console, transient=True, disable=not self.live,
        )  # fmt: skip
        self.task: Any = None
        self.title = ""
        self.printed = 0.0
        self.before: Any = None

    def __enter__(self) -> Display:
        self.before = signal.signal(signal.SIGINT, self._interrupt)
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()
        signal.signal(signal.SIGINT, self.before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True

    def making(self, what: str, done: int, total: int | None) -> None:
        """A data set is being made or imported."""
        title = f"making {what}"
        if title != self.title:
            self._begin(title, total or 0, title)
        if self.stopping:
            raise KeyboardInterrupt
        if self.live:
            self.progress.update(self.task, completed=done, facts=f"{done} images")

    def stage(self, place: int, total: int, title: str, steps: int) -> None:
        """A stage begins."""
        self._begin(f"stage {place} of {total}: {title}", steps, title)

    def _begin(self, line: str, steps: int, title: str) -> None:
        self.title, self.printed = title, time.monotonic()
        if not self.live:
            self.console.print(line, highlight=False, soft_wrap=True, markup=False)
            return
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.progress.add_task(line, total=steps or None, facts="")

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        """A training went on."""
        facts = f"loss {loss:.3f}  {rate:,.0f} images/s"
        if self.live:
            self.progress.update(self.task, completed=done, facts=facts)
        elif time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            self.console.print(f"  {self.title}: step {done} of {total}  {facts}", highlight=False, soft_wrap=True)
