"""How much memory a feed may fill: a share of what is free, or what the user says. No key and no result hangs on it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

from usbench.errors import UsbenchError

SETTING = "USBENCH_FEED_MIB"
DEVICE_SHARE = 0.5  # of a GPU's free memory; the network and its activations need the rest
HOST_SHARE = 0.25  # of the free memory of this machine, which other stages may run on too
MEMINFO = Path("/proc/meminfo")


def room(device: torch.device) -> int:
    """How many bytes of images a feed may hold on a device; what is larger is read batch by batch."""
    if said := os.environ.get(SETTING):
        return _bytes(said)
    if device.type == "cuda":
        return int(DEVICE_SHARE * torch.cuda.mem_get_info(device)[0])
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
    """Bytes of this machine's memory that can be had without swapping; where that is not known, half of all."""
    if MEMINFO.is_file():
        for line in MEMINFO.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
