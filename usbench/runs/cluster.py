"""A crew of dask workers: on this machine, one for each GPU or for each share of the cores, or those of a scheduler.

The scheduler is asked for nothing but to bring a stage to a worker and to bring back what it says. What is done stands
in the store, so when the scheduler dies, nothing is lost but the work on the way since the last checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import uuid
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from usbench.errors import RunFailed, UsbenchError
from usbench.hooks import Registry
from usbench.runs.hand import ask_to_stop, work
from usbench.runs.pool import nobodys_main
from usbench.runs.shares import pins
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store

LOOPBACK = "127.0.0.1"
CONNECT_SECONDS = 10.0
CLOSE_SECONDS = 2.0
START_SECONDS = 60.0  # for workers of this machine, which import dask
QUIET = ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler", "distributed.core",
         "distributed.client", "distributed.comm", "distributed.batched", "tornado.application")  # fmt: skip


class Cluster:
    """Where dask workers are. Used in a `with`; nothing begins before the first stage is to be done."""

    def __init__(self, workers: int | None = None, scheduler: str | None = None, file: Path | None = None) -> None:
        if find_spec("distributed") is None:
            raise UsbenchError(
                "--engine dask needs dask.distributed, which is not here: pip install 'usbench[cluster]'."
            )
        if scheduler is not None and file is not None:
            raise UsbenchError("--scheduler and --scheduler-file exclude each other: give one.")
        self.workers = workers
        self.address = scheduler if file is None else _address_in(file)
        self.ours: Any = None
        self.client: Any = None
        self.hidden = contextlib.ExitStack()

    def __enter__(self) -> Cluster:
        for name in QUIET:  # what happens is said in our own words
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the scheduler. Workers that we began end at once: what they had to keep is in the store."""
        for nanny in self.ours.workers.values() if self.ours is not None else ():
            nanny.auto_restart = False
            with contextlib.suppress(OSError, TypeError):  # it is no more
                os.kill(nanny.pid, signal.SIGKILL)
        for each in (self.client, self.ours):
            if each is not None:
                with contextlib.suppress(Exception):  # what is gone already
                    each.close(timeout=CLOSE_SECONDS)
        self.client = self.ours = None
        self.hidden.close()

    def crew(self, plan: Plan, store: Store, known: Registry, workers: int) -> Hands:
        """Workers for a plan; those of this machine are begun the first time."""
        if not known.travels:
            raise UsbenchError(
                "--engine dask: a plugin that was handed over as an object does not travel to workers: "
                "write it to a file, and name its folder with --plugins-dir."
            )
        if self.client is None:
            self._begin(plan, self.workers or workers)
        return Hands(self, store, known)

    def _begin(self, plan: Plan, workers: int) -> None:
        import dask
        from distributed import Client

        dask.config.set({"distributed.scheduler.allowed-failures": 0})  # when a stage has failed is said here
        if self.address is None:
            self.hidden.enter_context(nobodys_main())  # workers may be begun anew as long as it lasts
            self.ours = _local(plan, self.workers, workers)
        where = self.address or self.ours.scheduler_address
        try:
            self.client = Client(where, timeout=CONNECT_SECONDS, set_as_default=False)
            if self.ours is not None:
                self.client.wait_for_workers(1, timeout=START_SECONDS)
        except (OSError, ValueError, ImportError, TypeError) as error:
            why = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            raise UsbenchError(
                f"no dask scheduler answers at {where} ({why[:200]}): start it, or give the address that it printed."
            ) from None


