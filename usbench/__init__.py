"""usbench: which self-supervised pretraining helps B-mode ultrasound segmentation, and by how much?

A plugin author imports everything from here, and so does a script or a notebook: `usbench.run`, `run_suite`, `load`,
`leaderboard` and `compare` do what the commands do and return tables. Names are loaded when they are used, so importing
usbench does not import torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from usbench.api.result import Result
    from usbench.api.running import run
    from usbench.api.stored import compare, leaderboard, load
    from usbench.api.suites import run_suite
    from usbench.contracts import Augmentation, Batch, Clip, Image, Loss, Network, Out, Protocol, Video
    from usbench.errors import UsbenchError
    from usbench.hookspecs import hookimpl
    from usbench.items import Dataset, Item
    from usbench.share.export import export
    from usbench.share.network import load_network, load_pretrained_encoder
    from usbench.share.predict import predict

__version__ = "0.1.0"

# Threads that wait at a barrier give up their core soon. libgomp lets them spin by default, and two trainings that
# share two cores then take twice as long; alone it is as fast either way. Must be set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

_HOMES = {
    "Augmentation": "usbench.contracts",
    "Batch": "usbench.contracts",
    "Clip": "usbench.contracts",
    "Dataset": "usbench.items",
    "Image": "usbench.contracts",
    "Item": "usbench.items",
    "Loss": "usbench.contracts",
    "Network": "usbench.contracts",
    "Out": "usbench.contracts",
    "Protocol": "usbench.contracts",
    "Result": "usbench.api.result",
    "UsbenchError": "usbench.errors",
    "Video": "usbench.contracts",
    "compare": "usbench.api.stored",
    "export": "usbench.share.export",
    "hookimpl": "usbench.hookspecs",
    "leaderboard": "usbench.api.stored",
    "load": "usbench.api.stored",
    "load_network": "usbench.share.network",
    "load_pretrained_encoder": "usbench.share.network",
    "predict": "usbench.share.predict",
    "run": "usbench.api.running",
    "run_suite": "usbench.api.suites",
}

__all__ = [
    "Augmentation",
    "Batch",
    "Clip",
    "Dataset",
    "Image",
    "Item",
    "Loss",
    "Network",
    "Out",
    "Protocol",
    "Result",
    "UsbenchError",
    "Video",
    "__version__",
    "compare",
    "export",
    "hookimpl",
    "leaderboard",
    "load",
    "load_network",
    "load_pretrained_encoder",
    "predict",
    "run",
    "run_suite",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'usbench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
