"""Options of a plugin, from text or JSON to the type of their declared defaults."""

from __future__ import annotations

import math
from typing import Any

from usbench.errors import UsbenchError


def cast(value: Any, default: Any, what: str) -> Any:
    """A value as the type of its default: text as the command line has it, or what JSON and TOML have."""
    if not isinstance(value, str) or isinstance(default, str):
        if isinstance(default, tuple) and isinstance(value, list) and len(value) == len(default):
            return tuple(value)  # as JSON has it
        if default is None or isinstance(value, type(default)):
            return value
        if isinstance(default, float) and isinstance(value, int):
            return float(value)
        raise UsbenchError(f"{what} must be {type(default).__name__}, not {value!r}.")
    made: Any
    try:
        if isinstance(default, bool):
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value.lower()]
        if isinstance(default, tuple):
            made = tuple(type(old)(part) for old, part in zip(default, value.split("/"), strict=True))
        else:
            made = type(default)(value) if default is not None else value
        if any(isinstance(x, float) and not math.isfinite(x) for x in (made if isinstance(made, tuple) else (made,))):
            raise ValueError
        return made
    except (ValueError, KeyError):
        form = f"{len(default)} values with / between" if isinstance(default, tuple) else type(default).__name__
        raise UsbenchError(f"{what} must be {form}, not '{value}'.") from None
