"""From tissue to grey: scatterers, a depth-dependent point-spread function, envelope, log compression, grey map.

The field is computed at baseband (envelope and phase, no carrier) on a grid of beams by depths with two samples a
pixel in depth. The pulse is a convolution over depth; the beam's width is a Gaussian of its own at every depth, which
is exact in the mixed domain of depth by lateral frequency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.ndimage import map_coordinates

from usbench_phantom.domains import Domain

SOUND_MM_US = 1.54
OVERSAMPLING = 2  # samples a pixel in depth, so that the envelope is not aliased
FWHM = 2.3548  # of a Gaussian, in standard deviations


class Scan:
    """Where the beams, the depths and the image's pixels of one probe lie in the tissue."""

    def __init__(self, domain: Domain, size: int) -> None:
        self.domain, self.size = domain, size
        self.margin = size // 8  # beams beyond each side: room for probe motion and for the FFT's wrap
        self.rows, self.columns = size + self.margin, size + 2 * self.margin
        self.row_mm = domain.depth_mm / size
        self.depth = (np.arange(self.rows, dtype=np.float32) + 0.5) * self.row_mm
        beam = (np.arange(self.columns, dtype=np.float32) + 0.5 - self.columns / 2) / size  # -0.5 to 0.5 in the image
        self.curved = domain.radius_mm > 0
        if self.curved:
            angle = 2 * domain.half_angle * beam
            self.x = (domain.radius_mm + self.depth[:, None]) * np.sin(angle)
            span = 2 * (domain.radius_mm + domain.depth_mm) * np.sin(domain.half_angle)
            drop = domain.radius_mm * np.cos(domain.half_angle)
            self.pixel_mm = float(max(span, domain.radius_mm + domain.depth_mm - drop)) / size
            across = (np.arange(size) + 0.5 - size / 2) * self.pixel_mm
            down = across[:, None] + (domain.radius_mm + domain.depth_mm + drop) / 2
            radius, angle = np.hypot(across, down), np.arctan2(across, down)
            self.pixel_row = ((radius - domain.radius_mm) / self.row_mm - 0.5).astype(np.float32)
            self.pixel_column = ((angle / domain.half_angle + 1) / 2 * size - 0.5 + self.margin).astype(np.float32)
            self.sector = (abs(angle) <= domain.half_angle) & (radius >= domain.radius_mm)
            self.sector &= radius <= domain.radius_mm + domain.depth_mm
        else:
            self.x = np.broadcast_to(beam * np.float32(domain.width_mm), (self.rows, self.columns))
            self.pixel_mm = domain.depth_mm / size
            index = np.indices((size, size)).astype(np.float32)
            self.pixel_row, self.pixel_column = index[0], index[1] + self.margin
            self.sector = np.ones((size, size), np.bool_)

    def pitch(self, depth: np.ndarray) -> np.ndarray:
        """The distance between neighbouring beams at a depth."""
        if self.curved:
            return (self.domain.radius_mm + depth) * 2 * self.domain.half_angle / self.size
        return np.full_like(depth, self.domain.width_mm / self.size)

    def drift(self, depth: np.ndarray, motion: Motion) -> np.ndarray:
        """How many beams the tissue at a depth has moved under the probe, (frames, *depth.shape)."""
        extra = (1,) * depth.ndim
        moved = motion.slide.reshape(-1, *extra) + motion.shear.reshape(-1, *extra) * depth
        return (moved / self.pitch(depth)).astype(np.float32)

    def locate(self, motion: Motion) -> tuple[np.ndarray, np.ndarray]:
        """The tissue's coordinates (x, depth) under every pixel, (frames, size, size)."""
        depth = (self.pixel_row + 0.5) * self.row_mm
        column = self.pixel_column + self.drift(depth, motion)
        beam = (column + 0.5 - self.columns / 2) / self.size
        if self.curved:
            return (self.domain.radius_mm + depth) * np.sin(2 * self.domain.half_angle * beam), depth
        return beam * self.domain.width_mm, depth

    def convert(self, beams: np.ndarray) -> np.ndarray:
        """Scan conversion of (frames, size, columns) to (frames, size, size)."""
        if not self.curved:
            return beams[:, :, self.margin : self.margin + self.size]
        at = np.stack([self.pixel_row, self.pixel_column])
        return np.stack([map_coordinates(frame, at, order=1, mode="nearest") for frame in beams])


@dataclass(frozen=True)
class Motion:
    """The probe's path over the frames of a clip; a still is one frame at rest."""

    slide: np.ndarray  # mm along the face
    shear: np.ndarray  # mm along the face a mm of depth
    turn: np.ndarray  # radians from one scatterer field to another: decorrelation out of plane


REST = Motion(np.zeros(1), np.zeros(1), np.zeros(1))


