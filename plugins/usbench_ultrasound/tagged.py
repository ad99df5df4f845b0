"""Supervised contrast: images that share a class, or an anatomy, are positives of each other."""

from __future__ import annotations

import torch
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor
from torch.nn import functional

from usbench import Batch, Loss, Network, Out
from usbench_ultrasound.contrast import check


def supervised_contrast(z: list[Tensor], group: Tensor, index: Tensor, temperature: float) -> Tensor:
    """Mean over the views of −1/|P| Σ_P log softmax: P are the other views of the same group, the rest negatives.

    An item of unknown group (−1) has its own other views as positives. A group that every item of the batch belongs to
    tells nothing apart, and pulling all together would leave nothing: it counts as unknown.
    """
    every = functional.normalize(torch.cat(z), dim=1)
    same = (group[:, None] == group[None]) & (group >= 0)[:, None]
    same = (same & ~same.all()) | (index[:, None] == index[None])
    own = torch.eye(len(every), dtype=torch.bool, device=every.device)
    positive = same.repeat(len(z), len(z)) & ~own
    share = (every @ every.T / temperature).masked_fill(own, -torch.inf).log_softmax(1)
    return -(share.masked_fill(~positive, 0.0).sum(1) / positive.sum(1)).mean()


class SupCon(Loss):
    """Views of images of one class attract each other; an image without a label attracts its own other view.

    Args:
        temperature: of the contrast.
        projection: width of the embedding.
    """

    pretrain_labels = "all"

    def __init__(self, network: Network, temperature: float = 0.1, projection: int = 128) -> None:
        check(temperature=temperature, projection=projection)
        super().__init__(network, head=lambda dim: SimCLRProjectionHead(dim, max(dim, projection), projection))
        self.temperature = temperature

    def group(self, batch: Batch) -> Tensor:
        """(N,) what makes two images positives; −1 unknown."""
        return batch.label

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """The contrast of both views of all images."""
        group = self.group(batch)
        return supervised_contrast(out.z, group, batch.index.to(group.device), self.temperature)


class AWCL(SupCon):
    """The same with anatomy tags: images of one anatomy attract each other, one without a tag its own other view.

    On data of a single anatomy that is plain contrast of views.

    Args:
        temperature: of the contrast.
        projection: width of the embedding.
    """

    def group(self, batch: Batch) -> Tensor:
        """The tags."""
        return batch.tag
