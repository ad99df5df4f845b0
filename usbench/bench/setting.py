"""What is measured: sizes, networks, batches, and how often. Needs no torch."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from usbench.errors import UsbenchError
from usbench.machine import available_cores, resolve_device, resolve_precision, resolve_threads

WHAT = {
    "step": "a bare step on views that lie ready / ours from end to end",
    "views": "feed and augmentation alone: lightly, kornia, torchvision / ours",
    "epoch": "a pretraining epoch as lightly's documentation runs it / ours",
    "sizes": "images a second, memory, and where the time goes, at several sizes",
    "precision": "a fine-tune step in float32 / in auto precision",
    "growth": "time and memory as the number of images grows, in the feed's memory and beyond it",
    "several": "stages an hour of small fine-tunes, by how many workers do them at once",
    "together": "a step of small fine-tunes one after the other / of all of them stacked into one model",
    "compiled": "views and trainings as they are / by torch.compile",
    "overhead": "what the harness adds to a stage; time to the first step; commands",
    "board": "stages an hour of a store, planned against taken",
}


@dataclass(frozen=True)
class Setting:
    """One bench, resolved."""

    loss: str
    aug: str
    data: str
    backbones: tuple[str, ...]
    sizes: tuple[int, ...]
    batch: int
    tuned_batch: int
    turns: int
    steps: int
    images: int
    device: str
    precision: str
    threads: int
    quick: bool
    recipe: dict[str, Any]
    asked: dict[str, dict[str, float]]
    counts: tuple[int, ...] = ()  # of images, for `growth`
    store: str = ""
    folders: tuple[str, ...] = ()  # of loose plugins
    chosen: frozenset[str] = frozenset()  # what the user gave

    @property
    def workers(self) -> int:
        """Of a DataLoader: all cores."""
        return available_cores()

    def widened(self, section: str) -> Setting:
        """The same with what the defaults have for one comparison alone, but for what the user chose."""
        if self.quick:
            return self
        lists = {"backbone": "backbones", "size": "sizes"}
        wide: dict[str, Any] = {}
        for name, value in defaults()[section].items():
            if name not in self.chosen:
                wide[lists.get(name, name)] = tuple(value) if isinstance(value, list) else value
        return replace(self, **wide)


def defaults() -> dict[str, Any]:
    """What stands in defaults.toml."""
    return tomllib.loads(files("usbench.bench").joinpath("defaults.toml").read_text("utf-8"))


def make_setting(given: dict[str, Any], *, quick: bool = False) -> Setting:
    """A setting from what the user gave, over the defaults; None and nothing mean not given."""
    known = defaults()
    chosen = {name: value for name, value in given.items() if value not in (None, (), "")}
    values = {**known["setting"], **(known["quick"] if quick else {}), **chosen}
    for name, least in (("batch", 2), ("tuned_batch", 2), ("turns", 1), ("steps", 1), ("images", values["batch"])):
        if values[name] < least:
            raise UsbenchError(f"{name} is {values[name]}: at least {least}.")
    if wrong := [size for size in values["size"] if not 32 <= size <= 1024]:
        raise UsbenchError(f"--size {wrong[0]}: from 32 to 1024 pixels.")
    device = resolve_device(values.get("device", "auto"))
    return Setting(
        loss=values["loss"], aug=values["aug"], data=values["data"], backbones=tuple(values["backbone"]),
        sizes=tuple(values["size"]), batch=values["batch"], tuned_batch=values["tuned_batch"], turns=values["turns"],
        steps=values["steps"], images=values["images"], device=device,
        precision=resolve_precision(values.get("precision", "auto"), device),
        threads=resolve_threads(values.get("threads", 0)), quick=quick, recipe=known["recipe"], asked=known["asked"],
        counts=tuple(values.get("counts", ())), store=str(values.get("store", "")),
        folders=tuple(values.get("folders", ())), chosen=frozenset(chosen),
    )  # fmt: skip
