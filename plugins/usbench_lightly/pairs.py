"""Losses of views: a criterion and a head of lightly, and nothing else."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from lightly.models.modules.heads import BYOLProjectionHead
from torch import Tensor

from usbench import Batch, Loss, Network, Out
from usbench.hooks import load_object

SHARES = {"alpha", "beta", "dense", "freeze", "queue_start", "reset", "share"}
FROM_ZERO = {"inv_coef", "invariance_weight", "lmda", "local_views", "rho"}

# DCLW copies a tensor in a way that torch remarks on.
warnings.filterwarnings("ignore", message="To copy construct from a tensor", module="lightly")


def check(**options: float) -> None:
    """Shares lie in [0, 1], weights are not below 0, everything else is above it."""
    for name, value in options.items():
        if name in SHARES:
            good, where = 0 <= value <= 1, "a share, in [0, 1]"
        elif name in FROM_ZERO or name.endswith("_param"):
            good, where = value >= 0, "not below 0"
        else:
            good, where = value > 0, "above 0"
        if not good:
            raise ValueError(f"{name} is {value}: {where}")


class Pair(Loss):
    """criterion(z₁, z₂) on the projections of two views."""

    def __init__(
        self, network: Network, criterion: str, projection: int, head: str = "SimCLRProjectionHead", **options: Any
    ) -> None:
        check(projection=projection, **options)
        # By name, since the newest are not in every version of lightly that serves the rest.
        build = load_object(f"lightly.models.modules.heads:{head}", type(self).__name__)
        super().__init__(network, head=lambda dim: build(dim, max(dim, projection), projection))
        self.criterion = load_object(criterion, type(self).__name__)(**options)

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """The criterion on both projections."""
        return self.criterion(*out.z)


class BarlowTwins(Pair):
    """Pair, on no fewer than three images: two of them, standardised, are ±1 whatever the network does."""

    min_batch = 3


class DirectCLR(Loss):
    """Contrast without a projector, on the first share of the encoder's features; the rest follows by itself."""

    def __init__(self, network: Network, temperature: float = 0.1, share: float = 0.25) -> None:
        check(temperature=temperature, share=share)
        if not share > 0:
            raise ValueError(f"share is {share}: above 0")
        super().__init__(network)
        count = max(1, round(share * network.dim))
        self.criterion = load_object("lightly.loss:DirectCLRLoss", "directclr")(count, temperature)

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """NT-Xent on the subvectors."""
        return self.criterion(*out.features)


class WMSE(Loss):
    """Whitened embeddings of two views should be close; whitening alone keeps them from collapsing.

    The covariance is estimated on `window` images at a time, so a batch holds at least that many; what is left of a
    batch after the last whole window is not used. The paper has a window of 128 for 64 dimensions.
    """

    def __init__(self, network: Network, window: int = 64, projection: int = 32, hidden: int = 256) -> None:
        check(window=window, projection=projection, hidden=hidden)
        if window < 2 * projection:
            raise ValueError(f"window is {window}: at least twice the projection of {projection}, or nothing is white")
        super().__init__(network, head=lambda dim: BYOLProjectionHead(dim, hidden, projection))
        self.min_batch = window
        self.criterion = load_object("lightly.loss:WMSELoss", "w-mse")(
            embedding_dim=projection,
            w_size=window,
            track_running_stats=False,
            eps=1e-4,  # a dead dimension ends nothing
        )

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """The distance of the whitened views, over all whole windows."""
        used = len(out.z[0]) // self.min_batch * self.min_batch
        return self.criterion(torch.cat([z[:used] for z in out.z]))
