"""A suite: many runs in one TOML file, as products of lists over common settings. Needs no torch."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from usbench.errors import UsbenchError, unknown
from usbench.spec import RunSpec, resolve

MOST = 10_000  # runs of one product
MANY = 200  # runs that nobody starts by mistake
FIELDS = ("name", "about", "base", "runs")
ON = ("inner",)  # what a setting may be chosen on: never a test set


@dataclass(frozen=True)
class Selection:
    """Settings that are chosen for each row on inner validation, with the same trials for all."""

    over: dict[str, tuple[Any, ...]]
    on: str = "inner"

    @property
    def trials(self) -> list[dict[str, Any]]:
        """Every combination of the settings; the first one counts where nothing can be chosen."""
        return [dict(zip(self.over, values, strict=True)) for values in itertools.product(*self.over.values())]


@dataclass(frozen=True)
class SuiteRun:
    """One run of a suite: what it was given, and what is chosen in it."""

    spec: RunSpec
    given: dict[str, Any]
    selection: Selection | None = None

    def trials(self) -> list[tuple[str, RunSpec]]:
        """The run with each trial's settings, and how they are written; itself where nothing is chosen."""
        if self.selection is None:
            return [("", self.spec)]
        return [
            (", ".join(f"{key}={value}" for key, value in trial.items()), resolve(_with(self.given, trial)))
            for trial in self.selection.trials
        ]


@dataclass(frozen=True)
class Suite:
    """A suite file, read and expanded."""

    name: str
    path: Path
    about: str = ""
    runs: list[SuiteRun] = field(default_factory=list)


def read_suite(path: Path, **always: Any) -> Suite:
    """Read a suite file; what is wrong with it is said in a sentence. `always` are settings of every run."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsbenchError(f"the suite {path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UsbenchError(f"the suite {path} is not TOML: {error}.") from None
    for key in document:
        if key not in FIELDS:
            raise unknown("field", key, FIELDS, where=f"in the suite {path}")
    base, grids = document.get("base", {}), document.get("runs", [])
    if not isinstance(base, dict) or not isinstance(grids, list) or not all(isinstance(g, dict) for g in grids):
        raise UsbenchError(f"the suite {path} is not made of a table [base] and tables [[runs]].")
    if not grids:
        raise UsbenchError(f"the suite {path} has no [[runs]]: there is nothing to do.")
    runs = [
        run for place, grid in enumerate(grids, 1)
        for run in _expand(base, {**grid, **always}, f"[[runs]] {place} of {path}")
    ]  # fmt: skip
    return Suite(str(document.get("name", path.stem)), path, str(document.get("about", "")), runs)


def _expand(base: dict[str, Any], grid: dict[str, Any], where: str) -> Iterator[SuiteRun]:
    """The runs of a product of lists."""
    settings = {key: value for key, value in grid.items() if key not in ("over", "select")}
    over = _lists(grid.get("over", {}), f"over in {where}")
    selection = _selection(grid["select"], where) if "select" in grid else None
    if (count := math.prod(map(len, over.values()))) > MOST:
        raise UsbenchError(f"{where} makes {count:,} runs, more than {MOST:,}: shorten its lists.")
    for values in itertools.product(*over.values()):
        given = _with(_with(base, settings), dict(zip(over, values, strict=True)))
        for key in given:
            if key not in RunSpec.model_fields:
                raise UsbenchError(f"{where}: {unknown('setting', key, RunSpec.model_fields)}")
        if "loss" not in given:
            raise UsbenchError(f'no loss is named in {where}: write loss = "…" or over.loss = […].')
        try:
            run = SuiteRun(resolve(given), given, selection)
            run.trials()
        except UsbenchError as error:
            raise UsbenchError(f"{where}: {error}") from error
        yield run


def _selection(given: Any, where: str) -> Selection:
    if not isinstance(given, dict) or set(given) - {"over", "on"} or "over" not in given:
        raise UsbenchError(f'select in {where} is not {{ over = {{ "pretrain.lr" = […] }}, on = "inner" }}.')
    on = str(given.get("on", "inner"))
    if on not in ON:
        raise UsbenchError(f"select in {where} chooses on '{on}': only on 'inner', never on a test set.")
    over = _lists(given["over"], f"select.over in {where}")
    if (count := math.prod(map(len, over.values()))) > MANY:
        raise UsbenchError(f"select.over in {where} makes {count:,} trials, more than {MANY}: shorten its lists.")
    for key in over:
        if not key.startswith(("pretrain.", "finetune.")):
            raise UsbenchError(f"select.over in {where} has '{key}': settings of pretrain and finetune can be chosen.")
    return Selection(over, on)


def _lists(given: Any, where: str) -> dict[str, tuple[Any, ...]]:
    """{"loss": […], "pretrain": {"lr": […]}} → {"loss": (…), "pretrain.lr": (…)}."""
    if not isinstance(given, dict):
        raise UsbenchError(f"{where} is no table of lists.")
    flat: dict[str, Any] = {}
    for key, value in given.items():
        flat |= {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, dict) else {key: value}
    for key, value in flat.items():
        if not isinstance(value, list) or not value:
            raise UsbenchError(f"{where}: '{key}' is no list of values, or an empty one.")
    return {key: tuple(value) for key, value in flat.items()}


def _with(given: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Settings over settings; `pretrain.lr` and a table `pretrain` are the same."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in given.items()}
    for key, value in more.items():
        group, dot, name = key.partition(".")
        if dot and not isinstance(merged.get(group, {}), dict):
            raise UsbenchError(f"'{group}' is {merged[group]!r} and is to have '{name}' too: make it a table.")
        if dot:
            merged[group] = {**merged.get(group, {}), name: value}
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = {**merged[key], **value}
        else:
            merged[key] = value
    return merged
