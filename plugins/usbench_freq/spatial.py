"""Spatial augmentation: everything is one affine a view, so the image is resampled once."""

from __future__ import annotations

import numpy as np

from usbench import Augmentation
from usbench.views import affine


def nothing() -> list[Augmentation]:
    """No step at all."""
    return []


class Spatial(Augmentation):
    """Resized crop that starts from the sector, horizontal flip, rotation; local views take a smaller crop."""

    def __init__(
        self,
        scale: tuple[float, float] = (0.3, 1.0),
        ratio: tuple[float, float] = (0.75, 1.33),
        degrees: float = 15.0,
        flip: float = 0.5,
        local_scale: tuple[float, float] = (0.1, 0.3),
    ) -> None:
        super().__init__()
        for name, (low, high) in {"scale": scale, "local_scale": local_scale}.items():
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} is {low}/{high}: shares of the area, 0 < low ≤ high ≤ 1")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio is {ratio[0]}/{ratio[1]}: 0 < low ≤ high")
        if not 0 <= degrees <= 180:
            raise ValueError(f"degrees is {degrees}: the largest rotation either way, in [0, 180]")
        if not 0 <= flip <= 1:
            raise ValueError(f"flip is {flip}: a probability")
        self.scale, self.ratio, self.degrees, self.flip, self.local_scale = scale, ratio, degrees, flip, local_scale

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """One affine a view."""
        n = len(boxes)
        low, high = self.local_scale if local else self.scale
        area = rng.uniform(low, high, n)
        aspect = np.exp(rng.uniform(np.log(self.ratio[0]), np.log(self.ratio[1]), n))
        share = np.minimum(np.sqrt(np.stack([area * aspect, area / aspect], 1)), 1.0)
        half_box = (boxes[:, 2:] - boxes[:, :2]) / 2
        middle = (boxes[:, 2:] + boxes[:, :2]) / 2
        room = half_box * (1 - share)
        centre = middle + room * rng.uniform(-1, 1, (n, 2))
        degrees = rng.uniform(-self.degrees, self.degrees, n)
        return {"affine": affine(centre, half_box * share, degrees, rng.random(n) < self.flip)}
