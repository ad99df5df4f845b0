"""One stage from its lease to its record, in this process."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from usbench.errors import Halt, Refused, UsbenchError, of_system
from usbench.made import EARLIER, here, joined
from usbench.runs.lease import Taken
from usbench.runs.stage import Stage
from usbench.runs.stages import Stages
from usbench.runs.store import Store
from usbench.source import told


class Watch:
    """What a training tells, with the stage's name put to it."""

    def __init__(self, stopping: Callable[[], bool], tell: Callable[..., None]) -> None:
        self._stopping, self._tell = stopping, tell

    @property
    def stopping(self) -> bool:
        """Whether the user asked to stop."""
        return self._stopping()

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        """A training went on."""
        self._tell(done, total, loss, rate)


def do(stage: Stage, store: Store, stages: Stages, watch: Watch, begin: Callable[[], None]) -> bool:
    """Do a stage; `begin` is called once it is ours. False if another process finished it just before."""
    with store.work(stage.id) as folder:
        if store.ready(stage.id):
            return False
        begin()
        began = time.perf_counter()
        plugins = (entry.where for entry in stages.registry.entries())
        with told(stage.title, plugins, more="; 'usbench --debug' shows more", blamed=_made_of(stage)):
            facts = stages.do(stage, folder, watch)
        store.finish(stage.id, _record(stage, facts, time.perf_counter() - began))
        return True


def _made_of(stage: Stage) -> str:
    """The plugins whose code a stage runs, in words."""
    plugins = stage.places["plugins"]
    own = ("loss", "backbone") if stage.kind == "pretrain" else ("protocol", "backbone")
    named = [f"{kind} '{plugins[kind][0]}'" for kind in own]
    named += [f"augmentation '{name}'" for name, _ in plugins["steps"]] if stage.kind == "pretrain" else []
    return " or ".join(named)


def outcome(stage: Stage, store: Store, stages: Stages, watch: Watch, begin: Callable[[], None]) -> dict[str, Any]:
    """Do a stage, and say in plain words what came of it: done, there before, taken by another process, or failed."""
    try:
        computed = do(stage, store, stages, watch, begin)
    except Taken:
        return {"what": "taken"}
    except UsbenchError as error:
        named = {Halt: "halt", Refused: "refused"}
        kind = next((name for of, name in named.items() if isinstance(error, of)), str(error.exit_code))
        return {"what": "failed", "kind": kind, "text": str(error)}
    except OSError as error:
        return {"what": "failed", "kind": "2", "text": str(of_system(error))}
    return {"what": "done" if computed else "there"}


def _record(stage: Stage, facts: dict[str, Any], seconds: float) -> dict[str, Any]:
    made = joined([*facts.pop(EARLIER, []), here()])
    return {
        "schema": 1, "kind": stage.kind, "key": stage.key, "identity": stage.identity, "row": stage.row,
        "facts": {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in facts.items()},
        "seconds": round(seconds, 3), "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(), **made,
    }  # fmt: skip
