"""Losses of two views: a criterion and a head of lightly, and nothing else."""

from __future__ import annotations

from typing import Any

from lightly.models.modules import heads
from torch import Tensor

from usbench import Batch, Loss, Network, Out
from usbench.hooks import load_object


def check(**options: float) -> None:
    """Weights are not below 0, everything else is above it."""
    for name, value in options.items():
        weight = name.endswith("_param")
        if not (value >= 0 if weight else value > 0):
            raise ValueError(f"{name} is {value}: {'not below' if weight else 'above'} 0")


class Pair(Loss):
    """criterion(z₁, z₂) on the projections of two views."""

    def __init__(
        self, network: Network, criterion: str, projection: int, head: str = "SimCLRProjectionHead", **options: Any
    ) -> None:
        check(projection=projection, **options)
        super().__init__(network, head=lambda dim: getattr(heads, head)(dim, max(dim, projection), projection))
        self.criterion = load_object(criterion, type(self).__name__)(**options)

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """The criterion on both projections."""
        return self.criterion(*out.z)
