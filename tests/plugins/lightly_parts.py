"""What the tests of lightly's methods share: losses, made-up embeddings and batches, and loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usbench import Batch, Loss, Out
from usbench.hooks import registry
from usbench.train.loop import Compute
from usbench.train.pretrain import Part, build_loss
from usbench.train.schedule import Schedule

NAMES = (
    "barlow-twins", "dcl", "dclw", "densecl", "detcon-b", "detcon-s", "dino", "directclr", "emp-ssl", "fastsiam",
    "frossl", "lejepa", "macl", "mmcr", "nnclr", "simsiam", "smog", "swav", "tico", "vicregl", "visreg", "w-mse",
)  # fmt: skip


def loss_of(name: str, **options: Any) -> Loss:
    """A method of the registry on the smallest network."""
    network = registry().get("backbone", "unet-tiny").build()
    entry = registry().get("loss", name)
    part = Part(entry, {**entry.options, **options})
    return build_loss(part, network, Schedule(10, 512, 1e-3, 0.0, 0.0), Compute(torch.device("cpu"), "float32"), 0)


def made_up(count: int, dim: int, views: int = 2, seed: int = 0) -> list[Tensor]:
    """Embeddings, one tensor a view."""
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(count, dim, generator=source) for _ in range(views)]


def batch_of(count: int, views: int = 2, *, step: int = 0, total: int = 10, side: int = 32, seed: int = 0) -> Batch:
    """Noise as views, each a crop of its image."""
    rng = np.random.default_rng(seed)
    geometry = []
    for _ in range(views):
        half, middle = rng.uniform(0.4, 0.7, (count, 2)), rng.uniform(-0.2, 0.2, (count, 2))
        matrix = np.zeros((count, 2, 3), np.float32)
        matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = half[:, 0], half[:, 1], middle
        geometry.append(torch.from_numpy(matrix))
    pixels = [torch.from_numpy(rng.normal(size=(count, 1, side, side)).astype(np.float32)) for _ in range(views)]
    unknown = torch.full((count,), -1)
    return Batch(
        pixels, geometry, [], index=torch.arange(count), label=unknown, video=unknown, frame=unknown[:, None],
        time=torch.full((count, 1), torch.nan), tag=unknown, step=step, total=total, rng=np.random.default_rng(1),
    )  # fmt: skip


def value(loss: Loss, *, batch: Batch | None = None, **out: Any) -> float:
    """The objective of what the networks are said to have made of the views."""
    n = len(next(iter(out.values()))[0])
    made = loss.objective(Out([], **out), batch or batch_of(n))
    return float(made.detach())


def cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of the angle between two vectors."""
    return float(a.double() @ b.double() / (a.double().norm() * b.double().norm()))


def log_softmax(scores: list[float], at: int) -> float:
    """log of the softmax of a list, at one place."""
    return scores[at] - math.log(sum(math.exp(score) for score in scores))
