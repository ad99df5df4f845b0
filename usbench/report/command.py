"""The command that makes a run again, from its spec."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from usbench.errors import UsbenchError
from usbench.spec import RunSpec, resolve

ONE = (
    "aug", "backbone", "init", "pretrain_part", "size", "protocol", "device", "devices", "precision", "threads", "fold",
    "leave_device",
)  # fmt: skip
LISTS = ("labels", "shifts", "severities")  # by comma
MANY = ("data", "ood", "pretrain_data", "split")  # a flag for each


def command_of(spec: Mapping[str, Any]) -> str:
    """One line for a shell that resolves to this spec; nothing where no such line is known."""
    try:
        given = {key: spec[key] for key in ("preset", "loss")}
        spec = RunSpec.model_validate(spec).model_dump(mode="json")  # what an older one does not name has its default
        # Sets of one's own replace the preset's others, so data always decides what the defaults are.
        default = resolve({**given, "data": spec["data"]}).model_dump(mode="json")
        usual = resolve(given).model_dump(mode="json")
        words = ["usbench", "run", "--loss", str(spec["loss"]), "--preset", str(spec["preset"])]
        if [spec["data"], spec["ood"]] == [usual["data"], usual["ood"]]:
            default = usual
        words += _flags(spec, default, data=default is not usual)
    except (UsbenchError, ValueError, KeyError, TypeError, AttributeError):  # of settings that are not known here
        return ""
    return shlex.join(words)


def _flags(spec: Mapping[str, Any], default: Mapping[str, Any], *, data: bool) -> Iterator[str]:
    for name in ONE:
        if spec[name] != default[name]:
            yield from (_flag(name), str(spec[name]))
    for name in MANY:
        if spec[name] != default[name] or (data and name == "data"):
            for value in spec[name]:
                yield from (_flag(name), str(value))
    for name in LISTS:
        if spec[name] != default[name] and (name != "severities" or spec["shifts"]):  # of nothing else than shifts
            yield from (_flag(name), ",".join(map(_number, spec[name])))
    if spec["seeds"] != default["seeds"]:
        yield from ("--seed", ",".join(map(str, spec["seeds"])))
    for name in ("allow_leaks", "auto_batch"):
        if spec[name]:
            yield _flag(name)
    for group in ("pretrain", "finetune"):
        for name, value in spec[group].items():
            if value != default[group][name]:
                yield from ("--set", f"{group}.{name}={value}")


def _number(value: Any) -> str:
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if isinstance(value, str) or float(short) == value else repr(value)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
