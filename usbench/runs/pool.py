"""Worker processes that are given stages as soon as what these need is done. Small trainings do not gain from several
threads, so as many run at once as there are cores."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usbench.errors import Halt, Interrupted, RunFailed, UsbenchError, of_system
from usbench.hooks import Registry, registry
from usbench.runs import lease
from usbench.runs.agenda import Agenda
from usbench.runs.doing import Watch, do
from usbench.runs.stage import Stage
from usbench.runs.stages import Stages
from usbench.runs.store import Store

if TYPE_CHECKING:
    from usbench.runs.engines import Observer

PARENT_DEATH_SIGNAL = 1  # Linux's PR_SET_PDEATHSIG
GRACE_SECONDS = 7.0  # what has not saved and left so long after it was asked to goes back to its last checkpoint
LISTEN_SECONDS = 0.2
DEATHS = 2  # of its workers, and a stage has failed


def urgency(stage: Stage) -> tuple[int, int]:
    """Pretrainings first, since most waits for them; then what is short and ready; then the longest training."""
    return {"pretrain": 0, "evaluate": 1, "finetune": 2}[stage.kind], -stage.steps


class Pool:
    """Does an agenda by several processes. The store alone says what is done."""

    def __init__(
        self, store: Store, known: Registry, observer: Observer, agenda: Agenda, workers: int, *, fail_fast: bool
    ) -> None:
        self.store, self.observer, self.agenda, self.fail_fast = store, observer, agenda, fail_fast
        self.folders = [str(folder) for folder in known.folders]
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.Event()
        self.asked: float | None = None  # when all were asked to save and stop
        self.failure: UsbenchError | None = None  # what ends everything
        self.workers: dict[Connection, Any] = {}
        self.busy: dict[Connection, Stage] = {}
        self.begun: set[str] = set()
        self.deaths: dict[str, int] = {}
        self.told: set[str] = set()
        for _ in range(workers):
            self._hire()

    def _hire(self) -> None:
        ours, theirs = self.context.Pipe()
        arguments = (theirs, str(self.store.root), self.folders, os.getpid(), self.stop)
        process = self.context.Process(target=_worker, args=arguments, daemon=True)
        with _nobodys_main():
            process.start()
        theirs.close()
        self.workers[ours] = process

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
                if not self.busy:
                    time.sleep(LISTEN_SECONDS)
                heard = wait(list(self.busy), timeout=LISTEN_SECONDS)
                look = bool(heard)
                for connection in [c for c in self.busy if c in heard]:
                    self._hear(connection)
        finally:
            self._dismiss()
        if self.failure is not None:
            raise self.failure
        return self.agenda.close()

    def _stop(self) -> None:
        """Ask all to save and stop; those who take too long are ended."""
        self.stop.set()
        self.asked = self.asked or time.monotonic()
        if time.monotonic() - self.asked > GRACE_SECONDS:
            for connection in self.busy:
                self.workers[connection].kill()

    def _give(self) -> None:
        """A stage for every worker that has none, as far as there are some."""
        for connection in self.workers.keys() - self.busy.keys():
            if self.busy and not self.agenda.proven:
                return  # a bad option shows when the first stage is built, and then nothing else has begun
            stage = self.agenda.next()
            if stage is None:
                break
            self.busy[connection] = stage
            given = {"stage": asdict(stage), "watched": lease.watched}
            with contextlib.suppress(OSError):  # one that died meanwhile is heard of next
                connection.send_bytes(json.dumps(given).encode())
        if not self.busy:
            for other, owner in self.agenda.elsewhere.values():
                if other.id not in self.told:
                    self.told.add(other.id)
                    self.observer.wait(other, str(owner))

    def _hear(self, connection: Connection) -> None:
        stage = self.busy[connection]
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            self._bury(connection)
            return
        what = message["what"]
        if what == "begun":
            if stage.id not in self.begun:
                self.begun.add(stage.id)
                self.observer.begin(stage, *self.agenda.begin())
            return
        if what == "step":
            self.agenda.proven = True
            self.observer.step(stage, *message["facts"])
            return
        del self.busy[connection]
        if what == "taken":
            self.agenda.again(stage)
        elif what == "failed":
            kinds = {"halt": Halt, "130": Interrupted, "1": RunFailed}
            self._fail(stage, kinds.get(message["kind"], UsbenchError)(message["text"]))
        else:
            self.agenda.end(stage, computed=what == "done")
            if what == "done":
                self.observer.end(stage)

    def _bury(self, connection: Connection) -> None:
        """A worker died: its stage is begun once more by another one."""
        stage, process = self.busy.pop(connection), self.workers.pop(connection)
        process.join()
        self.deaths[stage.id] = self.deaths.get(stage.id, 0) + 1
        if self.failure is not None:
            self.agenda.again(stage)
            return
        self._hire()
        if self.deaths[stage.id] < DEATHS:
            self.agenda.again(stage)
            return
        self._fail(
            stage,
            RunFailed(
                f"the worker that did {stage.title} died (exit code {process.exitcode}; killed, or out of memory?), "
                "and so did the one before it: run the same command again to go on."
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

    def _dismiss(self) -> None:
        self.stop.set()
        for connection in self.workers:
            with contextlib.suppress(OSError):
                connection.send_bytes(b"null")
        deadline = time.monotonic() + (2 if self.asked else 30)
        for process in self.workers.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()


@contextlib.contextmanager
def _nobodys_main() -> Iterator[None]:
    """Let a process start without importing the program that started it. Workers need nothing of it, and a script that
    calls `usbench.run` outside of `if __name__ == "__main__"` would begin anew in each of them."""
    main = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def _worker(connection: Connection, root: str, folders: list[str], parent: int, stop: Any) -> None:
    """A worker's life: stages in, what happens out. It dies with its parent."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    known = registry()
    for folder in folders:
        known.load_folder(Path(folder))
    store = Store(Path(root))
    stages = Stages(store, known)
    importlib.import_module("usbench.train.pretrain")  # seconds, spent while another worker begins

    def say(what: str, **message: Any) -> None:
        connection.send_bytes(json.dumps({"what": what, **message}).encode())

    watch = Watch(lambda: bool(stop.is_set()) or os.getppid() != parent, lambda *facts: say("step", facts=facts))
    for stage in _stages_from(connection):
        try:
            computed = do(stage, store, stages, watch, lambda: say("begun"))
        except lease.Taken:
            say("taken")
        except UsbenchError as error:
            say("failed", kind="halt" if isinstance(error, Halt) else str(error.exit_code), text=str(error))
        except OSError as error:
            say("failed", kind="2", text=str(of_system(error)))
        else:
            say("done" if computed else "there")


def _stages_from(connection: Connection) -> Iterator[Stage]:
    while True:
        try:
            given = json.loads(connection.recv_bytes())
        except EOFError:
            return
        if given is None:
            return
        lease.watched.update({token: (beat, since) for token, (beat, since) in given["watched"].items()})
        yield Stage(**{**given["stage"], "needs": tuple(given["stage"]["needs"])})
