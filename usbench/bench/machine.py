"""On what a number was measured. Without this it means nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from usbench.machine import available_cores, cpu_flags, resolve_precision
from usbench.made import versions

FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "asimd")  # that decide how fast a CPU multiplies
BUSY = 0.5  # a load above this share of the cores disturbs what is measured


def machine(device: str, threads: int) -> dict[str, Any]:
    """The processor, its instruction sets, cores and memory, the GPU, libraries, and how busy it was."""
    import torch

    found: dict[str, Any] = {
        "cpu": _model(), "flags": [flag for flag in FLAGS if flag in cpu_flags()], "cores": available_cores(),
        "threads": threads, "memory_gib": _memory_gib(), "load": load(), "system": platform.platform(),
        "device": device, "auto_precision": resolve_precision("auto", device), "versions": versions(),
    }  # fmt: skip
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = properties.name
        found["gpu_memory_gib"] = round(properties.total_memory / 2**30, 1)
        found["cuda"] = torch.version.cuda
        found["tf32"] = torch.get_float32_matmul_precision() != "highest"
    return found


def load() -> float | None:
    """How many processes ran or waited during the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def disturbed(found: dict[str, Any]) -> str:
    """A sentence where the machine was busy before anything was measured; else nothing."""
    if found["load"] is None or found["load"] <= BUSY * found["cores"]:
        return ""
    return f"The machine was busy: a load of {found['load']:g} on {found['cores']} cores disturbs these numbers."


def described(found: dict[str, Any]) -> str:
    """The machine on one line."""
    gpu = f"{found['gpu']} ({found['gpu_memory_gib']} GiB), " if "gpu" in found else ""
    flags = f" ({', '.join(found['flags'])})" if found["flags"] else ""
    memory = f", {found['memory_gib']:g} GiB" if found["memory_gib"] else ""
    return (
        f"{gpu}{found['cpu']}{flags}, {found['cores']} cores, {found['threads']} threads{memory}; "
        f"torch {found['versions'].get('torch', '?')}, auto precision {found['auto_precision']}"
    )


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    line = next((line for line in lines if line.startswith("model name")), "")
    return line.partition(":")[2].strip() or platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
