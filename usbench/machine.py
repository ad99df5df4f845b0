"""What this machine has: devices, instruction sets, cores; and what `auto` means on it. Needs no torch."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from usbench.errors import UsbenchError

MAX_THREADS = 16


def resolve_device(device: str) -> str:
    """cpu or cuda, asked of the driver and not of torch, so that planning stays light."""
    if device != "auto":
        if device == "cuda" and not cuda_devices():
            raise UsbenchError("--device cuda: no CUDA device is visible here; use --device cpu or auto.")
        return device
    return "cuda" if cuda_devices() else "cpu"


def cuda_devices() -> int:
    """How many there are, as the driver says."""
    import ctypes

    try:
        driver = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def resolve_precision(precision: str, device: str) -> str:
    """bf16 on CUDA and on CPUs that multiply it in hardware (AMX, AVX512-BF16), else float32."""
    if precision != "auto":
        return precision
    return "bf16" if device == "cuda" or {"amx_bf16", "avx512_bf16"} & cpu_flags() else "float32"


def cpu_flags() -> set[str]:
    """The processor's instruction sets, where the system tells (Linux on x86)."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return set()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return set(line.partition(":")[2].split())


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_threads(threads: int) -> int:
    """The threads of a computation: those given, else the cores there are, up to 16."""
    return threads or min(available_cores(), MAX_THREADS)
