"""One stage from its lease to its record, in this process."""

from __future__ import annotations

import contextlib
import math
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import usbench
from usbench.errors import Halt, RunFailed, UsbenchError, of_system
from usbench.runs.lease import Taken
from usbench.runs.stage import Stage
from usbench.runs.stages import Stages
from usbench.runs.store import Store

LIBRARIES = (
    "torch", "torchvision", "lightly", "segmentation-models-pytorch", "timm", "numpy", "scipy", "scikit-learn",
    "pandas",
)  # fmt: skip


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
        if store.has(stage.id):
            return False
        begin()
        began = time.perf_counter()
        try:
            facts = stages.do(stage, folder, watch)
        except (UsbenchError, OSError):
            raise
        except Exception as error:  # a stranger's plugin may raise anything
            raise RunFailed(f"{stage.title} failed: {type(error).__name__}: {error}.") from error
        store.finish(stage.id, _record(stage, facts, time.perf_counter() - began))
        return True


def outcome(stage: Stage, store: Store, stages: Stages, watch: Watch, begin: Callable[[], None]) -> dict[str, Any]:
    """Do a stage, and say in plain words what came of it: done, there before, taken by another process, or failed."""
    try:
        computed = do(stage, store, stages, watch, begin)
    except Taken:
        return {"what": "taken"}
    except UsbenchError as error:
        kind = "halt" if isinstance(error, Halt) else str(error.exit_code)
        return {"what": "failed", "kind": kind, "text": str(error)}
    except OSError as error:
        return {"what": "failed", "kind": "2", "text": str(of_system(error))}
    return {"what": "done" if computed else "there"}


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
