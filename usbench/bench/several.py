"""`several`: small fine-tunes and their tests by several workers at once: which number of them does most in an hour."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from usbench.bench.lines import Case, Line
from usbench.bench.setting import Setting
from usbench.bench.subject import known_to
from usbench.bench.timing import Samples
from usbench.errors import RunFailed
from usbench.machine import available_cores
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.spec import resolve

ON_GPUS = (1, 2, 4, 8)
EACH = 4  # fine-tunes a worker, each with its test


def measure(setting: Setting) -> Iterator[Line]:
    """Every number of workers, each on a store of its own."""
    wide = setting.widened("several")
    counts = (1,) if wide.quick else ON_GPUS if wide.device == "cuda" else tuple(sorted({1, available_cores()}))
    case = Case("several", wide.sizes[0], wide.backbones[0], wide.tuned_batch, wide.precision)
    first: Samples | None = None
    for workers in counts:
        watch, plan = _Watch(), tunes(wide, EACH * workers)
        side = f"{workers} worker{'s' if workers > 1 else ''}"
        try:
            with TemporaryDirectory() as folder:
                run_plan(plan, Store(Path(folder) / "runs").open(), known_to(wide), watch, workers=workers)
        except RunFailed as error:
            yield Line(case, side, note=f"not measured: {error}")
            continue
        rate = Samples((hourly(watch.ended, workers),))
        yield Line(
            case, side, rate, "stages/h", ratio=rate.over(first) if first else None,
            ratio_of="times one worker" if first else "",
            note=f"{len(plan.stages)} stages, fine-tunes of {wide.steps} steps and their tests; while all are at work",
        )  # fmt: skip
        first = rate if workers == 1 else first


def tunes(setting: Setting, count: int) -> Plan:
    """So many seeds of the baseline that is only fine-tuned."""
    known = known_to(setting)
    plain = next(entry.name for entry in known.entries("loss") if entry.baseline == "plain")
    spec = resolve({
        "loss": plain, "backbone": setting.backbones[0], "size": setting.sizes[0], "data": [setting.data],
        "labels": [100], "seeds": list(range(count)), "device": setting.device, "precision": setting.precision,
        "threads": 1, "finetune": {"steps": setting.steps, "batch": setting.tuned_batch},
    })  # fmt: skip
    plan = make_plan(known, spec, lambda *_: None)
    return Plan(spec, [stage for stage in plan.stages if stage.row["loss"] == plain], [])


def hourly(ended: list[float], workers: int) -> float:
    """Stages an hour by the times at which they ended, without the beginning and the end, when not all workers are at
    work: until as many stages have ended as there are workers, and from when fewer are left than these."""
    busy = ended[workers - 1 : len(ended) - workers + 1]
    return 3600 * (len(busy) - 1) / max(1e-9, busy[-1] - busy[0])


class _Watch:
    """An observer that notes when each stage ended."""

    stopping = False

    def __init__(self) -> None:
        self.ended: list[float] = []

    def begin(self, stage: Stage, place: int, total: int) -> None:
        """Nothing is said."""

    def step(self, stage: Stage, *facts: Any) -> None:
        """Nothing is said."""

    def end(self, stage: Stage) -> None:
        """The clock is read."""
        self.ended.append(time.perf_counter())

    def fail(self, stage: Stage, why: str) -> None:
        """The run says so at its end."""

    def wait(self, stage: Stage, who: str) -> None:
        """Nobody else works on the store."""
