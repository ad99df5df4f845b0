"""What grows with the number of images: time per step and resident memory, inside the feed's memory and beyond it.

    python benchmarks/perf/growth.py -o growth.csv

Each line is a pretraining in a process of its own, on a pack of phantom frames, each shifted and dimmed otherwise. At
128 px the pack's own images are mapped, at 64 px a file of shrunk ones. `open_s` is all before the first batch, with
the writing of such files. `batch_ms` is feed and augmentation alone, `step_ms` a whole step, and `…_cpu_ms` the
processor's time of the same, which a busy machine disturbs less; all are medians.

`anon_mib` is the most anonymous memory that the process had after any step (RssAnon of /proc/self/status): all that it
holds but pages of files, which the system takes back when it wants them. `file_mib` are those, of libraries and packs,
at the end; `network_mib` is what it held before it opened the pack.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from usbench.data.home import find_pack, options_of
from usbench.data.pack import FIELDS, TEXT, Pack
from usbench.data.room import SETTING
from usbench.hooks import registry
from usbench.spec import Choice

PACK_SIZE = 128
CLIP = 20  # frames of a video


def resident(what: str) -> float:
    """MiB of this process's memory of a kind."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this measures /proc/self/status, which this system does not have.")


def write(path: Path, source: Pack, count: int) -> None:
    """A pack of so many frames, a thousand at a time; masks and sectors are copied as they lie compressed."""
    frames, which = np.asarray(source.images[:]), np.arange(count) % source.count
    rng = np.random.default_rng(0)
    with h5py.File(source.path, "r") as old, h5py.File(path, "w") as new:
        images = new.create_dataset("images", (count, PACK_SIZE, PACK_SIZE), np.uint8)
        for start in range(0, count, 1000):
            some = frames[which[start : start + 1000]]
            shifted = np.roll(some, int(rng.integers(PACK_SIZE)), axis=2)
            images[start : start + 1000] = (shifted * rng.uniform(0.7, 1.0, (len(some), 1, 1))).astype(np.uint8)
        for name in ("mask", "sector"):
            plane = new.create_dataset(
                name, images.shape, np.bool_, chunks=(1, PACK_SIZE, PACK_SIZE), compression="gzip", compression_opts=1
            )
            lying = [old[name].id.read_direct_chunk((i, 0, 0))[1] for i in range(source.count)]
            for row, i in enumerate(which):
                plane.id.write_direct_chunk((row, 0, 0), lying[i])
        given = {name: source.table[name].to_numpy()[which] for name in FIELDS}
        given["name"] = np.array([f"{i:06d}" for i in range(count)], object)
        given["video"] = given["patient"] = np.array([f"v{i // CLIP:05d}" for i in range(count)], object)
        given["group"], given["frame"] = np.arange(count) // CLIP, np.arange(count) % CLIP
        for name, dtype in FIELDS.items():
            new.create_dataset(name, data=given[name].astype(object if dtype is TEXT else dtype), dtype=dtype)
        new.attrs.update({**dict(old.attrs), "digest": f"growth-{count}"})


def measure(path: Path, size: int, steps: int, batch: int) -> dict[str, float]:
    """Pretrain for some steps and say what it took."""
    import torch

    from usbench.data.feed import Batches, Feed
    from usbench.draws import seed_globals
    from usbench.spec import resolve_device, resolve_precision
    from usbench.train.loop import Compute, Schedule, adamw, keep_freed_memory
    from usbench.train.networks import build_network
    from usbench.train.pretrain import Part, build_loss, build_views

    def part(kind: str, text: str) -> Part:
        entry = registry().get(kind, text)
        return Part(entry, options_of(entry, Choice.parse(text)))

    keep_freed_memory()
    device = torch.device(resolve_device("auto"))
    compute, schedule = Compute(device, resolve_precision("auto", device.type)), Schedule(10**6, batch, 1e-3, 1e-4, 0.1)
    network = build_network(part("backbone", "unet-tiny").entry, {}, size, 0)
    loss = build_loss(part("loss", "simclr"), network, schedule, compute, 0)
    views = build_views((part("augmentation", "freq"),), size, loss.views)
    optimizer, network_mib, began = adamw(schedule, [(loss, 1.0)]), resident("RssAnon"), time.perf_counter()
    pack = Pack(path)
    feed = Feed([(pack, np.arange(pack.count))], size, device, sectors=views.wants_sector)
    batches = Batches(feed, views, loss.item, batch=batch, total=schedule.steps, seed=0)
    batches(0)
    opened = time.perf_counter() - began
    most = [resident("RssAnon")]

    def train(step: int) -> None:
        seed_globals(0, "pretrain", step)
        loss.step(batches(step), optimizer)

    def timed(work: Callable[[int], object], first: int, last: int) -> tuple[float, float]:
        found = []
        for step in range(first, last):
            start = time.perf_counter(), time.process_time()
            work(step)
            if device.type == "cuda":
                torch.cuda.synchronize()
            found.append((time.perf_counter() - start[0], time.process_time() - start[1]))
            most.append(resident("RssAnon"))
        wall, cpu = (statistics.median(of) * 1e3 for of in zip(*found[3:], strict=True))
        return wall, cpu

    alone, whole = timed(batches, 1, steps), timed(train, steps, 2 * steps)
    return {
        "open_s": opened, "batch_ms": alone[0], "batch_cpu_ms": alone[1], "step_ms": whole[0], "step_cpu_ms": whole[1],
        "network_mib": network_mib, "anon_mib": max(most), "file_mib": resident("RssFile"),
    }  # fmt: skip


def main() -> None:
    """Measure every case in a process of its own, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("growth.csv"))
    parser.add_argument("--counts", default="1000,10000,100000")
    parser.add_argument("--sizes", default="64,128")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="for the packs, which take 2.5 GB at 100000 images and are removed")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # pack,size: what a process of its own does
    given = parser.parse_args()
    if given.one:
        path, size = given.one.rsplit(",", 1)
        print(json.dumps(measure(Path(path), int(size), given.steps, given.batch)))
        return
    source = find_pack(registry(), f"phantom:l7,size={PACK_SIZE}", lambda *_: None)
    rows = []
    with tempfile.TemporaryDirectory(dir=given.folder) as home:
        for count in map(int, given.counts.split(",")):
            path = Path(home) / f"growth-{count}.h5"
            write(path, source, count)
            for size in map(int, given.sizes.split(",")):
                for feed, mib in (("held", "1000000"), ("streamed", "0")):
                    words = ["--one", f"{path},{size}", "--steps", str(given.steps), "--batch", str(given.batch)]
                    done = subprocess.run(
                        [sys.executable, __file__, *words], capture_output=True, text=True, check=True,
                        env={**os.environ, SETTING: mib, "USBENCH_DATA": home},
                    )  # fmt: skip
                    rows.append({"images": count, "size": size, "feed": feed, **json.loads(done.stdout)})
                    print({k: round(v, 1) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
            path.unlink()
    table = pd.DataFrame(rows).sort_values(["size", "feed", "images"], ignore_index=True)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.output, index=False, float_format="%.1f")
    print(table.round(1).to_string(index=False))


if __name__ == "__main__":
    main()
