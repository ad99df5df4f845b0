"""Texture: speckle and blur."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from usbench_freq.inside import Inside, column
from usbench_freq.options import probability, within
from usbench_freq.spectrum import plane_waves


class Speckle(Inside):
    """The image times correlated Rayleigh noise of mean one.

    Speckle is the magnitude of many echoes that interfere, and is made so: a sum of plane waves with random phases,
    whose wave numbers follow the spectrum of a point-spread function that is wider than deep. The waves are drawn on
    the host, a few numbers each, so every device and every image size sees the same noise, without a state.

    Args:
        strength: 0 leaves the image, 1 multiplies it with fully developed speckle.
        grain: depth of a speckle spot at half its height, as a share of the view's side; a spot is twice as wide.
    """

    waves = 48
    lateral = 2.0  # how much wider than deep a spot is

    def __init__(self, strength: tuple[float, float] = (0.0, 0.4), grain: tuple[float, float] = (0.02, 0.04)) -> None:
        super().__init__()
        within(0, 1, strength=strength, grain=grain)
        if not grain[0] > 0:
            raise ValueError(f"grain is {grain[0]}/{grain[1]}: above 0")
        self.strength, self.grain = strength, grain

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """A strength, and the wave numbers and phases of each view's waves."""
        n = len(boxes)
        # The magnitude's covariance is exp(−4π²σ²d²) for Gaussian wave numbers of deviation σ: half of it at grain / 2.
        deviation = np.log(2) ** 0.5 / (np.pi * rng.uniform(*self.grain, n))
        waves = rng.standard_normal((n, self.waves, 2), np.float32) * deviation[:, None, None]
        waves[..., 1] /= self.lateral
        phase = rng.uniform(0, 2 * np.pi, (n, self.waves))
        return {"strength": rng.uniform(*self.strength, n), "waves": waves, "phase": phase}

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Interfere, take the magnitude, multiply."""
        down, across = (
            2 * torch.pi * drawn["waves"][..., axis, None] * ((torch.arange(side, device=images.device) + 0.5) / side)
            for axis, side in enumerate(images.shape[-2:])
        )
        field = plane_waves(down + drawn["phase"][..., None], across)
        rayleigh = field.abs() / (self.waves * torch.pi / 4) ** 0.5
        return images * (1 + column(drawn["strength"]) * (rayleigh[:, None] - 1))


class Blur(Inside):
    """Gaussian blur; the weights of a pixel are those of its neighbours inside the sector, so no black bleeds in.

    Args:
        sigma: of the Gaussian, as a share of the view's side.
        p: how often a view is blurred.
    """

    def __init__(self, sigma: tuple[float, float] = (0.002, 0.01), p: float = 0.5) -> None:
        super().__init__()
        within(0, 0.1, sigma=sigma)
        probability(p=p)
        self.sigma, self.p = sigma, p

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """A width for each view; 0 for those that stay sharp."""
        return {"sigma": rng.uniform(*self.sigma, len(boxes)) * (rng.random(len(boxes)) < self.p)}

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Blur the views that are to be blurred, where looking which they are does not mean waiting for a GPU."""
        if images.device.type != "cpu":
            return self._blurred(images, drawn["sigma"], sector)
        rows = drawn["sigma"].nonzero().squeeze(1)
        made = images.clone()
        made[rows] = self._blurred(images[rows], drawn["sigma"][rows], None if sector is None else sector[rows])
        return made

    def _blurred(self, images: Tensor, sigma: Tensor, sector: Tensor | None) -> Tensor:
        """One depthwise convolution down and one across, each image with its own kernel."""
        n, _, height, width = images.shape
        if n == 0:
            return images
        side = max(height, width)
        reach = max(1, int(np.ceil(3 * self.sigma[1] * side)))
        at = torch.arange(-reach, reach + 1, device=images.device)
        kernel = torch.exp(-0.5 * (at / (sigma[:, None] * side).clamp_min(1e-3)).square())
        weight = torch.ones_like(images) if sector is None else sector.to(images.dtype)
        planes = torch.cat([images * weight, weight], 1).view(1, 2 * n, height, width)
        kernel = kernel.repeat_interleave(2, 0)[:, None]
        planes = functional.conv2d(planes, kernel[..., None], padding=(reach, 0), groups=2 * n)
        planes = functional.conv2d(planes, kernel[..., None, :], padding=(0, reach), groups=2 * n)
        blurred, total = planes.view(n, 2, height, width).split(1, 1)
        return blurred / total.clamp_min(1e-6)
