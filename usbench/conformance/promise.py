"""What all kinds of checks share: how a promise breaks, what an entry says of itself, and hidden generators."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from usbench.hooks import Entry

OF_TORCH = frozenset(vars(nn.Module()))  # what every module has
SCALARS = (bool, int, float, str, type(None))
HOLDERS = (list, tuple, deque, dict, set, np.ndarray, torch.optim.Optimizer)
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class Broken(AssertionError):
    """A promise is not kept: the sentence says what is wrong and where."""


def require(kept: object, detail: str) -> None:
    """Raise Broken with the detail unless `kept`."""
    if not kept:
        raise Broken(detail)


class Bench:
    """What the checks of one entry share."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry


def says_what_it_is(bench: Bench) -> None:
    """It has a summary of one line."""
    summary = bench.entry.summary
    require(summary.strip() and "\n" not in summary, f"its summary is {summary!r}: give register one line")


def generators_of(modules: Iterable[nn.Module]) -> Iterator[str]:
    """Names of attributes that are random generators: their state is in no checkpoint and nobody seeds it."""
    for module in modules:
        for prefix, part in module.named_modules():
            for name, value in vars(part).items():
                if isinstance(value, GENERATORS):
                    yield f"{prefix}.{name}" if prefix else name


class Memory:
    """What hangs on the parts of a module and is neither parameter, buffer nor tensor, as it is now."""

    def __init__(self, module: nn.Module, but: tuple[str, ...] = ()) -> None:
        self.module, self.but = module, {*OF_TORCH, *but}
        self.before = {name: (value, _print(value)) for name, value in self._attributes()}

    def changed(self) -> str:
        """The first attribute that is another now, and from what to what; "" where all are as they were."""
        for name, value in self._attributes():
            before, printed = self.before.get(name, (None, _print(None)))
            if _print(value) != printed:
                plain = isinstance(before, SCALARS) and isinstance(value, SCALARS)
                said = f"from {before!r} to {value!r}" if plain else f"(its type is {type(value).__name__})"
                return f"'{name}' changed {said}"
        return ""

    def _attributes(self) -> Iterator[tuple[str, Any]]:
        for prefix, part in self.module.named_modules():
            for name, value in vars(part).items():
                cache = name.startswith("_") and isinstance(value, dict)  # what is made again where it is lacking
                if name not in self.but and not cache and isinstance(value, SCALARS + HOLDERS):
                    yield f"{prefix}.{name}" if prefix else name, value


def _print(value: Any) -> Any:
    """Something that is equal where what a value holds is; of other objects, their type."""
    if isinstance(value, torch.optim.Optimizer):
        return _print(value.state_dict()["state"])
    if isinstance(value, dict):
        return [(repr(key), _print(each)) for key, each in value.items()]
    if isinstance(value, list | tuple | deque):
        return list(map(_print, value))
    if isinstance(value, Tensor):
        return value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, set):
        return sorted(map(repr, value))
    return repr(value) if isinstance(value, SCALARS) else type(value)


def listed(names: Iterable[str], most: int = 3) -> str:
    """A few names in quotes, and how many more there are."""
    every = sorted(names)
    shown = ", ".join(f"'{name}'" for name in every[:most])
    return shown + (f" and {len(every) - most} more" if len(every) > most else "")
