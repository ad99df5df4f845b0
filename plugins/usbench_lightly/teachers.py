"""Methods with a momentum teacher."""

from __future__ import annotations

import torch
from lightly.loss import MMCRLoss, NegativeCosineSimilarity, NTXentLoss, TiCoLoss
from lightly.models.modules.heads import (
    BYOLPredictionHead,
    BYOLProjectionHead,
    MMCRProjectionHead,
    MoCoProjectionHead,
    TiCoProjectionHead,
)
from torch import Tensor
from torch.nn.functional import normalize

from usbench import Batch, Loss, Network, Out
from usbench_lightly.pairs import check


class BYOL(Loss):
    """Each view's prediction should point where the teacher sees the other view."""

    teacher = (0.99, 1.0)

    def __init__(self, network: Network, hidden: int = 512, projection: int = 128) -> None:
        check(hidden=hidden, projection=projection)
        super().__init__(
            network,
            head=lambda dim: BYOLProjectionHead(dim, hidden, projection),
            predictor=lambda: BYOLPredictionHead(projection, hidden, projection),
        )
        self.distance = NegativeCosineSimilarity()

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Symmetric negative cosine similarity between student and teacher."""
        return (self.distance(out.p[0], out.t[1]) + self.distance(out.p[1], out.t[0])) / 2


class MoCo(Loss):
    """The other view as the teacher sees it is the positive, a queue of past teacher embeddings the negatives."""

    teacher = (0.99, 0.999)

    def __init__(self, network: Network, temperature: float = 0.1, queue: int = 4096, projection: int = 128) -> None:
        check(temperature=temperature, queue=queue, projection=projection)
        super().__init__(network, head=lambda dim: MoCoProjectionHead(dim, max(dim, projection), projection))
        self.contrast = NTXentLoss(temperature=temperature, memory_bank_size=(queue, projection))

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """The first view asks, the teacher's second view answers; the queue then takes the answers in."""
        return self.contrast(out.z[0], out.t[1])


class TiCo(Loss):
    """The student's view should match the teacher's other view and avoid the directions that past views shared."""

    teacher = (0.99, 1.0)

    def __init__(
        self, network: Network, beta: float = 0.9, rho: float = 8.0, hidden: int = 512, projection: int = 128
    ) -> None:
        check(beta=beta, rho=rho, hidden=hidden, projection=projection)
        super().__init__(network, head=lambda dim: TiCoProjectionHead(dim, hidden, projection))
        self.criterion = TiCoLoss(beta, rho)
        # lightly makes the running covariance at the first batch, as a plain attribute that does not change device.
        del self.criterion.C
        self.criterion.register_buffer("C", torch.zeros(projection, projection))

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Invariance and covariance contrast; the running covariance takes in the student's view."""
        return self.criterion(out.z[0], out.t[1], update_covariance_matrix=out.z[0].requires_grad)


class MMCR(Loss):
    """The means of an image's views should spread over the sphere, the views of one image should not."""

    teacher = (0.99, 1.0)

    def __init__(self, network: Network, lmda: float = 0.005, hidden: int = 512, projection: int = 128) -> None:
        check(lmda=lmda, hidden=hidden, projection=projection)
        super().__init__(network, head=lambda dim: MMCRProjectionHead(dim, hidden, projection))
        self.criterion = MMCRLoss(lmda)

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Nuclear norms of the means and, weighted, of each image's views, student's and teacher's together."""
        online, momentum = (normalize(torch.stack(views, 1), dim=-1) for views in (out.z, out.t))
        return self.criterion(online, momentum)
