"""`step`: what feed, augmentation and loop add to a bare step on views that lie ready, the limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from usbench.bench.lines import Case, Line, against
from usbench.bench.setting import Setting
from usbench.bench.subject import pretraining
from usbench.bench.timing import Samples, Work, in_turns
from usbench.train import pretrain
from usbench.train.loop import save_interval

STAGED = 4  # batches that the bare step goes round in


def measure(setting: Setting) -> Iterator[Line]:
    """For each size and network: the bare step, ours from end to end, and what checkpoints add."""
    for backbone in setting.backbones:
        for size in setting.sizes:
            with TemporaryDirectory() as folder:
                yield from compare(setting, backbone, size, Path(folder))


def compare(setting: Setting, backbone: str, size: int, folder: Path) -> Iterator[Line]:
    """One size and network."""
    ours = pretraining(setting, backbone, size, folder)
    assert isinstance(ours.steps, pretrain.Steps)
    sides: dict[str, Work] = {"bare": bare(ours.steps, setting.steps), "ours": lambda: ours.go_on(setting.steps)}
    found = in_turns(sides, torch.device(setting.device), setting.turns)
    save = ours.save_seconds()
    share = save / (save_interval(save) + save)
    whole = Samples(tuple(value / (1 - share) for value in found["ours"].values))
    ratio = found["bare"].over(whole)
    case = Case("step", size, backbone, setting.batch, setting.precision)
    asked, met = against(setting, "step, ours", ratio.median)
    loss = f"{setting.loss} · {setting.aug}"
    yield Line(
        case, "bare", found["bare"],
        note=f"{loss}: forward, backward, optimiser and teacher on {STAGED} batches of views that lie on the device",
    )  # fmt: skip
    yield Line(
        case, "ours", whole, ratio=ratio, ratio_of="bare / ours", asked=asked, met=met,
        note=f"{loss}: the true loop, with draws, feed, augmentation, curve and its share of checkpoints",
    )  # fmt: skip
    yield Line(
        case, "a checkpoint", Samples((1e3 * save,)),
        note=f"written every {save_interval(save):.0f} s: {100 * share:.1f} % of the time",
    )  # fmt: skip


def bare(steps: pretrain.Steps, count: int) -> Work:
    """The same network, loss and optimiser on views that were made before."""
    staged = [steps.batches(step) for step in range(STAGED)]

    def work() -> int:
        for step in range(count):
            steps.learn(staged[step % STAGED])
        return count

    return work
