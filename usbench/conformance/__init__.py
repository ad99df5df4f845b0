"""What every plugin must keep, ours and strangers': small named checks, each with the promise it stands for.

`check(entry)` judges a registered entry; `checks(entry)` gives the checks one by one, for pytest to parametrise over.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from usbench.errors import UsbenchError
from usbench.hooks import Entry
from usbench.source import line_of

__all__ = ["Verdict", "check", "checks"]

ROOMS = {
    "loss": "losses", "augmentation": "augmentations", "backbone": "backbones", "dataset": "datasets",
    "protocol": "protocols",
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """How one check of one entry ended."""

    check: str  # its name
    promise: str
    kept: bool
    note: str  # what broke and where; or what there is to say of a kept promise, for example a cost
    seconds: float


def checks(entry: Entry) -> Iterator[tuple[str, Callable[[], str]]]:
    """The checks of an entry by name. Each returns a note, or raises with the promise that broke and where.

    They share what they build, so let go of them together.
    """
    room = _room(entry.kind)
    bench = room.Bench(entry)
    for function in room.CHECKS if entry.factory is not None else room.CHECKS[:1]:
        yield function.__name__, functools.partial(_note, function, bench)


def check(entry: Entry) -> list[Verdict]:
    """The verdicts on an entry. Where it cannot be built or does not run at all, nothing further is judged."""
    said = {function.__name__: promise_of(function) for function in _room(entry.kind).CHECKS}
    verdicts: list[Verdict] = []
    for place, (name, call) in enumerate(checks(entry)):
        began, kept = time.perf_counter(), True
        try:
            note = call()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's plugin may raise anything
            kept, note = False, _what_broke(error, entry.where)
        verdicts.append(Verdict(name, said[name], kept, note, time.perf_counter() - began))
        if not kept and place == 1:
            break
    return verdicts


def promise_of(function: Callable[..., object]) -> str:
    """The first line of a check's docstring, without its full stop."""
    return (function.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _note(function: Callable[[Any], str | None], bench: Any) -> str:
    return function(bench) or ""


def _room(kind: str) -> ModuleType:
    return importlib.import_module(f"usbench.conformance.{ROOMS[kind]}")


def _what_broke(error: BaseException, where: str) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError | UsbenchError):
        return text
    return f"it raised {type(error).__name__}: {text}{line_of(error, (where,))}"
