"""What is minimised in pretraining."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from usbench.contracts.batch import Batch, Clip, Image
from usbench.contracts.network import Head, Levels, Network, Out, pooled

CURVE = ("step", "lr", "loss")  # columns that every training's curve has


class Loss(nn.Module):
    """A pretraining method. Most plugins write `objective` and nothing else.

    The loss owns its heads and whatever is learnable in its objective; the harness owns the optimiser, the schedule,
    the precision and the teacher's momentum.
    """

    views: tuple[int, int] = (2, 0)  # global and local views
    item: Image | Clip = Image()
    teacher: tuple[float, float] | None = None  # momentum at the first step and at the last
    transfer = "encoder"  # what the fine-tune inherits, or "network"
    pretrain_labels = "none"  # or "all"
    min_batch = 2
    distributed = True
    joint = True  # all views of one size in one forward (they share BatchNorm statistics), or each on its own
    wants_sector = False
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext  # set by the harness

    def __init__(
        self, network: Network, head: Head | None = None, predictor: Callable[[], nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.projector = head(network.dim) if head else None
        self.predictor = predictor() if predictor else None
        if self.teacher is not None:
            # A head is built a second time, not copied: weight-normed heads cannot be deep-copied.
            self.teacher_encoder = copy.deepcopy(network.encoder).requires_grad_(False)
            self.teacher_projector = head(network.dim).requires_grad_(False) if head else None
            if self.teacher_projector is not None and self.projector is not None:
                self.teacher_projector.load_state_dict(self.projector.state_dict())

    def objective(self, out: Out, batch: Batch) -> Tensor | Mapping[str, Tensor]:
        """The loss of this batch: a scalar, or named scalars whose sum is minimised. Runs in float32."""
        raise NotImplementedError(f"{type(self).__name__} must write objective(out, batch)")

    def encode(self, encoder: nn.Module, views: list[Tensor]) -> list[Sequence[Tensor]]:
        """The maps of every view: views of one size together where `joint`, else one by one."""
        if not self.joint:
            return [encoder(view) for view in views]
        maps: dict[int, Sequence[Tensor]] = {}
        for shape in dict.fromkeys(view.shape for view in views):
            places = [i for i, view in enumerate(views) if view.shape == shape]
            together = encoder(torch.cat([views[i] for i in places]))
            if isinstance(together, Levels):
                parts: Iterable[Sequence[Tensor]] = together.chunk(len(places))
            else:
                parts = map(list, zip(*(level.chunk(len(places)) for level in together), strict=True))
            maps |= zip(places, parts, strict=True)
        return [maps[i] for i in range(len(views))]

    def project(self, projector: nn.Module, features: list[Tensor]) -> list[Tensor]:
        """The head on every view's features, joint or per view as the encoder was run."""
        if self.joint:
            parts = projector(torch.cat(features)).chunk(len(features))
        else:
            parts = tuple(projector(feature) for feature in features)
        return [part.float() for part in parts]

    def look(self, batch: Batch) -> Out:
        """Run student and, where there is one, teacher on the views. The teacher sees the global views only."""
        with self.autocast():
            out = Out(self.encode(self.network.encoder, batch.views))
            if self.projector is not None:
                out.z = self.project(self.projector, [pooled(maps) for maps in out.maps])
                if self.predictor is not None:
                    out.p = self.project(self.predictor, out.z)
            if self.teacher is not None:
                with torch.no_grad():
                    # Role-major: each role's global views, then its local ones.
                    seen = [v for i, v in enumerate(batch.views) if i % sum(self.views) < self.views[0]]
                    out.teacher_maps = self.encode(self.teacher_encoder, seen)
                    if self.teacher_projector is not None:
                        out.t = self.project(self.teacher_projector, [pooled(maps) for maps in out.teacher_maps])
        return out

    def forward(self, batch: Batch) -> Tensor | Mapping[str, Tensor]:
        """The objective of this batch; masked models override this."""
        return self.objective(self.look(batch), batch)

    def before_step(self, batch: Batch) -> None:
        """Called before the forward, for example to normalise prototypes."""

    def after_backward(self, batch: Batch) -> None:
        """Called between backward and the optimiser's step, for example to cancel gradients."""

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """One optimiser step; bilevel methods override this. Returns the named parts, detached."""
        self.before_step(batch)
        parts = named(self(batch))
        total = torch.stack(list(parts.values())).sum()
        if not total.requires_grad:
            raise ValueError("the loss depends on nothing that is trained, so it has no gradient")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.after_backward(batch)
        optimizer.step()
        return {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def update_teacher(self, progress: float) -> None:
        """Move the teacher towards the student; the momentum follows a cosine between its two values."""
        if self.teacher is None:
            return
        first, last = self.teacher
        momentum = last - (last - first) * (np.cos(np.pi * progress) + 1) / 2
        pairs = [(self.teacher_encoder, self.network.encoder), (self.teacher_projector, self.projector)]
        slow: list[Tensor] = [p for teacher, _ in pairs if teacher is not None for p in teacher.parameters()]
        fast: list[Tensor] = [
            p for teacher, student in pairs if teacher is not None and student for p in student.parameters()
        ]
        torch._foreach_lerp_(slow, fast, 1 - float(momentum))


def named(value: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A loss's parts by name, whether it returned one scalar or several."""
    parts = dict(value) if isinstance(value, Mapping) else {"loss": value}
    if not parts:
        raise ValueError("the loss returned no part at all, so there is nothing to minimise")
    for name, part in parts.items():
        if not isinstance(part, Tensor) or part.ndim != 0:
            shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise ValueError(f"the part '{name}' of the loss is {shape}, not a scalar tensor")
    check_parts(parts)
    return parts


def check_parts(names: Collection[str]) -> None:
    """Refuse names of several parts that are columns of the curve already; `loss` is their sum."""
    if len(names) > 1 and (taken := [name for name in CURVE if name in names]):
        raise ValueError(f"a part of the loss is called '{taken[0]}', as a column of the curve is: call it otherwise")
