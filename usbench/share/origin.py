"""The settings that made a network, out of those that a store keeps of its runs and suites. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from pydantic import ValidationError

from usbench.data.home import short_name, stored_pack
from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.hooks import registry
from usbench.report import kept
from usbench.runs.plan import make_plan
from usbench.share.choose import Trained
from usbench.spec import Choice, RunSpec, ScheduleSpec

SETS = ("data", "ood", "pretrain_data")
PACKS = "packs"  # that a run tested on, by name
PLACES = (*SETS, "split", "init", PACKS)  # what names files
COMPUTE = ("device", "precision", "threads")
UNSURE = ("data", "split", "init")  # may name other content by the same name
UNSURE_BEFORE = ("pretrain_data", "pretrain_part")  # the same of a pretraining

Names = Callable[[str], str | None]


def spec_of(trained: Trained) -> RunSpec | None:
    """The run that made a network, with files by their names alone; None where it is not certain which one did."""
    for given in _told(trained):
        if (spec := _maker(given, trained)) is not None:
            named = {field: tuple(bare(field, text) for text in getattr(spec, field)) for field in (*SETS, "split")}
            return spec.model_copy(update={**named, "init": bare("init", spec.init)})
    return None


def bare(field: str, text: str) -> str:
    """A setting with its file by the name alone: where that lay concerns nobody else."""
    if field not in PLACES or (field in SETS and not text.endswith(".h5")):
        return _name(text) if PurePath(text).is_absolute() else text
    owner, equals, file = text.partition("=")
    if field == "split" and equals and _name(owner) == owner:
        return f"{owner}={_name(file)}"
    return _name(text)


def _name(path: str) -> str:
    return PurePath(path.replace("\\", "/")).name


def _told(trained: Trained) -> Iterator[list[dict[str, Any]]]:
    """The specs of each run and each suite that a network came of; one of them made it."""
    tests = {result.folder.name for result in trained.tests}
    for run in kept.runs(trained.store.root):
        if f"finetune-{trained.key}" in run.stages:
            yield run.specs
    for suite in kept.suites(trained.store.root):
        if tests & suite.tests or f"finetune-{trained.key}" in suite.stages:
            yield [*suite.specs, *(trial for choice in suite.choices for trial in choice["trials"])]


def _maker(given: Sequence[dict[str, Any]], trained: Trained) -> RunSpec | None:
    """That of some specs which made a network, the one of its own loss first: a baseline comes of many runs."""
    name, specs = cache(_set_name), list[RunSpec]()
    for each in given:
        with suppress(ValidationError, TypeError):
            specs.append(RunSpec(**each))
    fitting = [spec for spec in specs if _fits(spec, trained, name)]
    fitting.sort(key=lambda spec: spec.loss != trained.record["row"]["loss"])
    unsure = UNSURE + (UNSURE_BEFORE if trained.pretrained else ())
    if len({tuple(getattr(spec, field) for field in unsure) for spec in fitting}) > 1:
        return next((spec for spec in fitting if _plans(spec, trained)), None)
    return fitting[0] if fitting else None


def _fits(spec: RunSpec, trained: Trained, name: Names) -> bool:
    """Whether a run's settings are those that a network's records tell of."""
    row, identity = trained.record["row"], trained.record["identity"]
    said = {"backbone": spec.backbone, "protocol": spec.protocol, "size": spec.size, "init": _name(spec.init)}
    said |= {field: value for field in COMPUTE if (value := getattr(spec, field)) not in ("auto", 0)}
    if row.get("device") != "cpu":
        said.pop("threads", None)
    if not spec.split:
        said["fold"] = str(spec.fold) + (f" without {spec.leave_device}" if spec.leave_device else "")
    same = all(row.get(field, value) == value for field, value in said.items())
    same &= identity["seed"] in spec.seeds and float(row["label_fraction"]) in spec.labels
    same &= bool(spec.split) == ("split:" in str(row.get("fold", spec.fold)))
    if not same or not _scheduled(spec, trained) or not _named(map(name, spec.data), str(row["train_data"])):
        return False
    return not trained.pretrained or _pretrains(spec, trained, name)


def _scheduled(spec: RunSpec, trained: Trained) -> bool:
    """Whether a fine-tune took the steps that a run would have taken; a fit takes none."""
    row, identity = trained.record["row"], trained.record["identity"]
    own = {k: v for k, v in identity["protocol"]["options"].items() if k in ScheduleSpec.model_fields and k != "steps"}
    asked = {**spec.finetune.model_dump(mode="json"), **own}
    if row.get("baseline") == "long":
        asked["steps"] += spec.pretrain.steps
    return _holds(asked, identity.get("schedule"))


def _pretrains(spec: RunSpec, trained: Trained, name: Names) -> bool:
    """Whether a pretraining is the one of a run."""
    row, identity = trained.record["row"], (trained.pretrained or {})["identity"]
    own = str(row["train_data"]).split("+")
    part = "/train" if spec.pretrain_part == "train" else ""
    sets = [each and each + (part if each not in own else "") for each in map(name, spec.pretrain_data or spec.data)]
    return (
        (spec.loss, spec.aug, spec.devices) == (row["loss"], row["aug"], identity.get("devices", 1))
        and _holds(spec.pretrain.model_dump(mode="json"), identity.get("schedule"))
        and _named(sets, str(row.get("pretrain_data", row["train_data"])))
    )  # fmt: skip


def _holds(asked: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> bool:
    return all(asked.get(name) == value for name, value in (recorded or {}).items())


def _named(sets: Iterable[str | None], recorded: str) -> bool:
    """Whether data sets are called as a record has it; where nobody knows the name of one, it may be."""
    names, found = list(sets), recorded.split("+")
    return len(names) == len(found) and all(mine in (None, other) for mine, other in zip(names, found, strict=True))


def _set_name(text: str) -> str | None:
    """What the data set of a spec is called in tables; None where only its file would tell."""
    with suppress(UsbenchError):
        path = Path(text) if text.endswith(".h5") else stored_pack(text)
        if path is not None:
            return Pack(path).name
        choice = Choice.parse(text)
        entry = next((entry for entry in registry().entries("dataset") if entry.name == choice.name), None)
        return short_name(entry, choice) if entry is not None and entry.generated else choice.name
    return None


def _plans(spec: RunSpec, trained: Trained) -> bool:
    """Whether a run, planned again on what is here, holds the network."""
    identity = trained.record["identity"]
    with suppress(UsbenchError):
        asked = spec.model_copy(update={field: identity[field] for field in COMPUTE if field in identity})
        plan = make_plan(registry(), asked, lambda *_: None)
        return any(stage.id == f"finetune-{trained.key}" for stage in plan.stages)
    return False
