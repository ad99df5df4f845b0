"""What a run is: a frozen, validated spec; what hashes to a key. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from usbench.errors import UsbenchError, unknown

ONE_OF = {"device": ("auto", "cpu", "cuda"), "precision": ("auto", "bf16", "float32")}


class Choice(BaseModel):
    """A plugin by name with the options given for it: `name`, `name:value` or `name:key=value,key=value`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    positional: str | None = None  # the value of the plugin's first option

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read the text form."""
        name, _, rest = text.strip().partition(":")
        if not name:
            raise UsbenchError(f"'{text}' names no plugin: write NAME or NAME:option=value,option=value.")
        options: dict[str, Any] = {}
        positional = None
        for place, part in enumerate(filter(None, rest.split(","))):
            key, equals, value = part.partition("=")
            if (key := key.strip()) in options:
                raise UsbenchError(f"'{key}' stands twice in '{text}': give each option once.")
            if equals:
                options[key] = value.strip()
            elif place == 0:
                positional = part.strip()
            else:
                raise UsbenchError(f"'{part}' in '{text}' is no option: write option=value.")
        return cls(name=name, options=options, positional=positional)

    def __str__(self) -> str:
        parts = [self.positional] if self.positional is not None else []
        parts += [f"{k}={'/'.join(map(str, v)) if isinstance(v, list | tuple) else v}" for k, v in self.options.items()]
        return self.name + (":" + ",".join(parts) if parts else "")


class ScheduleSpec(BaseModel):
    """Steps, source images a step, and the learning rate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    steps: int = Field(ge=1)
    batch: int = Field(ge=2)
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup: float = Field(ge=0, le=1)
    encoder_factor: float = Field(default=1.0, gt=0, le=1)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int | float) else value


def _seed_list(value: Any) -> Any:
    """Seeds in a list: a number alone is a seed for one reader and how many there are for another."""
    if isinstance(value, int) and not isinstance(value, bool):
        some = ", ".join(map(str, range(min(max(value, 1), 3)))) + (", …" if value > 3 else "")
        raise ValueError(f"{value} alone is no list: write [{some}] for {value} of them, or [{value}] for this one")
    return value


def _sets(value: Any) -> Any:
    """Data sets, several of them by '+' or as a list; a file may have a '+' in its name."""
    given = _listed(value)
    if not isinstance(given, list | tuple):
        return given
    there = os.path.isfile  # Path.is_file raises where a name is too long
    parts = [part for text in given for part in ([text] if there(str(text)) else str(text).split("+"))]
    if not all(str(part).strip() for part in parts):
        raise ValueError(f"a data set has no name in '{'+'.join(map(str, parts))}'")
    return parts


