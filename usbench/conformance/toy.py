"""The toy that losses are checked on: a small network, batches in which every field is known, short trainings."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from usbench.conformance.promise import Memory, require
from usbench.contracts import Augmentation, Batch, Loss, named
from usbench.data.feed import sector_boxes
from usbench.draws import generator, seed_globals
from usbench.hooks import Entry, registry
from usbench.spec import presets
from usbench.train import checkpoint
from usbench.train.held import check_optimised
from usbench.train.loop import Compute, adamw
from usbench.train.networks import build_network
from usbench.train.pretrain import Part, build_loss
from usbench.train.schedule import Schedule
from usbench.views import Views, affine

CPU = torch.device("cpu")
SIZE = 32  # pixels: the least that five levels leave one pixel of
SMALL = {"dim": 32, "depth": 2}  # options of a backbone, where it has them
STEPS = 4
Change = Callable[[Batch], Batch]


def needs_of_backbone(entry: Entry) -> tuple[str, ...]:
    """What a loss needs that backbones give, not data."""
    given = {what for each in registry().entries("backbone") for what in getattr(each, "gives", ())}
    return tuple(sorted(given & set(entry.needs)))


def backbone_for(entry: Entry) -> Entry:
    """The backbone that a loss is checked on: that of the quick preset, or the first that gives what it needs."""
    wanted = needs_of_backbone(entry)
    if not wanted:
        return registry().get("backbone", presets()["quick"]["backbone"])
    fit = [each for each in registry().entries("backbone") if set(wanted) <= set(getattr(each, "gives", ()))]
    require(fit, f"no backbone gives all that it needs: {', '.join(wanted)}")
    return fit[0]


def build(entry: Entry, *, seed: int = 0, precision: str = "float32", **options: Any) -> Loss:
    """The loss on its toy network, as the harness builds it."""
    backbone = backbone_for(entry)
    network = build_network(backbone, {**backbone.options, **_small(backbone)}, SIZE, seed)
    schedule = Schedule(STEPS, 512, 1e-3, 1e-4, 0.25)
    return build_loss(Part(entry, {**entry.options, **options}), network, schedule, Compute(CPU, precision), seed)


def _small(backbone: Entry) -> dict[str, int]:
    return {name: value for name, value in SMALL.items() if name in backbone.options}


def optimizer_of(loss: Loss) -> torch.optim.AdamW:
    """The harness's optimiser over what the loss trains."""
    return adamw(Schedule(STEPS, 6, 1e-3, 1e-4, 0.25), [(loss, 1.0)])


class Crop(Augmentation):
    """A crop of half the area or more, flipped or not; a quarter for a local view."""

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """One affine a view."""
        n = len(boxes)
        half = rng.uniform(0.5, 0.6, (n, 1)) if local else rng.uniform(0.7, 1.0, (n, 1))
        centre = (1 - half) * rng.uniform(-1, 1, (n, 2))
        matrix = affine(centre, np.tile(half, 2), rng.uniform(-10, 10, n), rng.random(n) < 0.5)
        return {"affine": matrix}


def scans(count: int, seed: int, side: int = 40) -> tuple[Tensor, Tensor]:
    """(count, 1, side, side) uint8 blobs that are black outside a fan, and the fan."""
    coarse = torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (count, 1, 8, 8)))
    rows, columns = np.mgrid[:side, :side] / side
    fan = torch.from_numpy(np.abs(columns - 0.5) <= 0.2 + 0.4 * rows)
    images = functional.interpolate(coarse, size=(side, side), mode="bilinear") * fan
    return images.to(torch.uint8), fan.expand_as(images)


def batch_of(loss: Loss, step: int = 0, count: int | None = None) -> Batch:
    """A batch through the harness's own views; every field is known, and the generator fresh."""
    k = len(loss.item.roles)
    n = max(6, loss.min_batch) if count is None else count
    images, fan = scans(k * n, step)
    views = Views([Crop()], SIZE, loss.views)
    drawn = views.draw(generator("views", step), sector_boxes(fan[:, 0].numpy()), CPU)
    made = views(images, fan.to(torch.uint8) if loss.wants_sector else None, drawn)
    shown, geometry, sectors = (
        [part[role] for role in range(k) for part in [view.chunk(k) for view in each]] for each in made
    )
    at = torch.arange(n)
    frames = 3 * torch.arange(k)[None] + torch.zeros(n, 1, dtype=torch.long)
    return Batch(
        shown, geometry, sectors, index=at, label=at % 2, video=at, frame=frames, time=frames / 10, tag=at % 3,
        step=step, total=STEPS, rng=generator("loss", step),
    )  # fmt: skip


