"""What `register` takes: what is wrong with it is said when the plugin is loaded, argument by argument."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from typing import Any

from usbench.errors import unknown
from usbench.hookspecs import GROUP, HOOK_OF

CAPABILITIES = ("image", "mask", "label", "video", "time", "tag", "patient", "device")  # of a pack
TOKENS = "tokens"  # of a backbone
BASELINES = ("", "plain", "long")


def misspelt(plugin: Any) -> str:
    """What to say of a plugin that marks a function as a hook that there is not; "" where it has none."""
    marked = (name for name in dir(plugin) if getattr(getattr(plugin, name, None), f"{GROUP}_impl", None))
    wrong = next((name for name in marked if name not in HOOK_OF.values()), None)
    return str(unknown("hook", wrong, HOOK_OF.values())) if wrong else ""


def check_registration(
    what: str,
    factory: str | Callable[..., Any] | None,
    said: Mapping[str, Any],
    options: Any,
    fixed: Mapping[str, Any],
) -> None:
    """Raise ValueError or TypeError with the argument of `register` that is not what it must be."""
    if not (factory is None or isinstance(factory, str) or callable(factory)):
        raise TypeError(f"the factory of {what} is a {type(factory).__name__}: give a class or a function")
    if not isinstance(said["summary"], str) or not isinstance(said["reference"], str):
        raise TypeError(f"summary and reference of {what} must be text")
    if (baseline := said["baseline"]) not in BASELINES:
        raise ValueError(f"baseline of {what} is {baseline!r}: 'plain' or 'long', or nothing")
    if factory is None and not baseline:
        raise ValueError(f"{what} has no factory: give one, or say baseline='plain' or 'long'")
    if not isinstance(said["revision"], int) or isinstance(said["revision"], bool):
        raise TypeError(f"revision of {what} is {said['revision']!r}: a whole number")
    for name in ("needs", "uses", "gives"):
        if not _texts(said[name]):
            raise TypeError(f"{name} of {what} is {said[name]!r}: a text, or a tuple of texts")
    for word in sorted(set(words(said["needs"])) - {*CAPABILITIES, TOKENS}):  # a backbone may give what it calls so
        if near := difflib.get_close_matches(word, (*CAPABILITIES, TOKENS), 1, 0.7):
            raise ValueError(f"{what} needs '{word}', which nothing has: did you mean '{near[0]}'?")
    if wrong := set(words(said["uses"])) - {"label"}:
        raise ValueError(f"{what} uses {', '.join(sorted(wrong))}: 'label' is all there is to say")
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise TypeError(f"the options of {what} must be a dict of names and defaults")
    for name, default in options.items():
        parts = default if isinstance(default, tuple) and default else (default,)
        if not (default is None or all(isinstance(part, bool | int | float | str) for part in parts)):
            raise TypeError(
                f"option '{name}' of {what} has the default {default!r}: "
                "a bool, an int, a float, a text, a tuple of these, or None"
            )
    for name, value in fixed.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"the argument '{name}' of {what} is {value!r}, which is no JSON: give its name, and make it in the "
                "factory"
            ) from None


def words(value: Any) -> tuple[str, ...]:
    """One word or several, as a tuple."""
    if isinstance(value, set | frozenset):
        value = sorted(value)  # in the same order in every process
    return (value,) if isinstance(value, str) else tuple(value)


def _texts(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, tuple | list | set | frozenset) and all(isinstance(each, str) for each in value)
    )
