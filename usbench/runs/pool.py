"""Worker processes of this machine. Small trainings do not gain from several threads, so as many run at once as there
are cores."""

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
from collections.abc import Collection, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from usbench.hooks import Registry, registry
from usbench.runs import lease
from usbench.runs.doing import Watch, outcome
from usbench.runs.stage import Stage, stage_of
from usbench.runs.stages import Stages
from usbench.runs.store import Store

PARENT_DEATH_SIGNAL = 1  # Linux's PR_SET_PDEATHSIG
SAID_LAST = ("taken", "failed", "done", "there")  # of a stage


class Pool:
    """A crew of processes; one that dies is replaced."""

    absent = ""

    def __init__(self, store: Store, known: Registry, pins: Sequence[dict[str, str]]) -> None:
        """One process for each of the environments."""
        self.root = str(store.root)
        self.folders = [str(folder) for folder in known.folders]
        self.context = multiprocessing.get_context("spawn")
        self.stopped = self.context.Event()
        self.workers: dict[Connection, Any] = {}
        self.busy: dict[Connection, str] = {}
        self.pins: dict[Connection, dict[str, str]] = {}
        for pin in pins:
            self._hire(pin)

    def _hire(self, pin: dict[str, str]) -> None:
        ours, theirs = self.context.Pipe()
        arguments = (theirs, self.root, self.folders, os.getpid(), self.stopped, pin)
        process = self.context.Process(target=_worker, args=arguments, daemon=True)
        with nobodys_main():
            process.start()
        theirs.close()
        self.workers[ours], self.pins[ours] = process, pin

    def free(self) -> int:
        """How many have nothing to do."""
        return len(self.workers) - len(self.busy)

    def give(self, stage: Stage, order: dict[str, Any]) -> None:
        """Let one of them do a stage."""
        connection = next(iter(self.workers.keys() - self.busy.keys()))
        self.busy[connection] = stage.id
        with contextlib.suppress(OSError):  # one that died meanwhile is heard of next
            connection.send_bytes(json.dumps(order).encode())

    def hear(self, seconds: float) -> list[tuple[str, dict[str, Any]]]:
        """One word of each who said something."""
        if not self.busy:
            time.sleep(seconds)
        return [self._hear(c) for c in wait(list(self.busy), timeout=seconds) if isinstance(c, Connection)]

    def _hear(self, connection: Connection) -> tuple[str, dict[str, Any]]:
        stage_id = self.busy[connection]
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            process, pin = self.workers.pop(connection), self.pins.pop(connection)
            del self.busy[connection]
            process.join()
            if not self.stopped.is_set():
                self._hire(pin)
            return stage_id, {"what": "died", "how": f"exit code {process.exitcode}"}
        if message["what"] in SAID_LAST:
            del self.busy[connection]
        return stage_id, message

    def stop(self) -> None:
        """Ask all to save and stop."""
        self.stopped.set()

    def drop(self, stages: Collection[str]) -> None:
        """End those who were given these."""
        for connection, stage_id in self.busy.items():
            if stage_id in stages:
                self.workers[connection].kill()

    def kill(self) -> None:
        """End those who still work."""
        self.drop(self.busy.values())

    def dismiss(self, *, asked: bool) -> None:
        """Let all go; who does not leave is ended."""
        self.stopped.set()
        for connection in self.workers:
            with contextlib.suppress(OSError):
                connection.send_bytes(b"null")
        deadline = time.monotonic() + (1 if asked else 30)  # who was asked and is idle has nothing to lose
        for process in self.workers.values():
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()


@contextlib.contextmanager
def nobodys_main() -> Iterator[None]:
    """Let a process start without importing the program that started it. Workers need nothing of it, and a script that
    calls `usbench.run` outside of `if __name__ == "__main__"` would begin anew in each of them."""
    main = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(hidden)


def _worker(connection: Connection, root: str, folders: list[str], parent: int, stop: Any, pin: dict[str, str]) -> None:
    """A worker's life: stages in, what happens out. It dies with its parent."""
    os.environ.update(pin)  # before torch is imported, which reads it
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
        connection.send_bytes(json.dumps(outcome(stage, store, stages, watch, lambda: say("begun"))).encode())


def _stages_from(connection: Connection) -> Iterator[Stage]:
    while True:
        try:
            given = json.loads(connection.recv_bytes())
        except EOFError:
            return
        if given is None:
            return
        lease.believe(given["watched"])
        yield stage_of(given["stage"])
