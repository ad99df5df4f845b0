"""How much of a pretraining step is the step itself: ours end to end against a bare step on pre-staged tensors.

    python benchmarks/perf/pretrain_step.py --loss simclr --aug freq --size 64 --backbone unet-tiny --batch 64

Both do the same forward, backward, optimiser step and teacher update on batches of the same shape, in turns, so that a
busy machine slows both. "Ours" also seeds, draws, gathers, resamples and augments. The ratio is bare / ours: 1 would
mean that the feed and the augmentation cost nothing.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from usbench.data.feed import Batches, Feed
from usbench.data.home import find_pack, options_of
from usbench.data.splits import fold_split
from usbench.draws import seed_globals
from usbench.hooks import registry
from usbench.spec import Choice, available_cores, resolve_device, resolve_precision
from usbench.train.loop import Compute, Schedule, adamw, keep_freed_memory
from usbench.train.networks import build_network
from usbench.train.pretrain import Part, build_loss, build_views


def part(kind: str, text: str) -> Part:
    """A plugin by its text form."""
    choice = Choice.parse(text)
    entry = registry().get(kind, choice.name)
    return Part(entry, options_of(entry, choice))


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", default="rcl")
    parser.add_argument("--aug", default="freq")
    parser.add_argument("--backbone", default="unet-tiny")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()

    keep_freed_memory()
    torch.set_num_threads(given.threads)
    device = torch.device(resolve_device("auto"))
    compute = Compute(device, resolve_precision("auto", device.type))
    pack = find_pack(registry(), f"phantom:l7,size={max(128, given.size)}", lambda *_: None)
    backbone = part("backbone", given.backbone)
    network = build_network(backbone.entry, backbone.options, given.size, 0)
    schedule = Schedule(1000, given.batch, 1e-3, 1e-4, 0.1)
    loss = build_loss(part("loss", given.loss), network, schedule, compute, 0)
    views = build_views((part("augmentation", given.aug),), given.size, loss.views)
    feed = Feed([(pack, fold_split(pack, 0)[0])], given.size, device, sectors=views.wants_sector)
    batches = Batches(feed, views, loss.item, batch=given.batch, total=1000, seed=0)
    optimizer = adamw(schedule, [(loss, 1.0)])
    staged = [batches(step) for step in range(4)]

    def bare(step: int) -> None:
        loss.step(staged[step % len(staged)], optimizer)
        loss.update_teacher(0.5)

    def ours(step: int) -> None:
        seed_globals(0, "pretrain", step)
        loss.step(batches(step), optimizer)
        loss.update_teacher(0.5)

    def timed(work: Callable[[int], None], step: int) -> float:
        began = time.perf_counter()
        work(step)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    for step in range(4):
        bare(step)
        ours(step)
    pairs = [(timed(bare, step), timed(ours, step)) for step in range(given.steps)]
    alone, whole = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    print(
        f"{given.loss} · {given.aug}, {given.backbone}, {given.size} px, batch {given.batch}, {compute.precision}, "
        f"{device.type}, {given.threads} threads: bare {alone:.1f} ms, ours {whole:.1f} ms, ratio {alone / whole:.3f}"
    )


if __name__ == "__main__":
    main()
