"""The local engine: does a plan's missing stages, one after the other or by several workers of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import usbench
from usbench.errors import Interrupted, RunFailed, UsbenchError, of_system
from usbench.hooks import Registry, registry
from usbench.runs.stage import Plan, Stage
from usbench.runs.stages import Stages
from usbench.runs.store import Store

LIBRARIES = ("torch", "torchvision", "lightly", "segmentation-models-pytorch", "timm", "numpy", "scipy")
PARENT_DEATH_SIGNAL = 1  # Linux's PR_SET_PDEATHSIG


class Observer(Protocol):
    """Who watches a plan being done."""

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop."""

    def begin(self, stage: Stage, place: int, total: int) -> None:
        """A stage begins."""

    def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
        """A training went on."""

    def end(self, stage: Stage) -> None:
        """A stage is finished."""


class _Watch:
    """What a training tells, with the stage's name put to it."""

    def __init__(self, stopping: Callable[[], bool], tell: Callable[..., None]) -> None:
        self._stopping, self._tell = stopping, tell

    @property
    def stopping(self) -> bool:
        return self._stopping()

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        self._tell(done, total, loss, rate)


def run_plan(plan: Plan, store: Store, known: Registry, observer: Observer, *, workers: int = 1) -> int:
    """Do what is missing; returns how many stages were missing."""
    todo = [stage for stage in plan.stages if not store.has(stage.id)]
    if workers > 1 and len(todo) > 1:
        _Pool(store, known, observer, min(workers, len(todo))).run(todo, plan)
        return len(todo)
    stages = Stages(store, known)
    for stage in todo:
        observer.begin(stage, plan.stages.index(stage) + 1, len(plan.stages))
        watch = _Watch(lambda: observer.stopping, lambda *facts, stage=stage: observer.step(stage, *facts))
        _do(stage, store, stages, watch)
        observer.end(stage)
        if observer.stopping:
            raise Interrupted(f"{stage.title} is done, and what comes after it is not")
    return len(todo)


def _do(stage: Stage, store: Store, stages: Stages, watch: _Watch) -> None:
    with store.work(stage.id) as folder:
        if store.has(stage.id):  # finished by another process meanwhile
            return
        began = time.perf_counter()
        try:
            facts = stages.do(stage, folder, watch)
        except (UsbenchError, OSError):
            raise
        except Exception as error:  # a stranger's plugin may raise anything
            raise RunFailed(f"{stage.title} failed: {type(error).__name__}: {error}.") from error
        store.finish(stage.id, _record(stage, facts, time.perf_counter() - began))


def _record(stage: Stage, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "schema": 1, "kind": stage.kind, "key": stage.key, "identity": stage.identity, "row": stage.row,
        "facts": {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in facts.items()},
        "seconds": round(seconds, 3), "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(), "machine": platform.machine(), "processor": processor(),
    }  # fmt: skip


def versions() -> dict[str, str]:
    """The versions that a number may depend on."""
    found = {"usbench": usbench.__version__, "python": platform.python_version()}
    for library in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def processor() -> str:
    """What computes here, as far as bytes may depend on it: the processor, what torch uses of it, and the GPU."""
    import torch

    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    parts = [model or platform.processor(), torch.backends.cpu.get_cpu_capability()]
    if torch.cuda.is_initialized():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(filter(None, parts))


