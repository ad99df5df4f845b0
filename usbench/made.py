"""What numbers were made with: the versions of libraries, and the processor."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import usbench

LIBRARIES = (
    "torch", "torchvision", "lightly", "segmentation-models-pytorch", "timm", "numpy", "scipy", "scikit-learn",
    "pandas",
)  # fmt: skip
EARLIER = "made_earlier"  # of a training's facts: what it was made with before it was gone on with


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


def here() -> dict[str, Any]:
    """What is made in this process is made with these."""
    return {"versions": versions(), "processor": processor()}


def joined(every: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Those of all parts of a training; several where it was gone on with elsewhere."""
    found: dict[str, set[str]] = {}
    processors: dict[str, None] = {}
    for made in every:
        processors[made["processor"]] = None
        for library, number in made["versions"].items():
            found.setdefault(library, set()).add(number)
    # One that had no GPU to name yet is that of the same machine.
    whole = [one for one in processors if not any(other.startswith(f"{one}, ") for other in processors)]
    return {"versions": {k: "/".join(sorted(v)) for k, v in found.items()}, "processor": " / ".join(whole)}
