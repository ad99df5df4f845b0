"""Who does the stages: this machine, or dask's workers."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usbench.errors import UsbenchError, unknown

if TYPE_CHECKING:
    from usbench.runs.cluster import Cluster

NAMES = ("local", "dask")


def cluster_of(
    engine: str, workers: int | None, scheduler: str | None, scheduler_file: Any
) -> AbstractContextManager[Cluster | None]:
    """The cluster that is asked for; nothing where this machine does all. dask is imported only where it is used."""
    if workers is not None and (type(workers) is not int or workers < 1):
        raise UsbenchError(f"workers={workers!r}: give how many stages run at once, 1 or more.")
    if engine not in NAMES:
        raise unknown("engine", engine, NAMES)
    if engine == "dask":
        from usbench.runs.cluster import Cluster

        return Cluster(workers, scheduler, None if scheduler_file is None else Path(scheduler_file))
    if scheduler is not None or scheduler_file is not None:
        said = "--scheduler" if scheduler is not None else "--scheduler-file"
        raise UsbenchError(f"{said} names dask's workers: give --engine dask too.")
    return contextlib.nullcontext()
