"""Cutout inside the sector."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from usbench_freq.inside import Inside, mean_inside
from usbench_freq.options import probability, within


class Cutout(Inside):
    """Rectangles inside the sector's box are erased to the sector's mean grey, or to black.

    Args:
        area: of a rectangle, as a share of the box.
        ratio: of its width to its height, both as shares of the box.
        holes: how many rectangles.
        fill: "mean" or "black".
        p: how often a view is changed.
    """

    def __init__(
        self,
        area: tuple[float, float] = (0.02, 0.08),
        ratio: tuple[float, float] = (0.5, 2.0),
        holes: int = 1,
        fill: str = "mean",
        p: float = 0.7,
    ) -> None:
        super().__init__()
        within(0, 1, area=area)
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio is {ratio[0]}/{ratio[1]}: 0 < low ≤ high")
        if not holes >= 1:
            raise ValueError(f"holes is {holes}: at least 1")
        if fill not in ("mean", "black"):
            raise ValueError(f"fill is '{fill}': one of mean, black")
        probability(p=p)
        self.area, self.ratio, self.holes, self.fill, self.p = area, ratio, holes, fill, p

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """(n, holes, 4) left, top, right, bottom of the rectangles; empty ones for a view that stays."""
        n = len(boxes)
        area = rng.uniform(*self.area, (n, self.holes))
        low, high = self.ratio
        aspect = np.exp(rng.uniform(np.log(low), np.log(high), (n, self.holes)))
        share = np.minimum(np.sqrt(np.stack([area * aspect, area / aspect], -1)), 1.0)
        share *= (rng.random(n) < self.p)[:, None, None]
        corner, extent = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        first = corner + rng.uniform(0, 1, share.shape) * (1 - share) * extent
        return {"holes": np.concatenate([first, first + share * extent], -1)}

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """A pixel is erased when its middle lies in a rectangle."""
        y, x = (((torch.arange(side, device=images.device) * 2 + 1) / side - 1) for side in images.shape[-2:])
        left, top, right, bottom = drawn["holes"][..., None].unbind(2)
        down, across = (y >= top) & (y < bottom), (x >= left) & (x < right)
        erased = (down[..., None] & across[:, :, None]).any(1, keepdim=True)
        grey = mean_inside(images, sector) if self.fill == "mean" else images.new_zeros(1)
        return torch.where(erased, grey, images)
