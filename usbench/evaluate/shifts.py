"""Ultrasound shifts of a test image at five severities: what a scanner, its settings or a poor contact can do to it.

Only for tests: nothing is ever trained on these. The geometry never moves, so masks stay true, and whatever lies
outside the insonified sector stays as it is. An image's pattern hangs on the pack's digest, the image's name and the
corruption alone: it is the same for every row, batch and machine, and a higher severity is more of the same pattern.

Grey is log-compressed echo, so a gain of so many dB adds so many grey levels wherever there is an echo.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from usbench.data.pack import Pack
from usbench.draws import generator
from usbench.errors import RunFailed, UsbenchError, unknown
from usbench.evaluate import marks
from usbench.evaluate.marks import CANVAS

SEVERITIES = (1, 2, 3, 4, 5)
ALL = "all"
FAINT = 24.0  # grey below which an echo drowns in the noise, so that gain lifts it less
BRIGHT = 160.0  # grey of the bright echoes of a well adjusted scan


def _beams(sector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth and place across the beams, each from 0 to 1 in the sector: along the rays of a fan, else rows and columns.

    A fan is a sector whose two flanks part on the way down; they meet in the apex of its rays.
    """
    y, x = np.mgrid[: sector.shape[0], : sector.shape[1]].astype(float)
    rows = np.flatnonzero(sector.any(axis=1))
    left, right = sector.argmax(axis=1)[rows], sector.shape[1] - 1 - sector[:, ::-1].argmax(axis=1)[rows]
    flank = slice(0, int((right - left).argmax()) + 1)
    if len(rows[flank]) > max(8, len(rows) / 4):
        (left_slope, left_start), (right_slope, right_start) = (
            np.polyfit(rows[flank], side[flank], 1) for side in (left, right)
        )
        if right_slope - left_slope > 0.3:
            top = (left_start - right_start) / (right_slope - left_slope)
            x, y = x - (left_start + left_slope * top), y - top
            x, y = np.arctan2(x, np.maximum(y, 1e-6)), np.hypot(x, y)
    depth, across = ((axis - axis[sector].min()) / max(float(np.ptp(axis[sector])), 1e-9) for axis in (y, x))
    return depth.clip(0, 1), across.clip(0, 1)


def _amplified(image: np.ndarray, grey: float | np.ndarray) -> np.ndarray:
    """So many grey levels more or fewer; where there is no echo, more gain shows none."""
    return image + np.where(np.asarray(grey) > 0, grey * np.minimum(image / FAINT, 1), grey)


def _brightness(image: np.ndarray, sector: np.ndarray) -> float:
    """1 for a scan that uses the whole grey scale, less for a darker one: what it can lose is less too."""
    return min(1.0, float(np.percentile(image[sector], 95)) / BRIGHT)


def _grain(shape: tuple[int, ...], rng: np.random.Generator, axial: float, lateral: float) -> np.ndarray:
    """Fully developed speckle: the Rayleigh amplitude, of mean 1, of a complex field smooth over so many pixels."""
    unit = max(shape) / CANVAS
    real, imaginary = (gaussian_filter(rng.standard_normal(shape), (axial * unit, lateral * unit)) for _ in range(2))
    amplitude = np.hypot(real, imaginary)
    return amplitude / amplitude.mean()


