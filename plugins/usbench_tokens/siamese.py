"""Masked siamese networks: MSN and PMSN."""

from __future__ import annotations

import torch
from lightly.loss import MSNLoss, PMSNLoss
from lightly.models.modules.heads import MSNProjectionHead
from torch import Tensor, nn

from usbench import Batch, Network
from usbench_tokens.base import TokenLoss, at_least, ratio
from usbench_tokens.masks import keep, random_scores


class MSN(TokenLoss):
    """A view of which patches are dropped is assigned to the same learned prototypes as another, whole view.

    The first view goes to the teacher. The student sees the second without a share of its patches, the same inside and
    outside the sector, and small local views. Prototypes are trained. How often each is used is drawn to the uniform
    distribution, or, where `power_law` is not 0, to a power law with that exponent (PMSN).

    Args:
        mask_ratio: share of the second view's patches that is dropped; larger for larger transformers.
        prototypes: how many there are.
        hidden: width of the head.
        projection: what it projects to.
        temperature: of the student's assignment.
        power_law: exponent of the wanted distribution over the prototypes; 0 for a uniform one.
    """

    views = (2, 4)
    teacher = (0.99, 1.0)

    def __init__(
        self,
        network: Network,
        mask_ratio: float = 0.15,
        prototypes: int = 256,
        hidden: int = 256,
        projection: int = 128,
        temperature: float = 0.1,
        power_law: float = 0.0,
    ) -> None:
        ratio(mask_ratio=mask_ratio)
        at_least(1, hidden=hidden, projection=projection)
        at_least(2, prototypes=prototypes)
        at_least(0, power_law=power_law)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}: above 0")
        super().__init__(network, head=lambda dim: MSNProjectionHead(dim, hidden, projection))
        self.mask_ratio = mask_ratio
        self.prototypes = nn.Parameter(torch.empty(prototypes, projection).uniform_(-1, 1) * projection**-0.5)
        self.criterion: nn.Module = (
            PMSNLoss(temperature, power_law_exponent=power_law) if power_law else MSNLoss(temperature)
        )

    def draw(self, batch: Batch) -> Tensor:
        """(N, K) the places of the second view that are seen."""
        view = batch.views[1]
        scores = random_scores(batch.rng, len(view), self.side(view), view.device)
        return keep(scores, self.inside(batch, 1), 1 - self.mask_ratio)

    def forward(self, batch: Batch) -> Tensor:
        """Cross-entropy of the assignments, and the distance of their mean from what is wanted."""
        assert self.projector is not None and self.teacher_projector is not None
        whole, masked, *small = batch.views
        with self.autocast():
            first = self.network.encoder.tokens(masked, keep=self.draw(batch))[:, 0]
            anchors = torch.cat([first, self.network.encoder.tokens(torch.cat(small))[:, 0]])
            anchors = self.projector(anchors).float()
            with torch.no_grad():
                targets = self.teacher_projector(self.teacher_encoder.tokens(whole)[:, 0]).float()
        return self.criterion(anchors, targets, self.prototypes)
