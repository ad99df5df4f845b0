"""`sizes`: pretraining and fine-tuning at several sizes: images a second, memory, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from usbench.bench.lines import Case, Line
from usbench.bench.setting import Setting
from usbench.bench.subject import Subject, finetuning, pretraining
from usbench.bench.timing import Phases, Samples, in_own_process, synchronise, threads_pinned
from usbench.train import finetune, passes, pretrain
from usbench.train.memory import keep_freed_memory, peak_mib

LARGEST = 224  # pixels a side; above it a batch holds as many pixels as at it
WARM_UP = 2  # steps
KINDS = ("pretrain", "finetune")


def measure(setting: Setting) -> Iterator[Line]:
    """Each size, network and kind of training in a process of its own, so that its memory is its own."""
    wide = setting.widened("sizes")
    for backbone in wide.backbones:
        for size in wide.sizes:
            for kind in KINDS:
                yield _line(wide, kind, backbone, size)


def batch_at(batch: int, size: int) -> int:
    """Fewer images where they are large, a multiple of four."""
    return batch if size <= LARGEST else max(4, int(batch * (LARGEST / size) ** 2) // 4 * 4)


def _line(setting: Setting, kind: str, backbone: str, size: int) -> Line:
    batch = batch_at(setting.batch, size) if kind == "pretrain" else setting.tuned_batch
    case = Case("sizes", size, backbone, batch, setting.precision)
    if (found := in_own_process(timed, setting, kind, backbone, size, batch)) is None:
        return Line(case, kind, note="not measured: the process died (out of memory?)")
    line = Line(
        case, kind, Samples(tuple(found["rates"])), "images/s", shares=found["shares"],
        note=f"peak {found['peak_mib']} MiB",
    )  # fmt: skip
    return Line(**{**vars(line), "note": f"{line.note}; {line.shown_shares}"})


def timed(setting: Setting, kind: str, backbone: str, size: int, batch: int) -> dict[str, Any]:
    """Rates without timers inside a step, then shares with them."""
    keep_freed_memory()
    device = torch.device(setting.device)
    with TemporaryDirectory() as folder, threads_pinned(setting.threads):
        make = pretraining if kind == "pretrain" else finetuning
        subject = make(setting, backbone, size, Path(folder), batch=batch)
        subject.go_on(WARM_UP)
        rates = []
        for _ in range(setting.turns):
            synchronise(device)
            began = time.perf_counter()
            done = subject.go_on(max(1, setting.steps // 2))
            synchronise(device)
            rates.append(done * batch / (time.perf_counter() - began))
        shares = shares_of(subject, device, setting.steps)
        return {"rates": rates, "shares": shares, "peak_mib": peak_mib(next(iter(subject.training.modules.values())))}


def shares_of(subject: Subject, device: torch.device, steps: int) -> dict[str, float]:
    """Of the time of a step: feed, augmentation, forward and backward, optimiser, and the loop around them."""
    doing = subject.steps
    with Phases(device) as phases:
        if isinstance(doing, pretrain.Steps):
            phases.watch(type(doing.batches), "__call__", "batch")
            phases.watch(doing.batches.views, "draw", "augmentation")
            phases.watch(doing.batches.views, "forward", "augmentation")
            phases.watch(doing.loss, "update_teacher", "optimiser")
        else:
            phases.watch(finetune.Steps, "batch_of", "batch")
            phases.watch(finetune, "flip_rotate", "augmentation")
            phases.watch(passes, "resample", "augmentation")
        phases.watch(type(doing), "learn", "learn")
        phases.watch(doing.optimizer, "step", "optimiser")
        synchronise(device)
        began = time.perf_counter()
        subject.go_on(steps)
        synchronise(device)
        whole = time.perf_counter() - began
    spent = phases.seconds
    parts = {
        "feed": spent["batch"] - spent["augmentation"], "augmentation": spent["augmentation"],
        "forward_backward": spent["learn"] - spent["optimiser"], "optimiser": spent["optimiser"],
        "loop": whole - spent["batch"] - spent["learn"],
    }  # fmt: skip
    return {phase: seconds / whole for phase, seconds in parts.items()}
