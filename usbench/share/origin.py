"""The settings that made a network, out of those that a store keeps of its runs and suites. Needs no torch."""

from __future__ import annotations

from pathlib import PurePath

from pydantic import ValidationError

from usbench.report import kept
from usbench.share.choose import Trained
from usbench.spec import RunSpec

SETS = ("data", "ood", "pretrain_data")
PACKS = "packs"  # that a run tested on, by name
PLACES = (*SETS, "split", "init", PACKS)  # what names files


def spec_of(trained: Trained) -> RunSpec | None:
    """The run that made a network, with files by their names alone; None where none that is kept asked for it."""
    loss = str(trained.record["row"].get("loss"))
    for planned in kept.those_of(f"finetune-{trained.key}", loss, kept.planned(trained.store.root)):
        try:
            spec = RunSpec(**planned.spec)
        except (ValidationError, TypeError):
            continue  # of another version
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
