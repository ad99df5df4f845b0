"""What all kinds of checks share: how a promise breaks, what an entry says of itself, and hidden generators."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from usbench.hooks import Entry

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


def listed(names: Iterable[str], most: int = 3) -> str:
    """A few names in quotes, and how many more there are."""
    every = sorted(names)
    shown = ", ".join(f"'{name}'" for name in every[:most])
    return shown + (f" and {len(every) - most} more" if len(every) > most else "")
