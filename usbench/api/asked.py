"""What somebody asked for, typed or as Python values, in the spec's own form. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from usbench.errors import UsbenchError, text_of, texts_of
from usbench.spec import RunSpec, read_config, resolve

SEVERAL = ("data", "ood", "pretrain_data", "split")
AS_IT_IS = (
    "loss", "aug", "backbone", "protocol", "size", "preset", "fold", "device", "precision", "threads", "leave_device",
    "pretrain_part", "devices",
)  # fmt: skip


def spec_of(asked: Mapping[str, Any], settings: Any, config: str | os.PathLike[str] | None) -> RunSpec:
    """The spec that is asked for, over a config file where one is named."""
    given = read_config(Path(text_of(config, "--config"))) if config is not None else {}
    for key, value in (_given(asked) | _settings(settings)).items():
        if isinstance(value, dict) and isinstance(given.get(key), dict):
            value = {**given[key], **value}
        given[key] = value
    if "loss" not in given:
        raise UsbenchError(
            "no loss is named: give --loss, for example --loss simclr; 'usbench plugins list' has all of them."
        )
    if asked.get("severities") is not None and not given.get("shifts"):
        raise UsbenchError("--severities: of what? Name corruptions too, for example --shifts all.")
    return resolve(given)


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: asked[key] for key in AS_IT_IS}
    given |= {key: texts_of(asked[key], _flag(key)) or None for key in SEVERAL}
    given["init"] = text_of(asked["init"], "--init") if asked["init"] is not None else None
    given |= {key: _yes(asked[key], _flag(key)) or None for key in ("allow_leaks", "auto_batch")}
    shifts = asked["shifts"]
    given["shifts"] = _parts(shifts) if isinstance(shifts, str) else shifts and texts_of(shifts, "--shifts")
    given["severities"] = _numbers(asked["severities"], "--severities", int)
    given["labels"] = _numbers(asked["labels"], "--labels", float)
    given["seeds"] = _seeds(asked["seeds"], asked["seed"])
    return {key: value for key, value in given.items() if value is not None}


def _seeds(many: Any, which: Any) -> list[Any] | None:
    """`seeds` says how many, or lists them; `seed` says which."""
    if many is not None and which is not None:
        raise UsbenchError("--seeds (how many) and --seed (which one) exclude each other: give one.")
    if isinstance(many, str) and many.strip().isdecimal():
        many = int(many)  # as it is typed
    if not isinstance(many, Integral) or isinstance(many, bool):
        return _numbers(many if which is None else which, "--seeds" if which is None else "--seed", int)
    if many < 1:
        raise UsbenchError(f"--seeds {many}: at least one seed is needed.")
    return list(range(int(many)))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _yes(value: Any, what: str) -> bool:
    """A truth value; a text such as "no" is none."""
    if value is not None and not isinstance(value, bool):
        raise UsbenchError(f"{what} {value!r}: it is True or False.")
    return bool(value)


def _numbers(value: Any, what: str, cast: Any) -> list[Any] | None:
    """One number, several, or text with commas."""
    if value is None:
        return None
    if not isinstance(value, str):
        several = list(value) if isinstance(value, Iterable) else [value]
        if any(isinstance(each, bool) for each in several):
            raise UsbenchError(f"{what} {value!r}: give numbers.")
        return [each.item() if hasattr(each, "item") else each for each in several]  # numpy's numbers too
    try:
        return [cast(part) for part in _parts(value.replace("%", ""))]
    except ValueError:
        raise UsbenchError(f"{what} '{value}' are not numbers: write them by comma, as in 1,3,5.") from None


def _settings(given: Any) -> dict[str, dict[str, Any]]:
    """pretrain.steps=500, {"pretrain.steps": 500} or {"pretrain": {"steps": 500}} → the last of these."""
    found: dict[str, dict[str, Any]] = {}
    pairs: Iterable[tuple[str, str, Any]]
    if isinstance(given, Mapping):
        pairs = ((str(key), "=", value) for key, value in given.items())
    else:
        pairs = (text.partition("=") for text in texts_of(given, "--set"))
    for key, equals, value in pairs:
        group, dot, name = key.partition(".")
        if isinstance(value, Mapping) and not dot:
            found.setdefault(group, {}).update(value)
        elif equals and dot:
            found.setdefault(group, {})[name] = value
        else:
            raise UsbenchError(f"--set {key}{equals and f'={value}'}: write for example --set pretrain.steps=500.")
    return found
