"""The breast under the probe: skin, fat with Cooper's ligaments, gland, muscle, chest wall, and the lesion in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter1d

from usbench_phantom.domains import Domain
from usbench_phantom.lesions import Lesion
from usbench_phantom.mimics import add_fat_lobules, add_ribs, add_shadows, add_vessels
from usbench_phantom.simulate import Canvas, Scan, Tissue, step


@dataclass(frozen=True)
class Habitus:
    """What all planes of one patient share: where the layers end (mm) and their levels (dB against fat)."""

    skin: float
    fat: float
    gland: float
    retromammary: float
    muscle: float
    skin_db: float
    gland_db: float
    muscle_db: float
    wall_db: float
    patches_db: float  # uneven echogenicity of fat and gland
    streaks_db: float
    septa: float  # specular amplitude of the ligaments
    lobule_mm: float
    nipple: bool
    ribs: bool

    @classmethod
    def draw(cls, domain: Domain, rng: np.random.Generator) -> Habitus:
        """One woman: from fatty to dense, from thin to thick."""
        skin = rng.uniform(1.0, 2.2)
        fat = skin + rng.uniform(0.05, 0.28) * domain.depth_mm
        gland = fat + rng.uniform(0.18, 0.45) * domain.depth_mm
        retromammary = gland + rng.uniform(0.0, 0.08) * domain.depth_mm
        return cls(
            skin, fat, gland, retromammary,
            muscle=retromammary + rng.uniform(0.14, 0.28) * domain.depth_mm,
            skin_db=rng.uniform(5, 11),
            gland_db=rng.uniform(3, 10),
            muscle_db=rng.uniform(-6, 2),
            wall_db=rng.uniform(-12, -1),
            patches_db=rng.uniform(1.5, 3.5),
            streaks_db=rng.uniform(2, 4.5),
            septa=rng.uniform(1.0, 4.5),
            lobule_mm=rng.uniform(3.0, 6.0),
            nipple=rng.random() < 0.08,
            ribs=rng.random() < 0.15,
        )  # fmt: skip


def plane(scan: Scan, habitus: Habitus, lesion: Lesion | None, rng: np.random.Generator) -> Tissue:
    """One plane through the breast, painted from the skin to the chest wall, with the lesion last."""
    domain, depth = scan.domain, scan.depth[:, None]
    along = scan.x[scan.rows // 2]  # layers follow the face of the probe
    lobules = habitus.lobule_mm * 0.5, habitus.lobule_mm * 0.28
    cells, patches, streaks, fibres, breaks, grain = _fields(scan, (lobules, (2.6, 0.35), (1.5, 0.5)), rng)
    waves = [_undulation(along, amplitude, domain.depth_mm, rng) for amplitude in (0.05, 0.04, 0.03, 0.03)]
    borders = (habitus.fat, habitus.gland, habitus.retromammary, habitus.muscle)
    fat, gland, retro, muscle = (border + wave for border, wave in zip(borders, waves, strict=True))
    streaks, fibres = _follow(streaks, waves[0] / scan.row_mm), _follow(fibres, waves[2] / scan.row_mm)

    in_gland = step(depth - fat - 1.3 * cells, 0.5) * step(gland - depth - 0.8 * patches, 0.5)
    in_muscle = step(depth - retro, 0.3) * step(muscle - depth, 0.3)
    in_wall = step(depth - muscle, 0.4)
    in_skin = step(habitus.skin - depth, 0.15)
    in_fat = np.clip(1 - in_gland - in_muscle - in_wall - in_skin, 0, 1)
    level = in_gland * (habitus.gland_db + habitus.streaks_db * streaks + 1.3 * habitus.patches_db * patches)
    level += in_fat * (habitus.patches_db * (0.6 * patches + 0.6 * streaks) - 1)
    level += in_muscle * (habitus.muscle_db + 3.5 * fibres + 1.5 * patches)
    level += in_wall * (habitus.wall_db - 0.25 * (depth - muscle) + 2 * fibres + 2 * patches)
    level += in_skin * (habitus.skin_db + 1.5 * patches)
    # Septa run along the zero level of a smooth field, and shine where they face the beam.
    septa = np.exp(-((cells / 0.14) ** 2)) * (in_fat + 0.4 * in_gland)
    sheets = np.exp(-((streaks / 0.25) ** 2)) * np.clip(patches + 0.1, 0, 2) * (0.5 * in_fat + in_gland)
    strands = np.exp(-(((fibres - 0.5) / 0.3) ** 2)) * np.clip(0.3 + breaks, 0, 2)
    fascia = in_muscle * (strands + np.clip(fibres - 1.3, 0, 1))
    level += 3.5 * septa + 2.5 * sheets
    mirror = habitus.septa * septa * _facing(cells) + 1.6 * sheets + 2.0 * fascia
    for border, strength in ((habitus.skin, 3.0), (retro, 5.0), (muscle, 5.0)):
        mirror += strength * rng.uniform(0.2, 1) * np.exp(-(((depth - border) / 0.25) ** 2))
    canvas = Canvas(scan, level, mirror, np.zeros_like(level))
    add_fat_lobules(canvas, (habitus.fat, habitus.gland), rng)
    add_vessels(canvas, rng)
    add_shadows(canvas, (habitus.skin, habitus.gland), habitus.nipple, rng)
    if habitus.ribs:
        add_ribs(canvas, along, muscle, rng)
    canvas.mirror *= np.clip(0.7 + 0.6 * breaks + 0.35 * grain, 0.05, 2)  # no interface is equally smooth all along
    if lesion is not None:
        _embed(canvas, lesion, 0.6 * grain + 0.5 * patches + 0.3 * streaks, rng)
    loss = np.cumsum(canvas.loss_rate, axis=0, dtype=np.float32) * np.float32(scan.row_mm)
    # The aperture looks around a small attenuator, so its shadow has no sharp side.
    return Tissue(canvas.level, canvas.mirror, gaussian_filter1d(loss, 0.5 / scan.row_mm, axis=1, truncate=3))


def _fields(scan: Scan, lengths_mm: tuple[tuple[float, float], ...], rng: np.random.Generator) -> np.ndarray:
    """For each (across, down) correlation length two smooth random fields of unit variance, periodic in both ways."""
    # Evenly distributed draws will do: the filters add up so many that the fields are Gaussian all the same.
    draws = rng.random((len(lengths_mm), scan.rows, scan.columns, 2), dtype=np.float32) * 12**0.5 - 3**0.5
    across, down = np.array(lengths_mm, np.float32).T / np.array([[scan.pitch(scan.depth).mean()], [scan.row_mm]])
    tall = np.exp(-2 * (np.pi * fft.fftfreq(scan.rows) * down[:, None]) ** 2)
    wide = np.exp(-2 * (np.pi * fft.fftfreq(scan.columns) * across[:, None]) ** 2)
    tall /= np.sqrt((tall**2).mean(axis=1, keepdims=True))
    wide /= np.sqrt((wide**2).mean(axis=1, keepdims=True))
    spectrum = fft.fft2(draws.view(np.complex64)[..., 0], workers=1, overwrite_x=True)
    spectrum *= tall.astype(np.float32)[:, :, None] * wide.astype(np.float32)[:, None]
    pairs = fft.ifft2(spectrum, workers=1, overwrite_x=True)
    return np.stack([pairs.real, pairs.imag], axis=1).reshape(-1, scan.rows, scan.columns)


def _undulation(along: np.ndarray, amplitude: float, depth_mm: float, rng: np.random.Generator) -> np.ndarray:
    """The course of a layer's border: a slope and a few slow waves."""
    part = along / depth_mm
    course = rng.normal(0, amplitude) * 2 * part
    for waves in rng.uniform((0.4, 1.0, 2.0), (1.0, 2.0, 3.5)).astype(np.float32):
        swing = rng.normal(0, amplitude / (1 + waves) ** 1.3)
        course = course + swing * np.sin(2 * np.pi * (waves * part + rng.uniform()))
    return (course * depth_mm).astype(np.float32)


