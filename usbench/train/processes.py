"""Ranks that are processes of this machine: gloo between CPUs, nccl between GPUs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from usbench.errors import RunFailed
from usbench.train.loop import Watcher
from usbench.train.ranks import Ranks

PATIENCE = timedelta(minutes=10)  # with a rank that does not answer


class RankLost(RunFailed):
    """Another rank does not answer: whatever befell it is the reason, and this is only what follows."""


class Processes(Ranks):
    """This process among those that train together. They meet at a file, and leave with the block."""

    def __init__(self, rank: int, count: int, meeting: Path, device: str) -> None:
        super().__init__(rank, count)
        own = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
        os.environ.setdefault("GLOO_SOCKET_IFNAME", own[0] if own else "lo")  # nobody else is to be reached by it
        if device == "cuda":
            torch.cuda.set_device(rank)
        with _answered():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
                init_method=meeting.absolute().as_uri(), rank=rank, world_size=count, timeout=PATIENCE,
            )  # fmt: skip

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        dist.destroy_process_group()

    def gather(self, mine: Tensor) -> list[Tensor]:
        found = [torch.empty_like(mine) for _ in range(self.count)]
        with _answered():
            dist.all_gather(found, mine)
        return found

    def total(self, mine: Tensor) -> Tensor:
        summed = mine.clone()
        with _answered():
            dist.all_reduce(summed)
        return summed

    def agreed(self, flag: bool) -> bool:
        """What the first rank says."""
        said = torch.tensor([flag], dtype=torch.uint8)
        with _answered():
            dist.broadcast(said, 0)
        return bool(said.item())


class Together:
    """A watcher of every rank: the first is told how it goes, and all stop at the same step."""

    def __init__(self, watcher: Watcher, ranks: Processes) -> None:
        self.watcher, self.ranks = watcher, ranks

    @property
    def stopping(self) -> bool:
        """To be asked once a step on every rank."""
        return self.ranks.agreed(self.watcher.stopping)

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        """Only the first rank speaks."""
        if self.ranks.rank == 0:
            self.watcher.step(done, total, loss, rate)


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch's errors of communication are such
        raise RankLost(f"another device's process does not answer ({str(error).splitlines()[0]}).") from error
