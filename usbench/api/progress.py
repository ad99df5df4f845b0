"""How far work is: a live display on a terminal or in a notebook, plain lines into a pipe."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from usbench.api.tally import Tally
from usbench.errors import Interrupted
from usbench.runs.stage import Stage

PLAIN_SECONDS = 10.0  # between two lines about the same stage
GRACE_SECONDS = 8.0  # after which what is still busy, and has not saved, goes back to its last checkpoint
ASKS = (signal.SIGINT, signal.SIGTERM)


class _Left(TimeRemainingColumn):
    """The time that a stage still takes; that of all of them is known otherwise."""

    def render(self, task: Task) -> Text:
        return Text("") if task.fields.get("whole") else super().render(task)


class Display:
    """Shows stages and steps, and turns the first Ctrl-C or SIGTERM into a request to save and stop.

    The exit code is then 130 or 143, as of a process that the signal ended.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.stopping = False
        # A notebook needs its widgets to draw a line anew.
        self.live = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
        self.progress = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=18),
            TextColumn("{task.fields[facts]}"), _Left(compact=True),
            console=console, transient=True, disable=not self.live,
        )  # fmt: skip
        self.tasks: dict[str, Any] = {}
        self.printed: dict[str, float] = {}
        self.before: dict[int, Any] = {}
        self.signal = 0
        self.tally: Tally | None = None  # of all stages, where it is known which they are
        self.whole: Any = None
        self.said = 0.0  # when the tally was told the last time

    def __enter__(self) -> Display:
        if threading.current_thread() is threading.main_thread():  # another one is never interrupted
            self.before = {number: signal.signal(number, self._interrupt) for number in ASKS}
        self.progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.signal and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.progress.stop()
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if isinstance(error, Interrupted) and self.signal:
            error.exit_code = 128 + self.signal

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            if number == signal.SIGTERM:
                return  # schedulers repeat themselves
            raise KeyboardInterrupt
        self.stopping, self.signal = True, number
        if hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self._leave)
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS, 1)
        for task in self.tasks.values():
            self.progress.update(task, facts="saving …")

    def _leave(self, number: int, frame: FrameType | None) -> None:
        raise Interrupted("what was still busy goes back to its last checkpoint")

    def making(self, what: str, done: int, total: int | None) -> None:
        """A data set is being made or imported."""
        if self.stopping:
            raise Interrupted("stopped; run the same command again to go on.")
        if what not in self.printed:
            self._open(what, f"making {what}", total)
        self._move(what, done, f"{done} images")
        if done == total:
            self._close(what)

    def expect(self, tally: Tally) -> None:
        """Show how far all of it is, too."""
        self.tally, self.said = tally, time.monotonic()
        if self.live:
            self.whole = self.progress.add_task("", total=len(tally.stages), facts="", whole=True)
            self._count()

    def _count(self) -> None:
        if self.tally is None:
            return
        if self.live:
            came = len(self.tally.done | self.tally.there)
            self.progress.update(self.whole, description=str(self.tally), completed=came)
        elif time.monotonic() - self.said > PLAIN_SECONDS:
            self.said = time.monotonic()
            self.console.print(f"  {self.tally}", highlight=False, soft_wrap=True, markup=False)

    def begin(self, stage: Stage, place: int, total: int) -> None:
        """A stage begins."""
        if self.tally is not None:
            self.tally.begin(stage)
            self._count()
        self._open(stage.id, f"stage {place} of {total}: {stage.title}", stage.steps or None)

    def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
        """A training went on."""
        facts = f"loss {loss:.3f}  {rate:,.0f} images/s"
        if self.tally is not None:
            self.tally.step(stage, done, total)
            self._count()
        self._move(stage.id, done, facts, f"  {stage.title}: step {done} of {total}  {facts}")

    def end(self, stage: Stage) -> None:
        """A stage is finished."""
        self._close(stage.id)
        if self.tally is not None:
            self.tally.end(stage)
            self._count()

    def fail(self, stage: Stage, why: str) -> None:
        """A stage failed, and what does not need it goes on."""
        if stage.id in self.printed:
            self._close(stage.id)
        if self.tally is not None:
            self.tally.fail(stage)
        self.console.print(f"failed: {' '.join(why.split())}", highlight=False, soft_wrap=True, markup=False)

    def wait(self, stage: Stage, who: str) -> None:
        """Nothing is left but what another process does."""
        line = f"waiting for {stage.title}, which {who} does"
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _open(self, name: str, line: str, total: int | None) -> None:
        self.printed[name] = time.monotonic()
        if self.live:
            self.tasks[name] = self.progress.add_task(line, total=total, facts="")
        else:
            self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _move(self, name: str, done: int, facts: str, line: str = "") -> None:
        if self.live:
            self.progress.update(self.tasks[name], completed=done, facts=facts)
        elif line and time.monotonic() - self.printed[name] > PLAIN_SECONDS:
            self.printed[name] = time.monotonic()
            self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def _close(self, name: str) -> None:
        self.printed.pop(name, None)
        if self.live:
            task = self.tasks.pop(name, None)
            if task is not None:
                self.progress.remove_task(task)


@contextlib.contextmanager
def shown(console: Console, tally: Tally) -> Iterator[Display]:
    """A display of stages that are done; what was interrupted says how to go on."""
    with Display(console) as display:
        try:
            display.expect(tally)
            yield display
        except Interrupted as stop:
            raise Interrupted(f"stopped: {stop}; run the same command again to go on.") from None


def say(console: Console, text: str) -> None:
    """A line that is not cut or coloured; nothing where there is none."""
    if text:
        console.print(text, highlight=False, markup=False, soft_wrap=True)
