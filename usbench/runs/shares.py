"""How the workers of one machine share it: its GPUs, their memory and the cores. Needs no torch."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections import Counter
from collections.abc import Sequence

from usbench.data.place import SHARERS
from usbench.machine import available_cores, cuda_devices
from usbench.runs.agenda import missing
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.runs.timing import Kind, Known, kind_of

MOST = 16  # workers on a machine; each holds its own torch, about 3 GiB where it uses a GPU
CONTEXT_MIB = 800  # of a process on a GPU, beside its tensors
GIVEN = 0.8  # of a GPU's free memory: allocators keep some that they do not use


def on_gpus(stages: Sequence[Stage]) -> bool:
    """Whether any of the stages wants a GPU; a test computes where its fine-tune did."""
    return any((stage.identity.get("device") or stage.row.get("device", "cpu")) != "cpu" for stage in stages)


def pins(stages: Sequence[Stage], wanted: int | None, fitting: int) -> list[dict[str, str]]:
    """The environment of each worker of this machine; empty on the CPU, where a stage's identity says how many threads.

    On GPUs: its own one, or as many as a pretraining shares, spread evenly; and, where several workers share them, how
    many do, and its part of the cores.
    """
    if not on_gpus(stages):
        return [{} for _ in range(wanted or fitting)]
    groups = _groups(stages)
    some = list(itertools.islice(itertools.cycle(groups), wanted or len(groups)))
    sharers, threads = Counter(some), max(1, available_cores() // len(some))
    return [
        {"CUDA_VISIBLE_DEVICES": group, SHARERS: str(sharers[group]), "OMP_NUM_THREADS": str(threads)} for group in some
    ]


def _groups(stages: Sequence[Stage]) -> list[str]:
    """The GPUs that are visible, by as many as one stage needs."""
    every = _visible() or [str(number) for number in range(cuda_devices())]
    share = max(stage.identity.get("devices", 1) for stage in stages)
    groups = [every[place : place + share] for place in range(0, len(every) - share + 1, share)] or [every]
    return [",".join(group) for group in groups]


def _visible() -> list[str]:
    return [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]


def fitting(plan: Plan, store: Store) -> tuple[int, str]:
    """How many stages of a plan fit on this machine at once, and why, in a sentence; the plan's own number on the CPU,
    and where nothing is left to do.

    On GPUs by the memory that like trainings took, as the records of the store have it. Where they have none, it is one
    stage a GPU: of several that do not fit, all might fail.
    """
    if not on_gpus(plan.stages) or not missing(plan.stages, store):
        return plan.workers, ""
    trained = [stage for stage in plan.stages if stage.kind != "evaluate"]
    wanted = [stage for stage in missing(plan.stages, store) if stage.kind != "evaluate"] or trained
    gpus, free, known = len(_groups(plan.stages)), free_mib(), _peaks(store)
    needs = [known.unit(kind)[0] for kind in {kind_of(stage.identity, stage.row) for stage in wanted}]
    if free is None or not needs or None in needs:
        return gpus, f"One stage at a time on each GPU ({gpus}): what fits is not known yet; --workers says otherwise."
    need = max(mib for mib in needs if mib is not None) + CONTEXT_MIB
    each = max(1, min(int(GIVEN * free / need), min(MOST, available_cores()) // gpus))
    return each * gpus, (
        f"{each} stages at a time on each GPU ({gpus}): {free} MiB are free there and a stage takes up to {need:.0f}; "
        f"{available_cores()} cores. --workers says otherwise."
    )


def _peaks(store: Store) -> Known:
    """MiB that trainings took, by kind, in the place of seconds: both grow with the pixels of a batch."""
    found: dict[Kind, list[float]] = {}
    for kind in ("pretrain", "finetune"):
        for _, record in store.records(kind):
            with contextlib.suppress(KeyError, TypeError, ValueError):  # of an older usbench, or by hand
                alike = kind_of(record["identity"], record["row"])
                found.setdefault(alike, []).append(float(record["facts"]["peak_mib"]))
    return Known(found)


def free_mib() -> int | None:
    """Of the GPU that has least of those that may be used; None where the driver's tool does not say."""
    words = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    if visible := _visible():
        words.append(f"--id={','.join(visible)}")
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(int(line) for line in said.split("\n") if line.strip())
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
