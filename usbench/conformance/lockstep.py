"""Several ranks in one process: threads of which one runs at a time until tensors are exchanged."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from usbench.train.ranks import Ranks

T = TypeVar("T")
PATIENCE = 60.0  # seconds


class Apart(RuntimeError):
    """The ranks no longer do the same."""


class Lockstep:
    """Runs a function on every rank. Each has the global random states to itself, as a process would."""

    def __init__(self, count: int) -> None:
        self.count, self.turn = count, 0
        self.moved = threading.Condition()
        self.given: list[list[Tensor]] = [[] for _ in range(count)]
        self.ended = [False] * count
        self.errors: list[BaseException] = []  # raised by `run`

    def run(self, do: Callable[[Ranks], T]) -> list[T]:
        """What the function returns on each rank; raises what the first of them to fail raised."""
        states, made = _states(), {}

        def live(ranks: _Thread) -> None:
            try:
                self.wait(ranks.rank)
                _restore(states)
                made[ranks.rank] = do(ranks)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's plugin may raise anything
                self.errors.append(error)
            finally:
                self.ended[ranks.rank] = True
                self.hand_on(ranks.rank)

        threads = [threading.Thread(target=live, args=(_Thread(self, rank),)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _restore(states)
        if self.errors:
            raise self.errors[0]
        return [made[rank] for rank in range(self.count)]

    def exchange(self, rank: int, mine: Tensor) -> list[Tensor]:
        """What each rank gave at this place of its run."""
        own = self.given[rank]
        own.append(mine.detach().clone())
        place, states = len(own) - 1, _states()
        while any(len(given) <= place for given in self.given):
            lacking = next(other for other in self._others(rank) if len(self.given[other]) <= place)
            if self.errors or self.ended[lacking]:
                raise Apart(f"rank {lacking} ended before rank {rank} did")
            self.hand_on(rank)
            self.wait(rank)
            _restore(states)
        found = [given[place] for given in self.given]
        if len({each.shape for each in found}) > 1:
            raise Apart(f"the ranks exchange tensors of the shapes {[tuple(each.shape) for each in found]}")
        return found

    def hand_on(self, rank: int) -> None:
        """It is the next rank's turn."""
        with self.moved:
            self.turn = next((other for other in self._others(rank) if not self.ended[other]), rank)
            self.moved.notify_all()

    def wait(self, rank: int) -> None:
        """Until it is this rank's turn."""
        with self.moved:
            if not self.moved.wait_for(lambda: self.turn == rank, PATIENCE):
                raise Apart(f"rank {self.turn} holds up rank {rank}")

    def _others(self, rank: int) -> Iterator[int]:
        return ((rank + step) % self.count for step in range(1, self.count))


class _Thread(Ranks):
    def __init__(self, lockstep: Lockstep, rank: int) -> None:
        super().__init__(rank, lockstep.count)
        self.lockstep = lockstep

    def gather(self, mine: Tensor) -> list[Tensor]:
        return self.lockstep.exchange(self.rank, mine)

    def total(self, mine: Tensor) -> Tensor:
        return torch.stack(self.gather(mine)).sum(0)


def _states() -> tuple:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()


def _restore(states: tuple) -> None:
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