class RunSpec(BaseModel):
    """One row and its baselines. Every field is resolved: nothing is guessed later."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    loss: str
    aug: str
    backbone: str
    init: str = "random"
    data: Annotated[tuple[str, ...], BeforeValidator(_sets), Field(min_length=1)]
    ood: Annotated[tuple[str, ...], BeforeValidator(_sets)] = ()
    pretrain_data: Annotated[tuple[str, ...], BeforeValidator(_sets)] = ()  # empty: the training images of `data`
    pretrain_part: str = "whole"  # of the sets that are only pretrained on; or "train", their training images
    labels: Annotated[tuple[float, ...], BeforeValidator(_listed)] = (20.0, 50.0, 100.0)
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seed_list)]
    fold: int = Field(default=0, ge=0)
    split: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()  # FILE, or PACK=FILE, instead of a fold
    leave_device: str = ""  # not trained on, and tested on as an unseen set
    allow_leaks: bool = False
    shifts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()  # corruptions of the test images of `data`
    severities: Annotated[tuple[int, ...], BeforeValidator(_listed)] = (1, 2, 3, 4, 5)  # of each of them
    size: int = Field(ge=32, le=1024)
    protocol: str = "segment"
    pretrain: ScheduleSpec
    finetune: ScheduleSpec
    device: str = "auto"
    precision: str = "auto"
    devices: int = Field(default=1, ge=1, le=64)  # that one pretraining is shared by
    threads: int = Field(default=0, ge=0)  # of all devices together
    auto_batch: bool = False  # train in less memory where it does not do; no key hangs on it
    preset: str = "quick"

    @field_validator("loss", "backbone", "protocol")
    @classmethod
    def _as_written_in_rows(cls, text: str) -> str:
        return str(Choice.parse(text))

    @field_validator("pretrain")
    @classmethod
    def _one_rate(cls, schedule: ScheduleSpec) -> ScheduleSpec:
        if schedule.encoder_factor != 1:
            raise ValueError(
                f"a pretraining has one learning rate, so encoder_factor is 1 and not {schedule.encoder_factor:g}: "
                "set pretrain.lr, or finetune.encoder_factor"
            )
        return schedule

    @field_validator("labels")
    @classmethod
    def _fractions(cls, labels: tuple[float, ...]) -> tuple[float, ...]:
        if not labels:
            raise ValueError("at least one label fraction is needed")
        wrong = [x for x in labels if not 0 < x <= 100]
        if wrong:
            raise ValueError(f"a label fraction is a percentage above 0 and up to 100, not {wrong[0]:g}")
        return tuple(sorted(set(labels)))

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or min(seeds) < 0:
            raise ValueError("seeds are whole numbers from 0, at least one")
        return tuple(dict.fromkeys(seeds))

    @field_validator("severities")
    @classmethod
    def _severities(cls, severities: tuple[int, ...]) -> tuple[int, ...]:
        if not severities:
            raise ValueError("at least one severity is needed")
        if wrong := [x for x in severities if not 1 <= x <= 5]:
            raise ValueError(f"a severity is a whole number from 1 to 5, not {wrong[0]}")
        return tuple(sorted(set(severities)))

    @field_validator("pretrain_part")
    @classmethod
    def _part(cls, part: str) -> str:
        if part not in ("whole", "train"):
            raise ValueError(f"what is pretrained on of other sets is whole or train, not '{part}'")
        return part

    @field_validator("device", "precision")
    @classmethod
    def _known(cls, said: str, field: ValidationInfo) -> str:
        *first, last = ONE_OF[field.field_name or ""]
        if said not in (*first, last):
            raise ValueError(f"the {field.field_name} is {', '.join(first)} or {last}, not '{said}'")
        return said


def presets() -> dict[str, dict[str, Any]]:
    """The named sets of defaults; `about` is how long a run takes, in words."""
    return tomllib.loads(files("usbench").joinpath("presets.toml").read_text("utf-8"))


def resolve(given: dict[str, Any]) -> RunSpec:
    """A spec from what the user gave, over the preset's defaults."""
    known = presets()
    name = str(given.get("preset", "quick"))
    if name not in known:
        raise unknown("preset", name, known)
    merged: dict[str, Any] = {"preset": name, **{key: value for key, value in known[name].items() if key != "about"}}
    if "data" in given:
        merged.pop("ood", None)  # the preset's other domains belong to the preset's data
    for key, value in given.items():
        merged[key] = {**merged[key], **value} if key in ("pretrain", "finetune") and isinstance(value, dict) else value
    for key in merged:
        if key not in RunSpec.model_fields:
            raise unknown("setting", key, RunSpec.model_fields)
    try:
        return RunSpec(**merged)
    except ValidationError as error:
        raise UsbenchError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        group = where.split(".")[0]
        fields = ScheduleSpec.model_fields if group in ("pretrain", "finetune") else RunSpec.model_fields
        return str(unknown("setting", where.split(".")[-1], fields, where=f"in {group}"))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"'{where}' is not set: give it on the command line or in the config."
    shown = "" if first["type"] == "value_error" else f", not {first['input']!r}"
    return f"{where}: {message[0].lower()}{message[1:]}{shown}."


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a config file: TOML, in a table [run] or at top level."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsbenchError(f"the config {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UsbenchError(f"the config {path} is not TOML: {error}.") from None
    run = document.get("run", document)
    if not isinstance(run, dict):
        raise UsbenchError(f"the config {path} has no table [run].")
    return run


def config_text(spec: RunSpec) -> str:
    """The spec as a TOML config that gives the same run."""
    values = spec.model_dump(mode="json")
    schedules = {key: values.pop(key) for key in ("pretrain", "finetune")}
    lines = ["[run]", *_assigned(values)]
    for name, schedule in schedules.items():
        lines += ["", f"[run.{name}]", *_assigned(schedule)]
    return "\n".join(lines) + "\n"


def _assigned(values: dict[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def key_of(identity: dict[str, Any]) -> str:
    """The key of what determines a result."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
