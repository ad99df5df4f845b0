"""What somebody asked for, typed or as Python values, in the spec's own form. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from usbench.errors import UsbenchError
from usbench.spec import RunSpec, read_config, resolve

SEVERAL = ("data", "ood", "pretrain_data", "split")
AS_IT_IS = (
    "loss", "aug", "backbone", "protocol", "size", "preset", "fold", "device", "precision", "threads", "leave_device",
    "pretrain_part", "devices",
)  # fmt: skip


def spec_of(asked: Mapping[str, Any], settings: Any, config: str | os.PathLike[str] | None) -> RunSpec:
    """The spec that is asked for, over a config file where one is named."""
    given = read_config(Path(config)) if config is not None else {}
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
    given |= {key: _texts(asked[key]) or None for key in SEVERAL}
    given["init"] = os.fspath(asked["init"]) if asked["init"] is not None else None
    given["allow_leaks"] = asked["allow_leaks"] or None
    shifts = asked["shifts"]
    given["shifts"] = _parts(shifts) if isinstance(shifts, str) else shifts if shifts is None else list(shifts)
    given["severities"] = _numbers(asked["severities"], "--severities", int)
    given["labels"] = _numbers(asked["labels"], "--labels", float)
    given["seeds"] = _seeds(asked["seeds"], asked["seed"])
    return {key: value for key, value in given.items() if value is not None}


def _seeds(many: Any, which: Any) -> list[Any] | None:
    """`seeds` says how many, or lists them; `seed` says which."""
    if many is not None and which is not None:
        raise UsbenchError("--seeds (how many) and --seed (which one) exclude each other: give one.")
    if not isinstance(many, Integral):
        return _numbers(many if which is None else which, "--seed", int)
    if many < 1:
        raise UsbenchError(f"--seeds {many}: at least one seed is needed.")
    return list(range(int(many)))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _texts(value: Any) -> list[str]:
    """One text or path, or several."""
    if value is None:
        return []
    return [os.fspath(each) for each in ([value] if isinstance(value, str | os.PathLike) else value)]


def _numbers(value: Any, what: str, cast: Any) -> list[Any] | None:
    """One number, several, or text with commas."""
    if value is None:
        return None
    if not isinstance(value, str):
        several = value if isinstance(value, Iterable) else [value]
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
        pairs = (text.partition("=") for text in _texts(given))
    for key, equals, value in pairs:
        group, dot, name = key.partition(".")
        if isinstance(value, Mapping) and not dot:
            found.setdefault(group, {}).update(value)
        elif equals and dot:
            found.setdefault(group, {})[name] = value
        else:
            raise UsbenchError(f"--set {key}{equals and f'={value}'}: write for example --set pretrain.steps=500.")
    return found
