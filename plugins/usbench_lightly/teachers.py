"""Methods with a momentum teacher."""

from __future__ import annotations

from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead, MoCoProjectionHead
from torch import Tensor

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