def _speckle(image: np.ndarray, sector: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    return image * (1 + strength * (_grain(image.shape, rng, 0.9, 1.6) - 1))


def _gain(image: np.ndarray, sector: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    return _amplified(image, strength * _brightness(image, sector) * rng.uniform(0.85, 1.15))


def _tgc(image: np.ndarray, sector: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    depth, _ = _beams(sector)
    tilt = rng.choice([-1, 1]) * rng.uniform(0.85, 1.15) * _brightness(image, sector)
    bend = rng.uniform(-0.25, 0.25) * np.sin(2 * np.pi * depth)
    return _amplified(image, strength * tilt * (2 * depth - 1 + bend))


def _attenuation(image: np.ndarray, sector: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    depth, _ = _beams(sector)
    lost = strength * _brightness(image, sector) * rng.uniform(0.85, 1.15)
    return _amplified(image, -lost * (depth - rng.uniform(0, 0.15)).clip(0))


def _shadow(image: np.ndarray, sector: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    depth, across = _beams(sector)
    dark = np.zeros(image.shape)
    for _ in range(int(rng.integers(1, 4))):
        middle, width, onset = rng.uniform(0.05, 0.95), rng.uniform(0.02, 0.06), rng.uniform(0.1, 0.3)
        away = (across - middle) / (width * (0.8 + 0.4 * depth))
        dark = np.maximum(dark, np.exp(-0.5 * away**2) * (depth / onset).clip(0, 1) * rng.uniform(0.8, 1.1))
    return _amplified(image, -strength * _brightness(image, sector) * dark)


def _blur(image: np.ndarray, sector: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    depth, _ = _beams(sector)
    widest = strength * rng.uniform(0.85, 1.15) * max(image.shape) / CANVAS
    widths = np.linspace(0, widest, 4)
    copies = [image]
    for width in widths[1:]:  # of the sector alone, so that the dark outside does not bleed in
        both = [gaussian_filter(plane, (0.35 * width, width)) for plane in (image * sector, sector.astype(float))]
        copies.append(both[0] / np.maximum(both[1], 1e-3))
    place = (0.35 + 0.65 * depth) * (len(copies) - 1)
    lower = np.minimum(place.astype(int), len(copies) - 2)
    near, far = (np.choose(at, copies) for at in (lower, lower + 1))
    # A wider point spread makes the speckle coarser, not fainter.
    coarse = 0.06 * strength * (_grain(image.shape, rng, 0.6 + 0.35 * strength, 0.6 + strength) - 1)
    return (near + (place - lower) * (far - near)) * (1 + coarse)


def _dynamic_range(image: np.ndarray, sector: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    middle = float(image[sector].mean())
    contrast = (1 + (strength - 1) * rng.uniform(0.85, 1.15)) ** rng.choice([-1.0, 1.0])
    return _amplified(image, (contrast - 1) * (image - middle))


@dataclass(frozen=True)
class Corruption:
    """What is done to an image, given its sector, a generator and a strength; and its strength at each severity."""

    apply: Callable[[np.ndarray, np.ndarray, np.random.Generator, float], np.ndarray]
    strengths: tuple[float, float, float, float, float]
    summary: str


CORRUPTIONS: dict[str, Corruption] = {
    "speckle": Corruption(_speckle, (0.1, 0.2, 0.32, 0.45, 0.6), "multiplied with correlated Rayleigh speckle"),
    "gain-up": Corruption(_gain, (8, 18, 30, 46, 65), "more gain: brighter wherever there is an echo"),
    "gain-down": Corruption(_gain, (-8, -16, -26, -38, -52), "less gain: darker, faint echoes are lost"),
    "tgc": Corruption(_tgc, (10, 20, 34, 50, 70), "time-gain compensation tilted and bent, near or far too bright"),
    "attenuation": Corruption(_attenuation, (18, 36, 58, 86, 120), "darker with depth"),
    "shadow": Corruption(_shadow, (14, 32, 54, 80, 110), "one to three acoustic shadows from the top along the beams"),
    "blur": Corruption(_blur, (0.8, 1.4, 2.1, 3.0, 4.2), "lower frequency: a wider point spread, laterally and deep"),
    "dynamic-range": Corruption(_dynamic_range, (1.12, 1.25, 1.45, 1.75, 2.1), "log compression harder or flatter"),
    "text": Corruption(marks.burnt_in, (1, 2, 4, 6, 9), "burnt-in rulers, labels and calipers"),
}


def named(names: Sequence[str]) -> list[str]:
    """The corruptions that were asked for, each once, in the order of the table; `all` is every one of them."""
    if wrong := [name for name in names if name != ALL and name not in CORRUPTIONS]:
        raise unknown("shift", wrong[0], [*CORRUPTIONS, ALL])
    return [name for name in CORRUPTIONS if ALL in names or name in names]


def corrupt(
    images: np.ndarray, sectors: np.ndarray, names: Sequence[str], what: str, severity: int, *, seed: int | str
) -> np.ndarray:
    """(n, H, W) uint8 images, corrupted inside their sectors, bool (n, H, W). `seed` is the pack's digest."""
    if what not in CORRUPTIONS:
        raise unknown("shift", what, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise UsbenchError(f"severity {severity} of '{what}': a severity is a whole number from 1 to 5.")
    kind = CORRUPTIONS[what]
    out = np.array(images, np.uint8)
    for image, sector, name in zip(out, sectors, names, strict=True):
        if sector.any():
            rng = generator(seed, "shift", what, str(name))
            made = kind.apply(image.astype(float), sector, rng, kind.strengths[severity - 1])
            image[sector] = np.rint(made[sector].clip(0, 255)).astype(np.uint8)
    return out


@functools.cache
def identity(what: str, severity: int) -> dict[str, Any]:
    """What stands in the key of a test: besides the source, what it makes of two small scans on this machine.

    So a result also gets a new key where another version of a library draws, filters or writes otherwise.
    """
    y, x = np.mgrid[:48, :48]
    scans = ((37 * x + 59 * y) % 199 + 28).astype(np.uint8)
    sectors = np.stack([np.ones_like(scans, bool), (np.abs(x - 24) < 6 + y / 2) & (y > 2)])
    made = corrupt(np.stack([scans, scans]), sectors, ("linear", "fan"), what, severity, seed="identity")
    code = Path(__file__).read_bytes() + Path(marks.__file__).read_bytes()
    source, drawn = (hashlib.sha256(data).hexdigest()[:16] for data in (code, made.tobytes()))
    return {"corruption": what, "severity": severity, "source": source, "drawn": drawn}


def reader(asked: dict[str, Any] | None) -> Callable[[Pack, np.ndarray], np.ndarray]:
    """What the network is shown of a pack's rows, by the `shift` of a test's identity: its images, or corrupted."""
    if asked is None:
        return lambda pack, rows: pack.images[rows]
    what, severity = asked["corruption"], asked["severity"]
    if identity(what, severity) != asked:
        raise RunFailed(
            f"'{what}:{severity}' comes out otherwise here than where the run was planned: use the same version of "
            "usbench, numpy, scipy and Pillow, and run the same command again."
        )

    def read(pack: Pack, rows: np.ndarray) -> np.ndarray:
        names = pack.table.name.iloc[rows].tolist()
        return corrupt(pack.images[rows], pack.plane("sector", rows), names, what, severity, seed=pack.digest)

    return read
