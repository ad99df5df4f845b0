"""What changes with depth: gain compensation, attenuation, shadows. Depth runs down the rows of the view."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from usbench_freq.inside import Inside, column
from usbench_freq.options import probability, within


def depth_of(images: Tensor, sector: Tensor | None) -> Tensor:
    """(n, 1, H, 1) the depth of each row: 0 at the top of the view's sector, 1 at its bottom."""
    height = images.shape[2]
    row = torch.arange(height, device=images.device, dtype=images.dtype)
    if sector is None:
        return (row / max(1, height - 1)).view(1, 1, -1, 1).expand(len(images), -1, -1, -1)
    covered = sector.any(3)
    top = torch.where(covered, row, height - 1).amin(2, keepdim=True)
    bottom = torch.where(covered, row, 0).amax(2, keepdim=True)
    return ((row - top) / (bottom - top).clamp_min(1)).clamp(0, 1)[..., None]


class TGC(Inside):
    """Time-gain compensation: each row times a gain that runs smoothly through randomly set sliders.

    Args:
        strength: the largest logarithm of a slider's gain, either way.
        sliders: how many there are from the top of the sector to its bottom.
    """

    def __init__(self, strength: tuple[float, float] = (0.0, 0.7), sliders: int = 6) -> None:
        super().__init__()
        within(0, 2, strength=strength)
        if not sliders >= 2:
            raise ValueError(f"sliders is {sliders}: at least 2")
        self.strength, self.sliders = strength, sliders

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """The sliders of each view, as logarithms of a gain."""
        n = len(boxes)
        return {"sliders": rng.uniform(-1, 1, (n, self.sliders)) * rng.uniform(*self.strength, (n, 1))}

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Between two sliders the gain goes from one to the other without a kink."""
        sliders = drawn["sliders"]
        at = depth_of(images, sector)[:, 0, :, 0] * (self.sliders - 1)
        above = at.long().clamp_max(self.sliders - 2)
        share = at - above
        share = share * share * (3 - 2 * share)
        gain = sliders.gather(1, above) * (1 - share) + sliders.gather(1, above + 1) * share
        return images * gain.exp()[:, None, :, None]


class Attenuation(Inside):
    """The image times exp(−rate · depth): deeper tissue is darker, or brighter where the rate is below zero.

    Args:
        rate: 0 changes nothing; at 1 the bottom keeps 37 % of its grey.
    """

    def __init__(self, rate: tuple[float, float] = (-0.5, 1.0)) -> None:
        super().__init__()
        within(-3, 3, rate=rate)
        self.rate = rate

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """A rate for each view."""
        return {"rate": rng.uniform(*self.rate, len(boxes))}

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Decay from the top of the sector."""
        return images * torch.exp(-column(drawn["rate"]) * depth_of(images, sector))


class Shadow(Inside):
    """What lies below a drawn point is darkened: a stripe along the beam that may open downwards, with soft edges.

    Args:
        strength: how much of the grey is taken away.
        width: of the shadow at its top, as a share of the view's width.
        spread: how much wider it grows over the view's height, in the same measure.
        p: how often a view gets one.
    """

    def __init__(
        self,
        strength: tuple[float, float] = (0.3, 0.8),
        width: tuple[float, float] = (0.05, 0.2),
        spread: tuple[float, float] = (0.0, 0.15),
        p: float = 0.7,
    ) -> None:
        super().__init__()
        within(0, 1, strength=strength, width=width, spread=spread)
        probability(p=p)
        self.strength, self.width, self.spread, self.p = strength, width, spread, p

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """Where each view's shadow begins, in the upper part of the sector's box, and its form."""
        n = len(boxes)
        share = rng.uniform([0.05, 0.05], [0.95, 0.6], (n, 2))
        # Beams of a curved array fan out, so a shadow at the side leans outwards.
        lean = (share[:, 0] - 0.5) * rng.uniform(0, 0.5, n)
        return {
            "top": boxes[:, :2] + share * (boxes[:, 2:] - boxes[:, :2]),
            "lean": lean,
            "width": rng.uniform(*self.width, n),
            "spread": rng.uniform(*self.spread, n),
            "softness": rng.uniform(0.3, 0.7, n),
            "strength": rng.uniform(*self.strength, n) * (rng.random(n) < self.p),
        }

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Dark in the middle, fading to both sides and over its first pixels."""
        height, width = images.shape[-2:]
        y, x = (((torch.arange(side, device=images.device) * 2 + 1) / side - 1) for side in (height, width))
        below = y.view(1, 1, -1, 1) - column(drawn["top"][:, 1])
        half = column(drawn["width"]) + column(drawn["spread"]) * below.clamp_min(0) / 2
        away = (x - column(drawn["top"][:, 0]) - column(drawn["lean"]) * below).abs()
        soft = column(drawn["softness"]) * half
        beside = torch.sigmoid((half - away) / (soft / 2).clamp_min(0.015))
        onset = torch.sigmoid(below / 0.05)
        return images * (1 - column(drawn["strength"]) * beside * onset)
