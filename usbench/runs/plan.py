"""From a spec to its stages. A stage's identity holds all that changes its result, and nothing else. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from usbench.data.cohort import digest_of
from usbench.data.home import Progress, options_of
from usbench.errors import UsbenchError
from usbench.hooks import Entry, Registry
from usbench.machine import available_cores, cuda_devices, resolve_device, resolve_precision, resolve_threads
from usbench.runs.memory import AUTO
from usbench.runs.needs import check_devices, check_needs
from usbench.runs.same import start_of
from usbench.runs.sources import Sources, Tested
from usbench.runs.stage import Plan, Stage, unique
from usbench.spec import Choice, RunSpec, ScheduleSpec, key_of

MAX_WORKERS = 4  # each holds its own torch, about 1 GiB
REVISION = {"pretrain": 2, "finetune": 2, "evaluate": 2}  # raise one when the harness changes what a stage computes


Part = tuple[Entry, dict[str, Any], str]  # a plugin, its resolved options, and how the user wrote it


@dataclass(frozen=True)
class Common:
    """What the trials of a chosen setting share, so that all rows of a table had the same ones."""

    spec: RunSpec
    over: dict[str, Any]


class Planner:
    """Resolves names to plugins and packs, and lays out stages."""

    def __init__(self, registry: Registry, spec: RunSpec, progress: Progress, common: Common | None = None) -> None:
        self.registry, self.spec = registry, spec
        self.common = common
        self.loss = self._choose("loss", spec.loss)
        self.steps = [self._choose("augmentation", text) for text in spec.aug.split("+")]
        self.backbone = self._choose("backbone", spec.backbone)
        self.protocol = self._choose("protocol", spec.protocol)
        device = resolve_device(spec.device)
        self.compute: dict[str, Any] = {
            "device": device,
            "precision": resolve_precision(spec.precision, device),
            "threads": resolve_threads(spec.threads) if device == "cpu" else 0,
        }
        if spec.devices > 1:
            found = cuda_devices() if device == "cuda" else 0
            check_devices(self.loss[0], spec.devices, device, spec.pretrain.batch, found)
        self.init = start_of(spec.init)
        self.schedule = self._schedule(spec)
        self.sources = Sources(registry, spec, progress)
        check_needs(
            registry,
            self.sources,
            self.loss[0],
            [entry for entry, _, _ in self.steps],
            self.protocol[0],
            self.backbone[0],
        )
        self.sources.check_tests()
        self.leaks = self.sources.leaks()

    def _choose(self, kind: str, text: str) -> Part:
        choice = Choice.parse(text)
        entry = self.registry.get(kind, choice.name)
        return entry, options_of(entry, choice), str(choice)

    @staticmethod
    def _identity(part: Part) -> dict[str, Any]:
        entry, options, _ = part
        return {
            "name": entry.name, "options": _plain(options), "fixed": _plain(dict(entry.fixed)),
            "source": entry.source, "revision": entry.revision,
        }  # fmt: skip

    def _schedule(self, spec: RunSpec) -> ScheduleSpec | None:
        """That of the fine-tune: the run's, but for the settings that the protocol has as options; None for a fit."""
        entry, options, _ = self.protocol
        if entry.frozen:
            if self.loss[0].baseline == "long":
                raise UsbenchError(f"{self._meaningless(self.loss[0])}: name another --loss.")
            return None
        own = {n: value for n, value in options.items() if n in ScheduleSpec.model_fields and n != "steps"}
        try:
            return ScheduleSpec(**{**spec.finetune.model_dump(), **own})
        except ValidationError as error:
            first = error.errors()[0]
            raise UsbenchError(
                f"protocol '{entry.name}' refuses {first['loc'][0]}={first['input']!r}: {first['msg'].lower()}."
            ) from None

    def _meaningless(self, entry: Entry) -> str:
        return f"{entry.name} under protocol '{self.protocol[0].name}', which takes no step that it could spend"

    def _base(self, kind: str, seed: int) -> dict[str, Any]:
        return {
            "kind": kind, "revision": REVISION[kind], "backbone": self._identity(self.backbone),
            "init": self.init, "size": self.spec.size, "seed": seed, **self.compute, **self._products(),
        }  # fmt: skip

    def _products(self) -> dict[str, Any]:
        """Float32 on a GPU is float32, and was TF32 where torch rounds to it."""
        full = (self.compute["device"], self.compute["precision"]) == ("cuda", "float32")
        return {"products": "ieee"} if full else {}

    def _row(self, part: Part) -> dict[str, Any]:
        entry, _, text = part
        return {
            "loss": text, "aug": self.spec.aug if entry.factory is not None else "none",
            "backbone": self.backbone[2], "init": Path(self.spec.init).name, "train_data": self.sources.cohort.name,
            "pretrain_data": "+".join(self.sources.pretrained) if entry.factory is not None else "none",
            "baseline": entry.baseline, "reconstruction": entry.reconstruction,
            "protocol": self.protocol[2], "fold": self.sources.label, "size": self.spec.size,
            **{k: self.compute[k] for k in ("device", "precision", "threads")},
        }  # fmt: skip

    def _places(self, part: Part) -> dict[str, Any]:
        return {
            "init": self.spec.init, **self.sources.places(), **({AUTO: True} if self.spec.auto_batch else {}),
            "plugins": {
                "loss": [part[0].name, part[1]], "backbone": [self.backbone[0].name, self.backbone[1]],
                "steps": [[entry.name, options] for entry, options, _ in self.steps],
                "protocol": [self.protocol[0].name, self.protocol[1]],
            },
        }  # fmt: skip

    def baselines(self) -> tuple[list[Part], list[str]]:
        """The baselines that no table may lack, and the names of those that cannot be run."""
        rows = [
            (entry, dict(entry.options), entry.name)
            for entry in self.registry.entries("loss")
            if entry.factory is None and entry.name != self.loss[0].name
        ]
        missing = []
        if self.schedule is None:
            missing += [self._meaningless(entry) for entry, _, _ in rows if entry.baseline == "long"]
            rows = [row for row in rows if row[0].baseline != "long"]
        starts = {"random": "random", "ImageNet": "imagenet"}
        missing += [
            f"none with {name} weights: run it with --loss none --init {init}"
            for name, init in starts.items()
            if init != self.spec.init
        ]
        return rows, missing

    def lay_out(self) -> Plan:
        """All stages of the run and of its baselines."""
        others, missing = self.baselines()
        stages = [
            stage for seed in self.spec.seeds for part in (self.loss, *others) for stage in self._line(part, seed)
        ]
        threads = self.compute["threads"]
        workers = min(MAX_WORKERS, max(1, available_cores() // threads)) if threads else 1
        return Plan(self.spec, unique(stages), missing, workers)

    def _standing(self, part: Part, tuned: Stage, source: Stage | None, tested: str) -> dict[str, str]:
        """Where a result stands: `arena` is what compared rows share, `setting` is a row, whatever its seed."""
        of_seed = ("seed", "labelled", "inner", "pretrained")
        chain = [{k: v for k, v in s.identity.items() if k not in of_seed} for s in (tuned, source) if s is not None]
        shared = {k: v for k, v in chain[0].items() if k != "schedule"}
        where = [tuned.row["label_fraction"], self.sources.pool, tested]
        recipe = self._schedule(self.common.spec) if self.common else self.schedule
        arena = {"shared": shared, "schedule": _schedule(recipe) if recipe else None, "where": where}
        if self.common:
            arena["chosen"] = self.common.over
        return {"arena": key_of(arena), "setting": key_of({"chain": chain, "where": where, "loss": part[0].name})}

    def _line(self, part: Part, seed: int) -> Iterator[Stage]:
        """One loss at one seed: pretraining, a fine-tune a fraction, a test a set."""
        row = {**self._row(part), "seed": seed}
        places = self._places(part)
        source: Stage | None = None
        if part[0].factory is not None:
            source = Stage(
                "pretrain", f"pretrain {part[2]}, seed {seed}",
                {
                    **self._base("pretrain", seed), "loss": self._identity(part),
                    "aug": [self._identity(step) for step in self.steps],
                    "images": digest_of(self.sources.pretrain), "schedule": _schedule(self.spec.pretrain),
                    **({"hidden": hidden} if part[0].learns_labels and (hidden := self.sources.hidden) else {}),
                    **({"devices": self.spec.devices} if self.spec.devices > 1 else {}),  # sums in another order
                },
                row, places,
            )  # fmt: skip
            yield source
        schedule = self.schedule
        if schedule and part[0].baseline == "long":
            schedule = schedule.model_copy(update={"steps": schedule.steps + self.spec.pretrain.steps})
        for fraction in self.spec.labels:
            labelled, inner = self.sources.fraction(fraction, seed)
            tuned = Stage(
                "finetune", f"{'fine-tune' if schedule else 'fit'} {part[2]} on {fraction:g} %, seed {seed}",
                {
                    **self._base("finetune", seed), "protocol": self._identity(self.protocol),
                    "pretrained": source.key if source else None, "labelled": digest_of(labelled),
                    "inner": digest_of(inner), **({"schedule": _schedule(schedule)} if schedule else {}),
                    **({"classes": list(classes)} if (classes := self.sources.wanted.classes) is not None else {}),
                },
                {**row, "label_fraction": fraction},
                {**places, "pretrained": source.id if source else None},
                (source.id,) if source else (),
            )  # fmt: skip
            yield tuned
            for test in (*self.sources.tests, *self.sources.corrupted):
                yield self._test(part, test, tuned, source)

    def _test(self, part: Part, test: Tested, tuned: Stage, source: Stage | None) -> Stage:
        images = digest_of([(test.pack, test.rows)])
        shift = {"shift": test.corruption} if test.corruption else {}
        tested = key_of({"images": images, **shift}) if shift else images
        shown = f"{test.name}, {test.shift}" if shift else test.name
        fraction = tuned.row["label_fraction"]
        standing = self._standing(part, tuned, source, tested)
        return Stage(
            "evaluate", f"test {part[2]} ({fraction:g} %, seed {tuned.row['seed']}) on {shown}",
            {
                "kind": "evaluate", "revision": REVISION["evaluate"], "finetuned": tuned.key,
                "protocol": self._identity(self.protocol), "images": images, "label_fraction": fraction, **shift,
                **standing,
            },
            {
                **tuned.row, "test_data": test.name, "shift": self.sources.shift(test, pretrained=source is not None),
                "leaks": self.leaks[test.name, source is not None], **standing,
            },
            {"plugins": tuned.places["plugins"], "finetuned": tuned.id, **self.sources.test_places(test)},
            (tuned.id,),
        )  # fmt: skip


def _schedule(spec: ScheduleSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json")


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


def make_plan(registry: Registry, spec: RunSpec, progress: Progress, *, common: Common | None = None) -> Plan:
    """Resolve a spec against what is installed and on disk; a trial says what it shares with the others."""
    return Planner(registry, spec, progress, common).lay_out()