def _address_in(file: Path) -> str:
    try:
        return str(json.loads(file.read_text("utf-8"))["address"])
    except OSError as error:
        raise UsbenchError(
            f"--scheduler-file {file} cannot be read ({error.strerror}): 'dask scheduler' writes it."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UsbenchError(f"--scheduler-file {file} was not written by a dask scheduler: start one with it.") from None


def _local(plan: Plan, wanted: int | None, fitting: int) -> Any:
    """A scheduler and workers that nobody reaches from outside this machine."""
    from distributed import Nanny, Scheduler, SpecCluster

    # Even without a dashboard there is a web server, which would listen to everybody.
    private = {"host": LOOPBACK, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    options = {
        **private, "nthreads": 1, "memory_limit": 0, "preload": ["usbench.runs.hand"],
        "silence_logs": logging.CRITICAL,
    }  # fmt: skip
    spec = {
        place: {"cls": Nanny, "options": {**options, "env": pin}}
        for place, pin in enumerate(pins(plan.stages, wanted, fitting))
    }
    scheduler = {"cls": Scheduler, "options": {**private, "port": 0}}
    return SpecCluster(workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL)


class Hands:
    """A crew of dask workers."""

    def __init__(self, cluster: Cluster, store: Store, known: Registry) -> None:
        self.cluster, self.client = cluster, cluster.client
        self.order = {
            "root": str(store.root.absolute()), "folder": str(Path.cwd()),
            "plugins": [str(folder) for folder in known.folders],
        }  # fmt: skip
        self.topic = f"usbench-{uuid.uuid4().hex}"
        self.said: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue()
        self.busy: dict[str, tuple[str, Any]] = {}  # stage → worker and future
        self.client.subscribe_topic(self.topic, self._told)

    def _told(self, event: Any) -> None:
        message = dict(event[1])
        self.said.put((message.pop("stage"), message))

    def _idle(self) -> list[str]:
        """Workers with nothing to do; none where the scheduler is gone, which is said when we listen."""
        try:
            here = self.client.nthreads()
        except (OSError, RuntimeError, AttributeError, TimeoutError):
            return []
        taken = {worker for worker, _ in self.busy.values()}
        most = len(here) if self.cluster.workers is None else self.cluster.workers
        return [worker for worker in here if worker not in taken][: max(0, most - len(taken))]

    def free(self) -> int:
        """How many have nothing to do."""
        return len(self._idle())

    @property
    def absent(self) -> str:
        """Who has to come; empty where somebody is there."""
        return "" if self._idle() else f"the first worker to come to {self.client.scheduler.address}"

    def give(self, stage: Stage, order: dict[str, Any]) -> None:
        """Let one of them do a stage."""
        idle = self._idle()
        if not idle:
            self.said.put((stage.id, {"what": "taken"}))  # it left meanwhile
            return
        name = f"{stage.id}-{uuid.uuid4().hex[:8]}"
        future = self.client.submit(work, {**self.order, **order}, self.topic, key=name, pure=False, retries=0,
                                    workers=[idle[0]], allow_other_workers=False)  # fmt: skip
        self.busy[stage.id] = idle[0], future
        future.add_done_callback(lambda _: self.said.put(None))  # so that nobody listens on to an end

    def hear(self, seconds: float) -> list[tuple[str, dict[str, Any]]]:
        """What was said since, and whose stage ended."""
        if self.client.status != "running" and self.cluster.client is not None:
            raise RunFailed(
                "the dask scheduler is gone: start it and run the same command again; finished stages are kept, "
                "and what was begun goes on from its last checkpoint."
            )
        said = []
        with contextlib.suppress(queue.Empty):
            said.append(self.said.get(timeout=seconds))
            while True:
                said.append(self.said.get_nowait())
        heard = [message for message in said if message is not None]
        here: Any = None
        for stage_id, (worker, future) in list(self.busy.items()):
            if future.done():
                del self.busy[stage_id]
                heard.append((stage_id, _ending(future)))
                continue
            with contextlib.suppress(OSError, RuntimeError, AttributeError, TimeoutError):
                here = self.client.nthreads() if here is None else here
                if worker not in here:
                    del self.busy[stage_id]
                    future.cancel(force=True)
                    heard.append((stage_id, {"what": "died", "how": f"dask worker {worker}"}))
        return heard

    def stop(self) -> None:
        """Ask all who work to save and stop."""
        if self.busy:
            with contextlib.suppress(OSError, RuntimeError, TimeoutError):
                self.client.run(
                    ask_to_stop, self.topic, workers=[worker for worker, _ in self.busy.values()], wait=False
                )

    def drop(self, stages: Collection[str]) -> None:
        """Take these back; a worker that begins one nevertheless was asked to stop, and leaves it at once."""
        for stage_id in self.busy.keys() & stages:
            _, future = self.busy.pop(stage_id)
            future.cancel()
            self.said.put((stage_id, {"what": "taken"}))

    def kill(self) -> None:
        """End those who still work; the workers of others save and stop when they come to it."""
        given, self.busy = list(self.busy), {}
        self.cluster.close()
        for stage_id in given:
            self.said.put((stage_id, {"what": "taken"}))

    def dismiss(self, *, asked: bool) -> None:
        """Forget what was given; the workers stay until the cluster is closed."""
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            self.stop()
            self.client.unsubscribe_topic(self.topic)


def _ending(future: Any) -> dict[str, Any]:
    """What came of a stage, also where its worker could not say so."""
    from distributed import CancelledError, KilledWorker

    try:
        return future.result(timeout=CONNECT_SECONDS)
    except (KilledWorker, CancelledError, OSError, TimeoutError) as error:
        return {"what": "died", "how": f"dask worker, {type(error).__name__}"}
    except Exception as error:  # noqa: BLE001 - a worker with other libraries may raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")
        return {"what": "failed", "kind": "halt", "text": f"a dask worker cannot do stages ({text}): is usbench there?"}
