"""Frequency augmentation: the amplitude of the 2-D spectrum is multiplied by a drawn gain, the phase is kept.

The list of steps is known from the abstract of the RCL paper only, so the recipe is our reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from usbench import Augmentation
from usbench_freq import FREQUENCY
from usbench_freq.inside import Inside
from usbench_freq.options import probability
from usbench_freq.spatial import Spatial
from usbench_freq.spectrum import lowest, partners, radius

BINS = 64  # of the radial profile, from the zero frequency to the corner of the spectrum


class Frequency(Inside):
    """Radial band-stop, low- or high-pass, amplitude mix with another image of the batch, random amplitude gain.

    All radial steps of a sample are one profile over the radius, so they cost one multiplication of the spectrum.
    """

    def __init__(
        self,
        band: float = 0.5,
        band_width: tuple[float, float] = (0.05, 0.25),
        cut: float = 0.2,
        mix: float = 0.5,
        mix_size: float = 0.1,
        gain: float = 0.3,
    ) -> None:
        super().__init__()
        probability(band=band, cut=cut, mix=mix)
        if not 0 < band_width[0] <= band_width[1] < 1:
            raise ValueError(f"band_width is {band_width[0]}/{band_width[1]}: shares of the radius, 0 < low ≤ high < 1")
        if not 0 < mix_size <= 0.5:
            raise ValueError(f"mix_size is {mix_size}: the half side of the mixed square, in (0, 0.5]")
        if not 0 <= gain < 1:
            raise ValueError(f"gain is {gain}: the largest relative change of an amplitude, in [0, 1)")
        self.band, self.band_width, self.cut = band, band_width, cut
        self.mix, self.mix_size, self.gain = mix, mix_size, gain

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """A radial profile, a partner and a mixing share for each view."""
        n = len(boxes)
        radius = (np.arange(BINS, dtype=np.float32) + 0.5) / BINS
        profile = np.ones((n, BINS), np.float32)
        # Gain: a smooth random curve over the radius through five knots.
        knots = rng.uniform(1 - self.gain, 1 + self.gain, (n, 5)).astype(np.float32)
        at = radius * 4
        left = np.minimum(at.astype(np.int64), 3)
        profile *= knots[:, left] * (1 - (at - left)) + knots[:, left + 1] * (at - left)
        # Band-stop: the zero frequency, which is the mean grey, is never inside a band.
        width = rng.uniform(*self.band_width, n)
        centre = rng.uniform(0.05 + width / 2, 1.0)
        stopped = np.abs(radius - centre[:, None]) < width[:, None] / 2
        profile[stopped & (rng.random(n) < self.band)[:, None]] = 0.0
        # Low-pass keeps what is below its radius; high-pass weakens the lowest frequencies.
        kind = rng.random(n)
        low = radius > rng.uniform(0.25, 0.7, n)[:, None]
        high = (radius > 1 / BINS) & (radius < rng.uniform(0.03, 0.1, n)[:, None])
        profile[low & (kind < self.cut / 2)[:, None]] = 0.0
        profile[high & ((kind >= self.cut / 2) & (kind < self.cut))[:, None]] *= 0.3
        profile[:, 0] = 1.0
        share = rng.uniform(0, 1, n) * (rng.random(n) < self.mix)
        return {"profile": profile, "share": share.astype(np.float32), "partner": partners(rng, n, self.views)}

    def change(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Multiply each spectrum's amplitude; the phase and the mean grey level stay."""
        height, width = images.shape[-2:]
        spectrum = torch.fft.rfft2(images[:, 0])
        bins = (radius(height, width, images.device) * BINS).long().clamp_(max=BINS - 1).reshape(-1)
        gain = drawn["profile"].index_select(1, bins).view(spectrum.shape)
        self._mix(spectrum, gain, drawn["partner"], drawn["share"])
        return torch.fft.irfft2(spectrum.mul_(gain), s=(height, width))[:, None]

    def _mix(self, spectrum: Tensor, gain: Tensor, partner: Tensor, share: Tensor) -> None:
        """A = (1 − λ) A₁ + λ A₂ inside a low-frequency square, written as a gain on A₁."""
        side = spectrum.shape[1]
        reach = max(1, int(self.mix_size * side))
        for part in lowest(side, reach):
            own = spectrum[:, part, : reach + 1].abs()
            ratio = own[partner.long()] / own.clamp_min(1e-6)
            gain[:, part, : reach + 1] *= 1 + share[:, None, None] * (ratio - 1)
        gain[:, 0, 0] = 1.0


def freq(**options: Any) -> list[Augmentation]:
    """Spatial, then frequency: each gets its own options."""
    frequency = {key: options.pop(key) for key in FREQUENCY if key in options}
    return [Spatial(**options), Frequency(**frequency)]
