"""How much memory a feed may fill: a share of what is free, or what the user says. No key and no result hangs on it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from usbench.data.place import SHARERS
from usbench.errors import UsbenchError

SETTING = "USBENCH_FEED_MIB"
DEVICE_SHARE = 0.5  # of a GPU's free memory, for all who share it; networks and activations need the rest
HOST_SHARE = 0.25  # of the free memory of this machine, which other stages may run on too
ROOT = Path("/")


def room(device: torch.device) -> int:
    """How many bytes of images a feed may hold on a device; what is larger is read batch by batch."""
    if said := os.environ.get(SETTING):
        return _bytes(said)
    if device.type == "cuda":
        return int(DEVICE_SHARE * torch.cuda.mem_get_info(device)[0] / int(os.environ.get(SHARERS, "1")))
    return int(HOST_SHARE * free_memory())


def _bytes(said: str) -> int:
    try:
        mib = float(said)
    except ValueError:
        mib = math.nan
    if not 0 <= mib < math.inf:
        raise UsbenchError(
            f"{SETTING} is '{said}': give the MiB of images that may be held in memory, such as 4096, or unset it."
        )
    return int(mib * 2**20)


def free_memory() -> int:
    """Bytes of memory that can be had without swapping, or half of all where that is not known; no more than a job or
    a container may have."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    with suppress(OSError):
        lines = (ROOT / "proc/meminfo").read_text("ascii").splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")] or found
    return min([*found, *_limits()])


def _limits() -> Iterator[int]:
    """The limits of the control groups that this process is in, of either version, and of those around them."""
    with suppress(OSError):
        for line in (ROOT / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            top, file = (Path("memory"), "memory.limit_in_bytes") if kinds else (Path(), "memory.max")
            inner = top / path.strip("/")
            for folder in (inner, *inner.parents):
                with suppress(OSError, ValueError):  # not there, or "max"
                    yield int((ROOT / "sys/fs/cgroup" / folder / file).read_text("ascii"))
