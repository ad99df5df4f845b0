"""How long stages will take: by what like ones took, or by a few steps of the real thing. Needs torch only for that."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from usbench.errors import Interrupted, OutOfMemory
from usbench.hooks import Registry
from usbench.runs.agenda import missing
from usbench.runs.stage import KINDS, Stage
from usbench.runs.store import Store
from usbench.source import told

PROBE_SECONDS = 10.0
PROBE_STEPS = 20
RECORDED, SCALED, MEASURED, UNKNOWN = "recorded", "scaled from like ones", "measured", "unknown"


@dataclass(frozen=True)
class Kind:
    """What decides how long a step of a training takes, or a test."""

    kind: str
    method: str  # the loss and its augmentation, or the protocol
    backbone: str
    device: str
    how: str  # precision and threads
    size: int
    batch: int  # 0 of what takes no steps, whose unit is the whole stage

    def __str__(self) -> str:
        batch = f", batch {self.batch}" if self.batch else ""
        return f"{self.kind} {self.method}, {self.backbone} at {self.size} px{batch}, {self.device}, {self.how}"

    @property
    def pixels(self) -> int:
        """Of a step, but for the number of views."""
        return max(1, self.batch) * self.size**2


@dataclass(frozen=True)
class Estimate:
    """The missing stages of a kind, and how long they will take; None where nobody knows."""

    kind: Kind
    stages: int
    seconds: float | None
    by: str


def kind_of(identity: Mapping[str, Any], row: Mapping[str, Any]) -> Kind:
    """The kind of a stage, by its identity and by how it stands in tables."""
    methods = {
        "pretrain": "{loss} under {aug}", "finetune": "by {protocol}", "evaluate": "by {protocol} on {test_data}",
    }  # fmt: skip
    kind = str(identity["kind"])
    batch = int((identity.get("schedule") or {}).get("batch", 0))
    how = f"{row['precision']}, {row['threads']} threads" if row["threads"] else str(row["precision"])
    method, backbone = methods[kind].format_map(row), f"{row['backbone']}"
    return Kind(kind, method, backbone, str(row["device"]), how, int(row["size"]), batch)


@dataclass
class Known:
    """Seconds of a unit (a step, or a whole stage without steps) by kind, from the records of some stores."""

    seconds: dict[Kind, list[float]]

    @classmethod
    def of(cls, stores: Iterable[Store]) -> Known:
        """Read every record of the stores."""
        return cls.from_records(record for store in stores for kind in KINDS for _, record in store.records(kind))

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]]) -> Known:
        """Learn from these."""
        found: dict[Kind, list[float]] = {}
        for record in records:
            # Of an older usbench, or by hand, it may lack any of it.
            with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                steps = int((record["identity"].get("schedule") or {}).get("steps", 0))
                took: Any = record["facts"].get("device_seconds") if steps else record.get("seconds")
                alike = kind_of(record["identity"], record["row"])
                found.setdefault(alike, []).append(float(took) / max(1, steps))
        return cls(found)

    def unit(self, kind: Kind) -> tuple[float | None, str]:
        """The seconds of a unit, and how they are known."""
        if kind in self.seconds:
            return statistics.median(self.seconds[kind]), RECORDED
        for alike in (self._other_size, self._other_method, self._other_backbone):
            if (found := alike(kind)) is not None:
                return found * kind.pixels, SCALED
        return None, UNKNOWN

    def _a_pixel(self, fits: Callable[[Kind], bool]) -> float | None:
        every = [s / k.pixels for k, values in self.seconds.items() if fits(k) for s in values]
        return statistics.median(every) if every else None

    def _other_size(self, kind: Kind) -> float | None:
        free: dict[str, Any] = {"size": 0, "batch": 0, "how": ""}
        return self._a_pixel(lambda k: replace(k, **free) == replace(kind, **free))

    def _other_method(self, kind: Kind) -> float | None:
        free: dict[str, Any] = {"size": 0, "batch": 0, "how": "", "method": ""}
        steps = bool(kind.batch)
        return self._a_pixel(lambda k: bool(k.batch) == steps and replace(k, **free) == replace(kind, **free))

    def _other_backbone(self, kind: Kind) -> float | None:
        """As this kind of stage takes on another backbone, and another kind of stage on both."""
        for other in {k.kind for k in self.seconds if k.kind != kind.kind and k.batch}:
            here = self._other_method(replace(kind, kind=other, batch=max(1, kind.batch)))
            if here is None:
                continue
            for backbone in {k.backbone for k in self.seconds}:
                elsewhere = self._other_method(replace(kind, backbone=backbone))
                both = self._other_method(replace(kind, kind=other, backbone=backbone, batch=max(1, kind.batch)))
                if elsewhere is not None and both:
                    return elsewhere * here / both
        return None


def estimates(
    stages: Iterable[Stage], store: Store, known: Known, measured: Mapping[Kind, float] | None = None
) -> list[Estimate]:
    """For each kind of stage that is missing, how long all of them take one after the other."""
    found: dict[Kind, list[Stage]] = {}
    for stage in missing(stages, store):
        found.setdefault(kind_of(stage.identity, stage.row), []).append(stage)
    rows = []
    for kind, some in found.items():
        unit, by = known.unit(kind)
        if measured and kind in measured and by != RECORDED:
            unit, by = measured[kind], MEASURED
        units = sum(max(1, stage.steps) for stage in some)
        rows.append(Estimate(kind, len(some), None if unit is None else unit * units, by))
    return rows


def measure(
    stages: Iterable[Stage], store: Store, known: Known, registry: Registry, tell: Callable[[str], None]
) -> dict[Kind, float]:
    """Seconds of a step of each kind of missing training that no record knows, by some steps of it.

    The network, the batch and the views are the true ones. What is made lies in a temporary folder.
    """
    wanted: dict[Kind, Stage] = {}
    for stage in missing(stages, store):
        kind = kind_of(stage.identity, stage.row)
        if stage.steps and kind not in known.seconds:
            wanted.setdefault(kind, stage)
    found = {}
    for kind, stage in wanted.items():
        tell(str(kind))
        plugins = (entry.where for entry in registry.entries())
        with contextlib.suppress(OutOfMemory), told(stage.title, plugins):  # without memory nobody knows
            found[kind] = _probe(stage, registry)
    return found


class _Clock:
    """A watcher that stops soon, and notes when which step was done.

    A training in this process asks after every step whether to stop. Processes that share one are spoken to by somebody
    who asks whenever he likes, and passes on what they say of their steps.
    """

    def __init__(self, *, shared: bool) -> None:
        self.shared, self.asked = shared, 0
        self.done: list[tuple[int, float]] = []  # steps, and when

    @property
    def stopping(self) -> bool:
        if not self.shared:
            self.asked += 1
            self.done.append((self.asked, time.perf_counter()))
        if len(self.done) < 2:
            return False
        (first, began), (last, now) = self.done[0], self.done[-1]
        return last - first >= PROBE_STEPS or now - began > PROBE_SECONDS

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        if self.shared:
            self.done.append((done, time.perf_counter()))

    @property
    def seconds(self) -> float | None:
        """Of a step; None where too few were seen."""
        if len(self.done) < 2 or self.done[-1][0] == self.done[0][0]:
            return None
        (first, began), (last, now) = self.done[0], self.done[-1]
        return (now - began) / (last - first)


def _probe(stage: Stage, registry: Registry) -> float:
    """Seconds of a step. The first one is left out: it makes what later ones find made."""
    from usbench.runs.stages import Stages

    # What a fine-tune begins with does not change how long it takes.
    alone = replace(stage, places={**stage.places, "pretrained": None}, needs=())
    clock = _Clock(shared=stage.identity.get("devices", 1) > 1)
    with tempfile.TemporaryDirectory(prefix="usbench-time-") as place:
        try:
            facts = Stages(Store(Path(place)), registry).attempt(alone, Path(place), clock)
        except Interrupted:
            facts = {}
    return clock.seconds or float(facts["device_seconds"]) / stage.steps
