"""How a stage is done: by this process or by several, with as much memory as there is, and nothing left behind."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from usbench.errors import OutOfMemory, UsbenchError
from usbench.hooks import Registry
from usbench.runs.devices import on_devices
from usbench.runs.kinds import Kinds
from usbench.runs.memory import within_memory
from usbench.runs.same import check_code
from usbench.runs.stage import Stage
from usbench.runs.store import Store


@contextlib.contextmanager
def globals_kept() -> Iterator[None]:
    """The caller's global random states are theirs: put them back after a stage."""
    import torch

    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


@contextlib.contextmanager
def full_float32(identity: dict[str, Any]) -> Iterator[None]:
    """Let no product of a float32 stage on a GPU be rounded to TF32; what the caller allowed comes back."""
    import torch

    kinds: Any = torch.backends
    products = [kinds.cuda.matmul, kinds.cudnn.conv, kinds.cudnn.rnn]
    if (identity["device"], identity["precision"]) != ("cuda", "float32"):
        products = []
    before = [product.fp32_precision for product in products]
    for product in products:
        product.fp32_precision = "ieee"
    try:
        yield
    finally:
        for product, allowed in zip(products, before, strict=True):
            product.fp32_precision = allowed


class Stages:
    """Does stages in this process."""

    def __init__(self, store: Store, registry: Registry, ranks: Any = None) -> None:
        self.store, self.registry = store, registry
        self.kinds = Kinds(store, registry, ranks)

    def do(self, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        """Do one stage in its folder; returns the facts for its record. `watcher` is a train.loop.Watcher."""
        return within_memory(self.attempt, self.try_out, stage, folder, watcher)

    def attempt(self, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        """Do a stage with the memory that there is, or raise an OutOfMemory that is no sentence."""
        if stage.identity.get("devices", 1) > 1:
            return on_devices(stage, folder, self.store, self.registry, watcher)
        return self.share(stage, folder, watcher)

    def try_out(self, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        """Do some steps to see whether memory does; on the CPU in a process of its own, since there a library that is
        given no memory may end the process, and memory that is free again may lie in pieces."""
        if stage.row["device"] == "cpu":
            return on_devices(stage, folder, self.store, self.registry, watcher)
        return self.attempt(stage, folder, watcher)

    def share(self, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        """What this process does of a stage: all of it, but where there are other ranks."""
        from usbench.train.sparing import ran_out

        try:
            return self._share(stage, folder, watcher)
        except UsbenchError:
            raise
        except Exception as error:
            if not ran_out(error):
                raise
            said = " ".join(str(error).split())
        raise OutOfMemory(said)  # out here, so that it does not hold on to what filled the memory

    def _share(self, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
        import torch

        from usbench.train.memory import forget_peak, keep_freed_memory

        keep_freed_memory()
        identity = self._root(stage)
        for said in (identity, stage.identity):
            check_code(said, self.registry)
        if identity["device"] == "cuda" and not torch.cuda.is_available():
            raise UsbenchError(
                "a CUDA device was found but torch cannot use it: run 'usbench doctor', or --device cpu."
            )
        forget_peak()
        if identity["threads"]:
            torch.set_num_threads(max(1, identity["threads"] // identity.get("devices", 1)))
        with globals_kept(), full_float32(identity):
            return self.kinds.do(stage, folder, watcher)

    def _root(self, stage: Stage) -> dict[str, Any]:
        """The identity that says how to compute: an evaluation computes as its fine-tune did."""
        if stage.kind != "evaluate":
            return stage.identity
        return self.store.record(stage.needs[0])["identity"]