class _Pool:
    """Worker processes that are given stages as soon as what these need is done. Small trainings do not gain from
    several threads, so as many run at once as there are cores."""

    def __init__(self, store: Store, known: Registry, observer: Observer, workers: int) -> None:
        self.store, self.observer = store, observer
        context = multiprocessing.get_context("spawn")
        self.stop = context.Event()
        self.workers: dict[Connection, Any] = {}
        self.busy: dict[Connection, Stage] = {}
        self.proven = False  # whether any stage was seen to work
        for _ in range(workers):
            ours, theirs = context.Pipe()
            folders = [str(folder) for folder in known.folders]
            process = context.Process(
                target=_worker, args=(theirs, str(store.root), folders, os.getpid(), self.stop), daemon=True
            )
            process.start()
            theirs.close()
            self.workers[ours] = process

    def run(self, todo: list[Stage], plan: Plan) -> None:
        """Do all stages; on the first failure, or when the user asks, the others save and stop."""
        waiting = sorted(todo, key=_urgency)
        missing = {stage.id for stage in todo}
        failure: UsbenchError | None = None
        begun = len(plan.stages) - len(todo)
        try:
            while self.busy or (waiting and failure is None):
                for connection in self.workers.keys() - self.busy.keys():
                    ready = next((s for s in waiting if not missing.intersection(s.needs)), None)
                    if ready is None or failure is not None or self.observer.stopping:
                        break
                    if self.busy and not self.proven:
                        break  # a bad option shows when the first stage is built, and then nothing else has begun
                    waiting.remove(ready)
                    self.busy[connection] = ready
                    begun += 1
                    self.observer.begin(ready, begun, len(plan.stages))
                    connection.send_bytes(json.dumps(asdict(ready)).encode())
                if self.observer.stopping and failure is None:
                    failure = Interrupted("every training is saved")
                if failure is not None:
                    self.stop.set()
                heard = wait(list(self.busy), timeout=0.2)
                for connection in [c for c in self.busy if c in heard]:
                    heard_failure = self._hear(connection, missing)
                    failure = failure or heard_failure  # what follows the first is only others stopping
        finally:
            self._dismiss()
        if failure is not None:
            raise failure

    def _hear(self, connection: Connection, missing: set[str]) -> UsbenchError | None:
        stage = self.busy[connection]
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            process = self.workers.pop(connection)
            process.join()
            del self.busy[connection]
            return RunFailed(
                f"the worker that did {stage.title} died (exit code {process.exitcode}; killed, or out of memory?): "
                "run the same command again to go on."
            )
        self.proven |= message["what"] != "failed"
        if message["what"] == "step":
            self.observer.step(stage, *message["facts"])
            return None
        del self.busy[connection]
        if message["what"] == "done":
            missing.discard(stage.id)
            self.observer.end(stage)
            return None
        error = Interrupted if message["code"] == 130 else RunFailed if message["code"] == 1 else UsbenchError
        return error(message["text"])

    def _dismiss(self) -> None:
        self.stop.set()
        for connection in self.workers:
            with contextlib.suppress(OSError):
                connection.send_bytes(b"null")
        for process in self.workers.values():
            process.join(30)
            if process.is_alive():
                process.terminate()


def _urgency(stage: Stage) -> tuple[int, int]:
    """Pretrainings first, since most waits for them; then what is short and ready; then the longest training."""
    return {"pretrain": 0, "evaluate": 1, "finetune": 2}[stage.kind], -stage.steps


def _worker(connection: Connection, root: str, folders: list[str], parent: int, stop: Any) -> None:
    """A worker's life: stages in, what happens out. It dies with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    known = registry()
    for folder in folders:
        known.load_folder(Path(folder))
    store = Store(Path(root))
    stages = Stages(store, known)
    importlib.import_module("usbench.train.pretrain")  # seconds, spent while another worker begins

    def say(**message: Any) -> None:
        connection.send_bytes(json.dumps(message).encode())

    watch = _Watch(lambda: bool(stop.is_set()) or os.getppid() != parent, lambda *facts: say(what="step", facts=facts))
    for stage in _stages_from(connection):
        try:
            _do(stage, store, stages, watch)
        except UsbenchError as error:
            say(what="failed", code=error.exit_code, text=str(error))
        except OSError as error:
            say(what="failed", code=2, text=str(of_system(error)))
        else:
            say(what="done")


def _stages_from(connection: Connection) -> Iterator[Stage]:
    while True:
        try:
            given = json.loads(connection.recv_bytes())
        except EOFError:
            return
        if given is None:
            return
        yield Stage(**{**given, "needs": tuple(given["needs"])})
