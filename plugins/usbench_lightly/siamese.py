"""Methods with a predictor and no momentum teacher: a stopped gradient stands in for it."""

from __future__ import annotations

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import NNMemoryBankModule
from lightly.models.modules.heads import (
    NNCLRPredictionHead,
    NNCLRProjectionHead,
    SimSiamPredictionHead,
    SimSiamProjectionHead,
)
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from usbench import Batch, Loss, Network, Out
from usbench_lightly.pairs import check


class SimSiam(Loss):
    """Each view's prediction should point to the mean of the other views' projections, which get no gradient.

    With two views this is SimSiam; FastSiam steadies the target with the mean of several.
    """

    def __init__(self, network: Network, crops: int = 2, hidden: int = 512, projection: int = 512) -> None:
        check(hidden=hidden, projection=projection)
        if crops < 2:
            raise ValueError(f"crops is {crops}: at least 2")
        super().__init__(
            network,
            head=lambda dim: SimSiamProjectionHead(dim, hidden, projection),
            predictor=lambda: SimSiamPredictionHead(projection, max(1, projection // 4), projection),
        )
        self.views = (crops, 0)
        self.distance = NegativeCosineSimilarity()

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Negative cosine similarity, averaged over the views."""
        z = torch.stack(out.z).detach()
        others = (z.sum(0) - z) / (len(z) - 1)
        return torch.stack([self.distance(p, target) for p, target in zip(out.p, others, strict=True)]).mean()


class NNCLR(Loss):
    """The positive of a view is not the other view's projection but its nearest neighbour among past projections.

    As in the paper, the other predictions of the batch are the negatives, and the queue takes in the first view.
    """

    def __init__(
        self, network: Network, temperature: float = 0.1, queue: int = 1024, hidden: int = 512, projection: int = 128
    ) -> None:
        check(temperature=temperature, queue=queue, hidden=hidden, projection=projection)
        super().__init__(
            network,
            head=lambda dim: NNCLRProjectionHead(dim, hidden, projection),
            predictor=lambda: NNCLRPredictionHead(projection, hidden, projection),
        )
        self.temperature = temperature
        self.neighbour = NNMemoryBankModule((queue, projection))

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Both directions: each view's neighbour against the predictions of the other view."""
        first, second = (normalize(z.detach(), dim=1) for z in out.z)
        back = self._contrast(self.neighbour(second), out.p[0])
        there = self._contrast(self.neighbour(first, update=out.z[0].requires_grad), out.p[1])
        return (there + back) / 2

    def _contrast(self, neighbours: Tensor, predicted: Tensor) -> Tensor:
        scores = normalize(neighbours, dim=1) @ normalize(predicted, dim=1).T / self.temperature
        return cross_entropy(scores, torch.arange(len(scores), device=scores.device))