class Snapshot:
    """All tensors of a module as they are now, to be put back; one that was made since then is taken away again."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.tensors = {name: tensor.detach().clone() for name, tensor in checkpoint.tensors_of(module).items()}

    def restore(self) -> None:
        """Put the tensors back and forget the gradients."""
        for name in checkpoint.tensors_of(self.module).keys() - self.tensors.keys():
            owner, _, attribute = name.rpartition(".")
            module = self.module.get_submodule(owner)
            if attribute in module._parameters:
                delattr(module, attribute)
            else:
                setattr(module, attribute, None)
        checkpoint.restore(self.module, self.tensors)
        self.module.zero_grad(set_to_none=True)


def value(loss: Loss, change: Change = lambda batch: batch, **of: Any) -> float:
    """The loss of a batch; what the loss remembers of having seen it is put back."""
    before = Snapshot(loss)
    seed_globals("value")
    try:
        batch = change(batch_of(loss, **of))
        loss.before_step(batch)
        return float(sum(part.detach() for part in named(loss(batch)).values()))
    finally:
        before.restore()


def train(loss: Loss, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    """Train as the harness does; the loss of each step."""
    return [float(sum(stepped(loss, optimizer, step).values())) for step in steps]


def stepped(loss: Loss, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
    """Do a step as the harness does; the named parts of the loss."""
    seed_globals("train", step)
    batch = batch_of(loss, step)
    parts = loss.step(batch, optimizer)
    check_optimised([loss], optimizer)
    loss.update_teacher(batch.progress)
    return parts


def teacher_of(loss: Loss) -> dict[str, Tensor]:
    """The teacher's parameters by name."""
    return {n: p for n, p in loss.named_parameters() if n.startswith(("teacher_encoder.", "teacher_projector."))}


@dataclass
class History:
    """What a short training of a fresh loss was like."""

    values: list[float]
    parts: list[list[str]]  # of each step, the names
    gradients: dict[str, float]  # each tensor that the optimiser sees → the largest gradient; −1 for none
    teacher: dict[str, bool]  # each tensor of the teacher → whether it moved
    saved: tuple[dict[str, Tensor], dict[str, Tensor]]  # loss and optimiser, halfway, written and read back
    final: dict[str, Tensor]
    seconds: list[float]  # of each step
    lost: str  # what it remembers in an attribute that no checkpoint holds; "" for nothing

    @property
    def typical_seconds(self) -> float:
        """Of a step but the first."""
        return statistics.median(self.seconds[1:])


def history(loss: Loss) -> History:
    """Train a fresh loss for a few steps and keep what the checks ask for."""
    optimizer, memory = optimizer_of(loss), Memory(loss)
    names = {id(p): name for name, p in loss.named_parameters()}
    seen = {names[id(p)]: p for group in optimizer.param_groups for p in group["params"]}
    gradients = dict.fromkeys(seen, -1.0)
    first = {name: p.detach().clone() for name, p in teacher_of(loss).items()}
    values, parts, seconds = [], [], []
    for step in range(STEPS):
        if step == STEPS // 2:
            saved = written_and_read(loss, optimizer)
        began = time.perf_counter()
        found = stepped(loss, optimizer, step)
        values.append(float(sum(found.values())))
        parts.append(sorted(found))
        seconds.append(time.perf_counter() - began)
        for name, p in seen.items():
            if p.grad is not None:
                gradients[name] = max(gradients[name], float(p.grad.abs().max()))
    moved = {name: not torch.equal(p, first[name]) for name, p in teacher_of(loss).items()}
    return History(values, parts, gradients, moved, saved, state_of(loss, optimizer), seconds, memory.changed())


def state_of(loss: Loss, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that a checkpoint would hold."""
    return checkpoint.tensors_of(loss) | {
        f"optimizer of parameter {name}": tensor for name, tensor in checkpoint.optimizer_tensors(optimizer).items()
    }


def written_and_read(loss: Loss, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The checkpoint as it comes back from a file."""
    with TemporaryDirectory() as folder:
        loss_file, optimizer_file = Path(folder, "loss"), Path(folder, "optimizer")
        checkpoint.write(loss_file, checkpoint.tensors_of(loss))
        checkpoint.write(optimizer_file, checkpoint.optimizer_tensors(optimizer))
        return checkpoint.read(loss_file)[0], checkpoint.read(optimizer_file)[0]
