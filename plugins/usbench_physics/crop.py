"""A crop that shows tissue only, in its true proportions."""

from __future__ import annotations

import numpy as np
from usbench_freq.options import probability, within

from usbench import Augmentation
from usbench.views import affine


class SectorCrop(Augmentation):
    """A square crop that stays inside the sector's box: aspect kept, no rotation, so depth stays vertical.

    Args:
        scale: area of the crop, as a share of the largest square in the box.
        flip: how often the crop is mirrored left to right.
        local_scale: the same as `scale` for local views.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.3, 1.0),
        flip: float = 0.5,
        local_scale: tuple[float, float] = (0.1, 0.3),
    ) -> None:
        super().__init__()
        within(0.01, 1, scale=scale, local_scale=local_scale)
        probability(flip=flip)
        self.scale, self.flip, self.local_scale = scale, flip, local_scale

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """One affine a view."""
        n = len(boxes)
        half_box, middle = (boxes[:, 2:] - boxes[:, :2]) / 2, (boxes[:, 2:] + boxes[:, :2]) / 2
        side = half_box.min(1, keepdims=True) * np.sqrt(
            rng.uniform(*(self.local_scale if local else self.scale), (n, 1))
        )
        centre = middle + (half_box - side) * rng.uniform(-1, 1, (n, 2))
        return {"affine": affine(centre, side.repeat(2, 1), np.zeros(n), rng.random(n) < self.flip)}
