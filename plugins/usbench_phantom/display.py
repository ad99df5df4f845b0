"""The scanner's chain from echo power to grey: clutter, noise, time-gain compensation, log compression, grey map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from usbench_phantom.domains import Domain
from usbench_phantom.simulate import OVERSAMPLING, Scan


@dataclass(frozen=True)
class Settings:
    """How the sonographer has set the scanner for one patient."""

    dynamic_range_db: float
    gain_db: float
    focus_mm: float
    tgc_db: np.ndarray  # at eight sliders from the face to the full depth
    noise_db: float
    reverberation_db: float
    reverberation_mm: float  # distance between two echoes of the face
    dropouts: tuple[tuple[float, float, float], ...]  # (place along the face from 0 to 1, width, depth in dB)

    @classmethod
    def draw(cls, domain: Domain, rng: np.random.Generator) -> Settings:
        """Settings within the scanner's habits."""
        slope = rng.uniform(*domain.tgc_slope_db)
        dropouts = [
            (rng.uniform(), rng.uniform(0.02, 0.06), rng.uniform(4, 14)) for _ in range(rng.poisson(domain.dropout))
        ]
        if rng.random() < domain.lift_off:
            dropouts.append((float(rng.integers(2)), rng.uniform(0.03, 0.07), 60.0))
        return cls(
            dynamic_range_db=rng.uniform(*domain.dynamic_range_db),
            gain_db=rng.uniform(*domain.gain_db),
            focus_mm=rng.uniform(*domain.focus) * domain.depth_mm,
            tgc_db=rng.normal(0, domain.tgc_ripple_db, 8) - slope * np.linspace(0, 1, 8) ** 1.5,
            noise_db=rng.uniform(*domain.noise_db),
            reverberation_db=rng.uniform(*domain.reverberation_db),
            reverberation_mm=rng.uniform(0.9, 1.8),
            dropouts=tuple(dropouts),
        )


def render(scan: Scan, power: np.ndarray, settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Grey images, (frames, size, size) uint8, black outside the sector."""
    size, domain = scan.size, scan.domain
    power = power[:, : OVERSAMPLING * size]
    part = np.linspace(0, 1, OVERSAMPLING * size, dtype=np.float32)[:, None]
    # Noise is received at constant power, so the gain that makes up for attenuation makes it grow with depth.
    noise = 10 ** ((settings.noise_db - 25 * (1 - part)) / 10)
    depth = part * domain.depth_mm
    ringing = 10 ** (settings.reverberation_db / 10) * np.exp(-depth / 1.5)
    ringing *= 0.15 + np.cos(np.pi * depth / settings.reverberation_mm) ** 8
    draws = rng.standard_exponential(power.shape, dtype=np.float32)
    decibel = np.float32(10 / np.log(10)) * np.log(power + noise * draws + ringing)
    decibel += np.interp(part, np.linspace(0, 1, 8), settings.tgc_db).astype(np.float32)
    face = (np.arange(scan.columns) - scan.margin) / size
    for place, width, drop in settings.dropouts:
        decibel -= (drop * np.exp(-0.5 * ((face - place) / width) ** 2)).astype(np.float32)
    pooled = decibel.reshape(len(power), size, OVERSAMPLING, scan.columns).mean(axis=2)
    shade = (scan.convert(pooled) + settings.gain_db) / settings.dynamic_range_db
    grey = 255 * np.clip(shade, 0, 1) ** domain.gamma
    return np.where(scan.sector, np.round(grey), 0).astype(np.uint8)
