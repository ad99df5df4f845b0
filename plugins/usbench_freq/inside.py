"""Steps that change what lies inside the sector and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from usbench import Augmentation


class Inside(Augmentation):
    """Pixels outside the sector are put back, the others stay in [0, 1]. A step writes `draw` and `change`."""

    wants_sector = True

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """New images of the same shape, on their way to [0, 1]; must not write to the given ones."""
        raise NotImplementedError(f"{type(self).__name__} must write change(images, drawn, sector)")

    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Changed inside the sector, as it came outside."""
        changed = self.change(images, drawn, sector).clamp(0, 1)
        return changed if sector is None else torch.where(sector, changed, images)


def mean_inside(images: Tensor, sector: Tensor | None) -> Tensor:
    """(n, 1, 1, 1) the mean grey of each image's sector."""
    if sector is None:
        return images.mean((2, 3), keepdim=True)
    return (images * sector).sum((2, 3), keepdim=True) / sector.sum((2, 3), keepdim=True).clamp_min(1)


def column(values: Tensor) -> Tensor:
    """(n,) → (n, 1, 1, 1): a number for each image."""
    return values.view(-1, 1, 1, 1)
