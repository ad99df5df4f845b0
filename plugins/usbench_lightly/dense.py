"""Methods that compare positions of maps beside whole images.

They read the map of stride 16: 4 × 4 positions at 64 px, where the deepest map has only 2 × 2. The layers below it
learn from the image-level term.
"""

from __future__ import annotations

import torch
from lightly.loss import NTXentLoss, VICRegLLoss
from lightly.models.modules.heads import (
    DenseCLProjectionHead,
    VicRegLLocalProjectionHead,
    VICRegProjectionHead,
)
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.models.utils import select_most_similar
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from usbench import Batch, Loss, Network, Out
from usbench_lightly.maps import map_of_stride, positions, rows
from usbench_lightly.pairs import check


class Heads(nn.Module):
    """A head for pooled features and, beside it, one for positions: the teacher then has both."""

    def __init__(self, pooled: nn.Module, dense: nn.Module) -> None:
        super().__init__()
        self.pooled, self.dense = pooled, dense

    def forward(self, features: Tensor) -> Tensor:
        """The projection of pooled features."""
        return self.pooled(features)


class DenseCL(Loss):
    """MoCo on images and, beside it, on positions: the positive is the teacher's most similar position.

    Args:
        dense: share of the position-level term.
        dense_stride: which map of the encoder the positions are of.
    """

    teacher = (0.99, 0.999)

    def __init__(
        self,
        network: Network,
        temperature: float = 0.2,
        dense: float = 0.5,
        queue: int = 4096,
        hidden: int = 256,
        projection: int = 128,
        dense_stride: int = 16,
    ) -> None:
        check(temperature=temperature, dense=dense, queue=queue, hidden=hidden, projection=projection)
        level, channels = map_of_stride(network, dense_stride)

        def head(dim: int) -> Heads:
            parts = (DenseCLProjectionHead(width, hidden, projection) for width in (dim, channels))
            return Heads(*parts)

        super().__init__(network, head=head)
        self.level, self.temperature, self.dense = level, temperature, dense
        self.contrast = NTXentLoss(temperature, memory_bank_size=(queue, projection))
        self.bank = MemoryBankModule((queue, projection))

    def objective(self, out: Out, batch: Batch) -> dict[str, Tensor]:
        """The first view asks, the teacher's second view answers; both queues take answers in."""
        return {
            "image": (1 - self.dense) * self.contrast(out.z[0], out.t[1]),
            "dense": self.dense * self._dense(rows(out.maps[0][self.level]), rows(out.teacher_maps[1][self.level])),
        }

    def _dense(self, asking: Tensor, answering: Tensor) -> Tensor:
        query = normalize(self.projector.dense(asking), dim=-1)
        with torch.no_grad():
            keys = self.teacher_projector.dense(answering)
            positive = select_most_similar(asking, answering, normalize(keys, dim=-1))
            # A negative is another image's projected map, averaged.
            _, negatives = self.bank(normalize(keys.mean(1), dim=-1), update=query.requires_grad)
        scores = torch.cat([(query * positive).sum(-1, keepdim=True), query @ negatives], -1).flatten(0, 1)
        return cross_entropy(scores / self.temperature, torch.zeros(len(scores), dtype=torch.long, device=query.device))


class VICRegL(Loss):
    """VICReg on images and on positions, matched by where they lie in the image and by how near their features are.

    Args:
        alpha: share of the image-level term.
        matches: best-matched positions that count, of the first and of the second view of a pair.
        dense_stride: which map of the encoder the positions are of.
    """

    def __init__(
        self,
        network: Network,
        lambda_param: float = 25.0,
        mu_param: float = 25.0,
        nu_param: float = 1.0,
        alpha: float = 0.75,
        matches: tuple[int, int] = (20, 4),
        projection: int = 256,
        dense_projection: int = 128,
        dense_stride: int = 16,
    ) -> None:
        check(lambda_param=lambda_param, mu_param=mu_param, nu_param=nu_param, alpha=alpha)
        check(projection=projection, dense_projection=dense_projection)
        if min(matches) < 1:
            raise ValueError(f"matches is {matches}: two numbers above 0")
        level, channels = map_of_stride(network, dense_stride)
        super().__init__(network, head=lambda dim: VICRegProjectionHead(dim, max(dim, projection), projection))
        self.level = level
        self.local = VicRegLLocalProjectionHead(channels, max(channels, dense_projection), dense_projection)
        self.criterion = VICRegLLoss(lambda_param, mu_param, nu_param, alpha, num_matches=matches)

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Both terms; a position's place is known from the geometry of its view."""
        levels = [maps[self.level] for maps in out.maps]
        side = levels[0].shape[-1]
        local = [self.local(rows(level)).unflatten(1, (side, side)) for level in levels]
        grids = [positions(geometry, side).unflatten(1, (side, side)) for geometry in batch.geometry]
        return self.criterion(list(zip(out.z, local, strict=True)), grids).squeeze()
