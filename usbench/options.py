"""Options of a plugin, from text or JSON to the type of their declared defaults."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from usbench.errors import UsbenchError

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def cast(value: Any, default: Any, what: str) -> Any:
    """A value as the type of its default: text as the command line has it, or what JSON and TOML have."""
    if default is None:
        return value
    if isinstance(default, tuple):
        parts = value.split("/") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or len(parts) != len(default):
            raise UsbenchError(f"{what} must be {len(default)} values with / between, not {value!r}.")
        return tuple(cast(part, old, f"a part of {what}") for part, old in zip(parts, default, strict=True))
    made = value
    if isinstance(value, str) and not isinstance(default, str):
        with contextlib.suppress(ValueError, KeyError):  # then it is still a text, which it must not be
            made = TRUTH[value.lower()] if isinstance(default, bool) else type(default)(value)
    elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        made = float(value)
    fits = isinstance(made, type(default)) and isinstance(made, bool) == isinstance(default, bool)
    if not fits or (isinstance(made, float) and not math.isfinite(made)):
        raise UsbenchError(f"{what} must be {type(default).__name__}, not {value!r}.")
    return made
