"""The display: how echo strength becomes grey."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor
from usbench_freq.inside import Inside, column, mean_inside
from usbench_freq.options import probability


class Gain(Inside):
    """Dynamic range, gamma, contrast and brightness, in this order.

    A log-compressed image shows so many decibels below white; the dynamic range stretches that scale, so that dark
    tissue sinks into black or rises from it. Contrast turns about the mean grey of the sector.

    Args:
        brightness: largest relative change of the grey.
        contrast: largest relative change of the distance to the mean.
        gamma: largest logarithm of the exponent, either way.
        dynamic_range: largest logarithm of the stretch, either way.
        p: how often a view is changed.
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.3,
        gamma: float = 0.25,
        dynamic_range: float = 0.1,
        p: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in {"brightness": brightness, "contrast": contrast}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}: the largest relative change, in [0, 1]")
        for name, value in {"gamma": gamma, "dynamic_range": dynamic_range}.items():
            if not 0 <= value <= 2:
                raise ValueError(f"{name} is {value}: the largest logarithm either way, in [0, 2]")
        probability(p=p)
        self.brightness, self.contrast, self.gamma, self.dynamic_range = brightness, contrast, gamma, dynamic_range
        self.p = p

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """Four factors for each view; 1 changes nothing."""
        changed = rng.random(len(boxes)) < self.p
        turned = {name: rng.uniform(-1, 1, len(boxes)) * changed for name in ("stretch", "gamma", "contrast", "gain")}
        return {
            "stretch": np.exp(self.dynamic_range * turned["stretch"]),
            "gamma": np.exp(self.gamma * turned["gamma"]),
            "contrast": 1 + self.contrast * turned["contrast"],
            "gain": 1 + self.brightness * turned["gain"],
        }

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Stretch below white, bend, spread about the mean, scale."""
        stretch, gamma, contrast, gain = (column(drawn[name]) for name in ("stretch", "gamma", "contrast", "gain"))
        bent = (images - 1).mul_(stretch).add_(1).clamp_min_(0) if self.dynamic_range else images
        bent = bent.clamp_min(0).pow(gamma) if self.gamma else bent
        middle = mean_inside(bent, sector)
        return (bent - middle).mul_(contrast).add_(middle).mul_(gain)