@dataclass(frozen=True)
class Tissue:
    """What the beams meet, on the scan's grid of (rows, columns)."""

    level: np.ndarray  # backscatter in dB against fat
    mirror: np.ndarray  # amplitude of specular reflections
    loss: np.ndarray  # dB lost on the way there and back, beyond what TGC gives back


@dataclass
class Canvas:
    """The tissue while it is painted: as `Tissue`, with the loss still a rate in dB/mm."""

    scan: Scan
    level: np.ndarray
    mirror: np.ndarray
    loss_rate: np.ndarray


def step(distance: np.ndarray, blur: float) -> np.ndarray:
    """From 0 to 1 where a distance becomes positive."""
    return np.clip(0.5 + distance / (2 * blur), 0, 1)


def echoes(scan: Scan, tissue: Tissue, motion: Motion, focus_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Echo power of every frame, (frames, depth samples, columns), compounded over the looks; fat is 1."""
    shape = (OVERSAMPLING * scan.rows, scan.columns)
    through = 10 ** (-tissue.loss / 20)
    amplitude = np.repeat(10 ** (tissue.level / 20) * through, OVERSAMPLING, axis=0)
    mirror = np.repeat(tissue.mirror * through, OVERSAMPLING, axis=0)
    pulse, beam = _transfer(scan, focus_mm)

    def mixed(source: np.ndarray) -> np.ndarray:
        """The source seen through the pulse and the beam, by depth and lateral frequency."""
        spectrum = fft.fft2(source, workers=1, overwrite_x=True)
        spectrum *= pulse
        return fft.ifft(spectrum, axis=-2, workers=1, overwrite_x=True) * beam

    parts = [mixed(_scatterers(shape, scan.domain.looks, rng) * amplitude + mirror)]
    if len(motion.turn) == 1:
        return _power(parts[0])[None]
    parts += [mixed(_scatterers(shape, scan.domain.looks, rng) * amplitude + mirror), mixed(mirror + 0j)]
    depth = (np.arange(shape[0], dtype=np.float32) + 0.5) * scan.row_mm / OVERSAMPLING
    waves = 2 * np.pi * fft.fftfreq(shape[1]).astype(np.float32)
    frames = []
    for turn, drift in zip(motion.turn, scan.drift(depth, motion), strict=True):
        # The scatterers turn from the first field to the second; the reflections, which are in both, stay.
        cos, sin = math.cos(turn), math.sin(turn)
        turned = cos * parts[0] + sin * parts[1] + (1 - cos - sin) * parts[2]
        phase = drift[:, None] * waves
        frames.append(_power(turned * (np.cos(phase) + 1j * np.sin(phase))))
    return np.stack(frames)


def _power(mixed: np.ndarray) -> np.ndarray:
    """Squared envelope, averaged over the looks."""
    field = fft.ifft(mixed, axis=-1, workers=1, overwrite_x=True)
    return (field.real**2 + field.imag**2).mean(axis=0)


def _scatterers(shape: tuple[int, int], looks: int, rng: np.random.Generator) -> np.ndarray:
    """Many scatterers in a cell: circular complex Gaussian of unit power, (looks, *shape)."""
    draws = rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(np.sqrt(0.5))
    field = draws.view(np.complex64)[..., 0]
    # Another look meets other scatterers: the same field rolled by a share of its width is as good as a new one.
    return np.stack([np.roll(field, look * shape[1] // looks, axis=1) for look in range(looks)])


def _transfer(scan: Scan, focus_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Transfer functions of the pulse (over depth) and of the beam (one row a depth), each of unit noise power."""
    domain = scan.domain
    step = scan.row_mm / OVERSAMPLING
    length = 0.44 * SOUND_MM_US / (domain.bandwidth * domain.frequency_mhz) / FWHM  # two-way: c/2 × 0.88/bandwidth
    waves = 2 * np.pi * fft.fftfreq(OVERSAMPLING * scan.rows).astype(np.float32)[:, None]
    pulse = np.exp(-0.5 * (waves * length / step) ** 2)
    depth = (np.arange(OVERSAMPLING * scan.rows, dtype=np.float32) + 0.5) * step
    narrowest = SOUND_MM_US / domain.frequency_mhz * domain.f_number
    width = np.hypot(narrowest, domain.defocus * (depth - focus_mm)) / FWHM / scan.pitch(depth)
    waves = 2 * np.pi * fft.fftfreq(scan.columns).astype(np.float32)
    main = np.exp(-0.5 * (waves * width[:, None]) ** 2)
    sides = np.exp(-0.5 * (waves * 6 * width[:, None]) ** 2)
    beam = main + np.float32(10 ** (domain.sidelobe_db / 20) * 6) * sides
    pulse /= np.sqrt((pulse**2).mean())
    beam /= np.sqrt((beam**2).mean(axis=1, keepdims=True))
    return pulse.astype(np.float32), beam.astype(np.float32)
