"""`growth`: what grows with the number of images: time per step and resident memory, inside the feed's memory and
beyond it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import torch

from usbench.bench.lines import Case, Line, against
from usbench.bench.setting import Setting
from usbench.bench.subject import pack_of, pretraining
from usbench.bench.timing import Samples, in_own_process, synchronise, threads_pinned
from usbench.data.pack import FIELDS, TEXT, Pack
from usbench.data.room import SETTING
from usbench.train.memory import keep_freed_memory, peak_mib

CLIP = 20  # frames of a video
STATUS = Path("/proc/self/status")
WARM_UP = 3  # steps
FEEDS = {"held": "1000000", "streamed": "0"}  # MiB that a feed may hold


def measure(setting: Setting) -> Iterator[Line]:
    """Each number of images, size and feed in a process of its own, on a pack of phantom frames made for it."""
    wide = setting.widened("growth")
    if not STATUS.is_file():
        yield Line(Case("growth"), "steps", note=f"not measured: memory is read from {STATUS}, which is not here")
        return
    source = pack_of(wide)
    found: dict[tuple[int, str, int], dict[str, Any] | None] = {}
    with TemporaryDirectory() as home:
        for count in wide.counts:
            path = Path(home) / f"growth-{count}.h5"
            write(path, source, count)
            for size in wide.sizes:
                for feed in FEEDS:
                    found[size, feed, count] = in_own_process(timed, replace(wide, data=str(path)), size, feed, home)
            path.unlink()
    for size in wide.sizes:
        for feed in FEEDS:
            yield from lines(wide, size, feed, {count: found[size, feed, count] for count in wide.counts})


def lines(setting: Setting, size: int, feed: str, found: dict[int, dict[str, Any] | None]) -> Iterator[Line]:
    """Time and memory at each number of images, and how many times those of the number before it."""
    case = Case("growth", size, setting.backbones[0], setting.batch, setting.precision)
    before: dict[str, tuple[int, float]] = {}  # of time or memory: of how many images, and how much
    for count, of in found.items():
        if of is None:
            yield Line(case, f"step, {count} {feed}", note="not measured: the process died (out of memory?)")
            continue
        for what, unit in (("step", "ms"), ("memory", "MiB")):
            samples, ratio, ratio_of = Samples(tuple(of[what])), None, ""
            asked: tuple[str, bool | None] = "", None
            if what in before:
                ratio, ratio_of = Samples((samples.median / before[what][1],)), f"of that at {before[what][0]}"
                name = f"growth, {what} {feed} at {size} px from {before[what][0]}"
                asked = against(setting, name, ratio.median, most=True)
            yield Line(
                case, f"{what}, {count} {feed}", samples, unit, ratio=ratio, ratio_of=ratio_of,
                asked=asked[0], met=asked[1], note=of[f"{what}_note"],
            )  # fmt: skip
            before[what] = count, samples.median


def timed(setting: Setting, size: int, feed: str, home: str) -> dict[str, Any]:
    """Steps of a pretraining on the whole pack, with so much memory for its feed."""
    os.environ |= {SETTING: FEEDS[feed], "USBENCH_DATA": home}  # shrunk copies go with the pack
    keep_freed_memory()
    device, most, began = torch.device(setting.device), [0.0], time.perf_counter()

    def seconds(work: Callable[[int], object], first: int) -> list[float]:
        """Of each step."""
        found = []
        for step in range(first, first + WARM_UP + setting.steps):
            synchronise(device)
            start = time.perf_counter()
            work(step)
            synchronise(device)
            found.append(time.perf_counter() - start)
            most.append(resident("RssAnon"))
        return found[WARM_UP:]

    with TemporaryDirectory() as folder, threads_pinned(setting.threads):
        subject = pretraining(setting, setting.backbones[0], size, Path(folder), whole=True)
        subject.steps.batches(0)  # type: ignore[union-attr]
        opened = time.perf_counter() - began
        alone = seconds(subject.steps.batches, 1)  # type: ignore[union-attr]
        steps = seconds(subject.steps, 1 + len(alone) + WARM_UP)
    beside = f"anonymous; {resident('RssFile'):.0f} MiB of files beside it"
    if device.type == "cuda":
        beside += f", and {peak_mib(next(iter(subject.training.modules.values())))} MiB on the device"
    return {
        "step": [1e3 * s for s in steps], "memory": [max(most)], "memory_note": beside,
        "step_note": f"feed and augmentation {1e3 * statistics.median(alone):.1f} ms; first batch after {opened:.1f} s",
    }  # fmt: skip


def resident(what: str) -> float:
    """MiB of this process's memory of a kind: RssAnon is all that it holds but pages of files, which are RssFile and
    which the system takes back when it wants them."""
    lines = STATUS.read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:"))


def write(path: Path, source: Pack, count: int) -> None:
    """A pack of so many frames, each a thousand of them shifted and dimmed otherwise; masks and sectors are copied as
    they lie compressed."""
    frames, which, side = np.asarray(source.images[:]), np.arange(count) % source.count, source.size
    rng = np.random.default_rng(0)
    with h5py.File(source.path, "r") as old, h5py.File(path, "w") as new:
        images = new.create_dataset("images", (count, side, side), np.uint8)
        for start in range(0, count, 1000):
            some = frames[which[start : start + 1000]]
            shifted = np.roll(some, int(rng.integers(side)), axis=2)
            images[start : start + 1000] = (shifted * rng.uniform(0.7, 1.0, (len(some), 1, 1))).astype(np.uint8)
        for name in ("mask", "sector"):
            lying = [old[name].id.read_direct_chunk((i, 0, 0))[1] for i in range(source.count)]
            plane = new.create_dataset(
                name, images.shape, np.bool_, chunks=(1, side, side), compression="gzip", compression_opts=1
            )
            for row, i in enumerate(which):
                plane.id.write_direct_chunk((row, 0, 0), lying[i])
        given = {name: source.table[name].to_numpy()[which] for name in FIELDS}
        given["name"] = np.array([f"{i:06d}" for i in range(count)], object)
        given["video"] = given["patient"] = np.array([f"v{i // CLIP:05d}" for i in range(count)], object)
        given["group"], given["frame"] = np.arange(count) // CLIP, np.arange(count) % CLIP
        for name, dtype in FIELDS.items():
            new.create_dataset(name, data=given[name].astype(object if dtype is TEXT else dtype), dtype=dtype)
        new.attrs.update({**dict(old.attrs), "digest": f"{count:032x}"})
