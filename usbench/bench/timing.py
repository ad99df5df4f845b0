"""Honest timing: warm-up, the sides in turns, medians and quartiles, the device waited for, threads pinned."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Work = Callable[[], int]  # does a turn's work and returns how many units that was


@dataclass(frozen=True)
class Samples:
    """What was measured turn by turn."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one: a turn that something else disturbed does not move it."""
        return float(np.median(self.values))

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which the middle half lies."""
        low, high = np.percentile(self.values, (25, 75))
        return float(low), float(high)

    def over(self, other: Samples) -> Samples:
        """Turn by turn, how many times the other."""
        return Samples(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(sides: Mapping[str, Work], device: torch.device, turns: int, warm_up: int = 1) -> dict[str, Samples]:
    """Milliseconds a unit of each side, measured A B A B …, so that whatever slows the machine slows all of them."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warm_up, turns):
        for name, work in sides.items():
            synchronise(device)
            began = time.perf_counter()
            units = work()
            synchronise(device)
            if turn >= 0:
                taken[name].append(1e3 * (time.perf_counter() - began) / units)
    return {name: Samples(tuple(values)) for name, values in taken.items()}


def in_own_process(work: Callable[..., Any], *given: Any) -> Any:
    """What the work returns from a new process, whose memory is its own; None where that died."""
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(work, *given).result()
    except BrokenProcessPool:
        return None


@contextlib.contextmanager
def threads_pinned(threads: int) -> Iterator[None]:
    """So many threads inside an operation, whatever the environment says; put back at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Phases:
    """Where the time goes: the seconds spent in methods that are watched, with the device waited for at their ends.

    As a context it puts everything back. What runs inside another watched method counts in both.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._watched: list[tuple[Any, str, Any]] = []

    def watch(self, owner: Any, method: str, phase: str) -> None:
        """Time a method of an object, of a class, or a function of a module."""
        inherited = method not in vars(owner)
        original = getattr(owner, method)

        @functools.wraps(original)
        def timed(*args: Any, **options: Any) -> Any:
            synchronise(self.device)
            began = time.perf_counter()
            try:
                return original(*args, **options)
            finally:
                synchronise(self.device)
                self.seconds[phase] += time.perf_counter() - began

        self._watched.append((owner, method, None if inherited else original))
        setattr(owner, method, timed)

    def __enter__(self) -> Phases:
        return self

    def __exit__(self, *error: object) -> None:
        for owner, method, original in reversed(self._watched):
            if original is None:
                delattr(owner, method)
            else:
                setattr(owner, method, original)
