"""Lesions: a star-shaped outline in the plane of the image, what lies within it, and what it does to the beam."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from usbench_phantom.domains import Domain

ANGLES = 1024  # of an outline's table
BENIGN, MALIGNANT, NORMAL = range(3)


@dataclass(frozen=True)
class Lesion:
    """One lesion as one plane cuts it. Its inside is where `reach` is below one."""

    x: float
    depth: float
    half_width: float  # mm, before the tilt
    half_height: float
    tilt: float  # radians
    outline: np.ndarray  # radius by angle, around one
    contrast_db: float  # below the tissue that surrounds it
    margin_mm: float  # blur
    halo_db: float  # echogenic rim of a malignant lesion, beyond its margin
    capsule: float  # specular amplitude of a benign one's border
    texture_db: float
    attenuation_db_mm: float  # against its surroundings: positive shadows, negative enhances
    edge_db_mm: float  # refraction at the sides of a smooth one
    calcifications: int

    def reach(self, x: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """The distance from the centre as a fraction of the outline's distance in that direction."""
        x, depth = x - np.float32(self.x), depth - np.float32(self.depth)
        cos, sin = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        across = (cos * x + sin * depth) / np.float32(self.half_width)
        down = (cos * depth - sin * x) / np.float32(self.half_height)
        turn = np.arctan2(down, across) * np.float32(ANGLES / (2 * np.pi))
        return np.hypot(across, down) / self.outline[turn.astype(np.int32) % ANGLES]

    @property
    def radius(self) -> float:
        """The mean half-diameter in mm."""
        return float(np.sqrt(self.half_width * self.half_height))

    def seen_again(self, domain: Domain, rng: np.random.Generator) -> Lesion:
        """The same lesion in another plane: elsewhere in the image, a little other in size, turn and outline."""
        stretch = rng.uniform(0.85, 1.12, 2)
        shift = rng.normal(0, 0.06 * domain.depth_mm, 2)
        depth = float(np.clip(self.depth + 0.4 * shift[1], 0.2 * domain.depth_mm, 0.62 * domain.depth_mm))
        side = _room(domain, depth, self.radius)
        roll = int(rng.normal(0, ANGLES / 16))
        return replace(
            self,
            x=float(np.clip(self.x + shift[0], -side, side)),
            depth=depth,
            half_width=self.half_width * stretch[0],
            half_height=self.half_height * stretch[1],
            tilt=self.tilt + rng.normal(0, 0.12),
            outline=np.roll(self.outline, roll),
        )


def draw_lesion(domain: Domain, label: int, rng: np.random.Generator) -> Lesion:
    """A lesion with the features that its class is known by, none of which is certain."""
    longest = float(np.exp(rng.uniform(*np.log(domain.lesion_mm))))
    subtle = 0.45 if rng.random() < domain.subtle else 1.0
    depth = max(rng.uniform(0.22, 0.56) * domain.depth_mm, longest / 3)
    x = rng.uniform(-1, 1) * _room(domain, depth, longest / 2)
    if label == MALIGNANT:
        aspect = rng.uniform(0.65, 1.35)  # height over width: often taller than wide
        half_width, half_height = longest / 2 / max(1, aspect), longest / 2 / max(1, 1 / aspect)
        return Lesion(
            x, depth, half_width, half_height, rng.normal(0, 0.35), _irregular(domain, rng),
            contrast_db=subtle * rng.uniform(*domain.malignant_contrast_db),
            margin_mm=rng.uniform(*domain.margin_mm),
            halo_db=rng.uniform(0, 5),
            capsule=0.0,
            texture_db=rng.uniform(1.0, 3.5),
            attenuation_db_mm=rng.uniform(*domain.shadow_db_mm),
            edge_db_mm=0.0,
            calcifications=int(rng.integers(3, 10)) if rng.random() < 0.3 else 0,
        )  # fmt: skip
    cyst = rng.random() < 0.25
    aspect = rng.uniform(0.45, 0.85)
    contrast = rng.uniform(22, 32) if cyst else subtle * rng.uniform(*domain.benign_contrast_db)
    return Lesion(
        x, depth, longest / 2, longest / 2 * aspect, rng.normal(0, 0.18), _smooth(rng),
        contrast_db=contrast,
        margin_mm=rng.uniform(0.1, 0.5),
        halo_db=0.0,
        capsule=rng.uniform(0.5, 3) if rng.random() < 0.4 else 0.0,
        texture_db=rng.uniform(0.4, 2.2),
        attenuation_db_mm=-rng.uniform(*domain.enhancement_db_mm) - 0.3 * cyst,
        edge_db_mm=rng.uniform(0, 1.0),
        calcifications=0,
    )  # fmt: skip


def _room(domain: Domain, depth: float, radius: float) -> float:
    """How far from the middle a lesion may lie, so that the image's side cuts little of it."""
    half = (domain.radius_mm + depth) * np.sin(domain.half_angle) if domain.radius_mm > 0 else domain.width_mm / 2
    return float(max(half - radius - 0.08 * domain.depth_mm, 0.2 * half))


def _smooth(rng: np.random.Generator) -> np.ndarray:
    """An oval, or with a few gentle lobes."""
    angle = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    lobes = rng.uniform(0.02, 0.08) + (0.08 if rng.random() < 0.3 else 0.0)
    radius = 1 + sum(lobes / k * rng.normal() * np.cos(k * angle + rng.uniform(0, 6.28)) for k in range(2, 7))
    return np.clip(radius, 0.75, 1.3).astype(np.float32)


def _irregular(domain: Domain, rng: np.random.Generator) -> np.ndarray:
    """Irregular, in part angular, and often with spicules."""
    angle = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    rough = domain.spiculation * rng.uniform(0.12, 0.26)
    waves = sum(rough / k**0.6 * rng.normal() * np.cos(k * angle + rng.uniform(0, 6.28)) for k in range(2, 10))
    radius = np.exp(waves)
    if rng.random() < 0.6:
        for _ in range(rng.integers(4, 12)):
            away = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * np.pi))))
            radius += domain.spiculation * rng.uniform(0.1, 0.4) * np.exp(-abs(away) / rng.uniform(0.06, 0.16))
    return np.clip(radius / radius.mean(), 0.45, 1.9).astype(np.float32)
