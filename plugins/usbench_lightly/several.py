"""Losses of more than two views: a criterion and a head of lightly on all of them."""

from __future__ import annotations

from typing import Any

import torch
from lightly.loss import EMPSSLLoss
from lightly.loss.emp_ssl_loss import invariance_loss, tcr_loss
from torch import Tensor
from torch.nn.functional import normalize

from usbench import Batch, Network, Out
from usbench_lightly.pairs import Pair


class Several(Pair):
    """criterion([z₁, …, zₖ]) on k global views."""

    def __init__(self, network: Network, crops: int, **options: Any) -> None:
        if crops < 2:
            raise ValueError(f"crops is {crops}: at least 2")
        super().__init__(network, **options)
        self.views = (crops, 0)

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """The criterion on the list of projections."""
        return self.criterion(out.z)


class Patches(Several):
    """The same on k small crops, and on nothing else."""

    def __init__(self, network: Network, crops: int, **options: Any) -> None:
        super().__init__(network, crops, **options)
        self.views = (0, crops)


class CodingRate(EMPSSLLoss):
    """EMP-SSL: the coding rate of each view is raised, the angle to the mean of the views lowered, on the unit sphere.

    lightly's class adds the coding rate where the paper and its authors' code subtract it, which would let everything
    fall together; its two terms are used here with the paper's signs.
    """

    def forward(self, z_views: list[Tensor]) -> Tensor:
        """Minus the coding rate, plus the weighted invariance."""
        z = torch.stack([normalize(view, dim=1) for view in z_views])
        return self.inv_coef * invariance_loss(z) - tcr_loss(z, self.tcr_eps)


class GlobalLocal(Pair):
    """criterion(local, global) on the stacked projections of two global and some local views."""

    def __init__(self, network: Network, local_views: int, **options: Any) -> None:
        if local_views < 1:
            raise ValueError(f"local_views is {local_views}: at least 1")
        super().__init__(network, **options)
        self.views = (2, local_views)

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """The criterion, told which views are global."""
        return self.criterion(global_proj=torch.stack(out.z[:2]), local_proj=torch.stack(out.z[2:]))
