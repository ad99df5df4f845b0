"""One thing done to the spectrum at a time: a band stopped, low amplitudes mixed, phases jittered."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from usbench_freq.inside import Inside, mean_inside
from usbench_freq.options import probability, within
from usbench_freq.spectrum import lowest, partners, plane_waves, radius


def _spectrum(images: Tensor, sector: Tensor | None) -> Tensor:
    """Of the tissue: the outside is its mean grey here, else the sector's outline would rule the spectrum."""
    tissue = images if sector is None else torch.where(sector, images, mean_inside(images, sector))
    return torch.fft.rfft2(tissue[:, 0])


def _back(spectrum: Tensor, images: Tensor) -> Tensor:
    return torch.fft.irfft2(spectrum, s=images.shape[-2:])[:, None]


class BandStop(Inside):
    """A ring of the spectrum is set to zero; the mean grey is never in it.

    Args:
        band_width: of the ring, as a share of the radius of the spectrum's corner.
        lowest: radius below which no ring begins, so that the large shapes stay.
        p: how often a view is changed.
    """

    def __init__(self, band_width: tuple[float, float] = (0.03, 0.15), lowest: float = 0.08, p: float = 0.8) -> None:
        super().__init__()
        within(0, 1, band_width=band_width)
        if not 0 < lowest < 1:
            raise ValueError(f"lowest is {lowest}: a radius in (0, 1), above the mean grey")
        probability(p=p)
        self.band_width, self.lowest, self.p = band_width, lowest, p

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """From which radius to which each view's ring goes."""
        n = len(boxes)
        width = rng.uniform(*self.band_width, n) * (rng.random(n) < self.p)
        # The corners hold few frequencies: a ring around 0.7, the axes' ends, is the last one that shows.
        first = rng.uniform(self.lowest, np.maximum(self.lowest, 0.7 - width / 2))
        return {"first": first, "last": first + width}

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Keep every frequency but the ring's."""
        at = radius(*images.shape[-2:], images.device)
        stopped = (at >= drawn["first"][:, None, None]) & (at < drawn["last"][:, None, None])
        return _back(_spectrum(images, sector).masked_fill_(stopped, 0), images)


class AmplitudeMix(Inside):
    """A = (1 − λ) A₁ + λ A₂ inside a low-frequency square around zero, A₂ being another image's; the phase is kept.

    With λ = 1 this is Fourier domain adaptation (FDA) with another image of the batch for the target domain. The mean
    grey is inside the square, so it is mixed too.

    Args:
        share: λ.
        reach: half the side of the square, as a share of the image's shorter side.
    """

    def __init__(self, share: tuple[float, float] = (0.0, 1.0), reach: tuple[float, float] = (0.01, 0.06)) -> None:
        super().__init__()
        within(0, 1, share=share)
        within(0, 0.5, reach=reach)
        self.share, self.reach = share, reach

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """A mixing share, a size of the square and a partner for each view."""
        n = len(boxes)
        share, reach = rng.uniform(*self.share, n), rng.uniform(*self.reach, n)
        return {"share": share, "reach": reach, "partner": partners(rng, n, self.views)}

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Only the corner of the spectrum that the largest square covers is worked on."""
        height, width = images.shape[-2:]
        side = min(height, width)
        spectrum = _spectrum(images, sector)
        most, partner = int(self.reach[1] * side), drawn["partner"].long()
        reach = (drawn["reach"] * side).floor().view(-1, 1, 1)
        across = torch.arange(min(most + 1, spectrum.shape[2]), device=images.device)
        rows = torch.fft.fftfreq(height, 1 / height, device=images.device).abs()
        for part in lowest(height, most):
            block = spectrum[:, part, : most + 1]
            share = drawn["share"].view(-1, 1, 1) * ((rows[part][:, None] <= reach) & (across <= reach))
            own = block.abs()
            block *= 1 + share * (own[partner] / own.clamp_min(1e-6) - 1)
        return _back(spectrum, images)


class PhaseJitter(Inside):
    """Every phase is shifted by a little that varies smoothly over the frequencies; the amplitude is kept.

    The shift is θ(f) = Σₖ aₖ sin(2π uₖ·f) with a few displacements u of whole pixels. It is odd in f, so the image
    stays real, and smooth, so what a pixel receives comes from its neighbourhood and no ghost appears far away: to
    first order each term adds a copy moved by u and takes one away moved by −u, as an aberrated beam does.

    Args:
        strength: root mean square of θ, in radians.
        reach: the largest displacement, as a share of the image's shorter side.
    """

    waves = 6

    def __init__(self, strength: tuple[float, float] = (0.0, 0.4), reach: float = 0.04) -> None:
        super().__init__()
        within(0, np.pi, strength=strength)
        if not 0 < reach <= 0.5:
            raise ValueError(f"reach is {reach}: a share of the image's side, in (0, 0.5]")
        self.strength, self.reach = strength, reach

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """Displacements and amplitudes of each view's waves."""
        n = len(boxes)
        amplitude = rng.standard_normal((n, self.waves))
        amplitude *= (rng.uniform(*self.strength, n) * 2**0.5 / np.linalg.norm(amplitude, axis=1))[:, None]
        move = rng.uniform(-self.reach, self.reach, (n, self.waves, 2))
        return {"amplitude": amplitude, "move": move}

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Turn each frequency by θ."""
        height, width = images.shape[-2:]
        # At least a pixel: a displacement of none is no wave.
        move = drawn["move"] * min(height, width)
        move = 2 * torch.pi * torch.where(move < 0, move.floor(), move.ceil())
        down = move[..., :1] * torch.fft.fftfreq(height, device=images.device)
        across = move[..., 1:] * torch.fft.rfftfreq(width, device=images.device)
        theta = plane_waves(down, across, drawn["amplitude"][..., None]).imag
        return _back(_spectrum(images, sector).mul_(torch.polar(torch.ones_like(theta), theta)), images)
