"""What a dask worker does: one stage at a time, as every other worker does it, with the store as the only truth.

`dask worker --preload usbench.runs.hand …` makes a worker that saves what it is at before a cluster takes its machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from usbench.errors import UsbenchError
from usbench.hooks import Registry, registry
from usbench.runs import lease
from usbench.runs.doing import Watch, outcome
from usbench.runs.same import check_code, note_code
from usbench.runs.stage import stage_of
from usbench.runs.stages import Stages
from usbench.runs.store import Store

SAVE_SECONDS = 8.0  # a worker that is told to go waits so long for its stage to be saved
EVERYBODY = ""

_stopped: set[str] = set()  # whose stages are to be saved and left
_one_at_a_time = threading.Lock()  # seeds are of the whole process


def work(order: dict[str, Any], topic: str) -> dict[str, Any]:
    """Do the stage of an order and say what came of it. Steps are told under a topic meanwhile."""
    from distributed import get_worker

    stage, worker = stage_of(order["stage"]), get_worker()

    def say(what: str, **message: Any) -> None:
        worker.log_event(topic, {"stage": stage.id, "what": what, **message})

    watch = Watch(lambda: not _stopped.isdisjoint((topic, EVERYBODY)), lambda *facts: say("step", facts=facts))
    # Paths that were typed without a root are those of the folder in which the suite was started.
    with _one_at_a_time, contextlib.chdir(order["folder"]):
        lease.believe(order["watched"])
        store = Store(Path(order["root"]))
        try:
            store.check_schema()
            known = _loaded(tuple(order["plugins"]))
            check_code(stage.identity, known)
        except UsbenchError as error:
            return {"what": "failed", "kind": "halt", "text": f"a worker on {socket.gethostname()} says: {error}"}
        return outcome(stage, store, Stages(store, known), watch, lambda: say("begun"))


async def ask_to_stop(topic: str) -> None:
    """Let the stages that were given under a topic be saved and left."""
    _stopped.add(topic)


@functools.cache
def _loaded(folders: tuple[str, ...]) -> Registry:
    """The plugins of this process. Their sources are read now: an edit after this is not what is loaded."""
    known = registry()
    for folder in folders:
        known.load_folder(Path(folder))
    note_code(known)
    return known


def dask_setup(worker: Any) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process of a group; here it is others who say when to go."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


async def dask_teardown(worker: Any) -> None:
    """Before a worker leaves, its stage is saved."""
    _stopped.add(EVERYBODY)
    deadline = time.monotonic() + SAVE_SECONDS
    while _one_at_a_time.locked() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