def _follow(field: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The field with every column moved down by so many rows."""
    index = (np.arange(len(field))[:, None] - np.round(rows).astype(int)) % len(field)
    return np.take_along_axis(field, index, axis=0)


def _facing(field: np.ndarray) -> np.ndarray:
    """How squarely the field's level lines face the beam: the cosine's square."""
    down, across = np.gradient(field)
    return down**2 / (down**2 + across**2 + 1e-6)


def _embed(canvas: Canvas, lesion: Lesion, texture: np.ndarray, rng: np.random.Generator) -> None:
    """Replace the tissue inside the lesion, and give its surroundings what a lesion gives them."""
    scan, depth = canvas.scan, canvas.scan.depth[:, None]
    reach = lesion.reach(scan.x, depth)
    ring = (reach > 1.1) & (reach < 1.7)
    outside = float(canvas.level[ring].mean()) if ring.any() else 0.0
    away = (reach - 1) * lesion.radius  # mm beyond the border, near it
    inside = step(-away, max(lesion.margin_mm, 0.5 * scan.row_mm))
    canvas.level += inside * (outside - lesion.contrast_db + lesion.texture_db * texture - canvas.level)
    canvas.level += lesion.halo_db * np.exp(-(((away - 1.2) / 0.9) ** 2)) * (1 - inside)
    canvas.mirror *= 1 - inside
    below = (depth - lesion.depth) / lesion.half_height
    canvas.mirror += lesion.capsule * np.exp(-((away / 0.25) ** 2)) * np.clip(abs(below), 0, 1) ** 2
    canvas.loss_rate *= 1 - 0.7 * inside
    canvas.loss_rate += lesion.attenuation_db_mm * inside
    sides = np.exp(-(((abs(scan.x - lesion.x) / lesion.half_width - 1) / 0.12) ** 2))
    canvas.loss_rate += lesion.edge_db_mm * sides * (abs(below) < 0.8)
    for _ in range(lesion.calcifications):
        x = lesion.x + rng.normal(0, 0.35) * lesion.half_width
        middle = lesion.depth + rng.normal(0, 0.35) * lesion.half_height
        canvas.mirror += rng.uniform(1.5, 5) * np.exp(-(((scan.x - x) / 0.25) ** 2) - ((depth - middle) / 0.2) ** 2)
