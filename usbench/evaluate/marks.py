"""What a scanner burns into its images: rulers, labels and calipers."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy.ndimage import minimum_filter

CANVAS = 256  # the size at which marks are drawn; strengths in pixels are meant for it
INK = 255
WORDS = ("RT BREAST", "LT 2:00 3 FN", "TRANS", "LONG", "D1 12.4 mm", "D2 8.1 mm", "10 MHz", "Gn 54")


def burnt_in(image: np.ndarray, sector: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """An image with so many marks in its sector."""
    height, width = (max(1, round(side * CANVAS / max(image.shape))) for side in image.shape)
    room = np.array(Image.fromarray(sector).resize((width, height), Image.Resampling.NEAREST))
    layer = Image.new("L", (width, height))
    pen = ImageDraw.Draw(layer)
    for draw in MARKS[: int(strength)]:
        draw(pen, room, rng)
    halo = layer.filter(ImageFilter.MaxFilter(3))  # scanners set off their marks from bright tissue
    thin = max(1.0, CANVAS / max(image.shape))  # a line of less than a pixel would fade
    ink, shade = (
        np.asarray(each.resize(image.shape[::-1], Image.Resampling.BILINEAR), float) * thin for each in (layer, halo)
    )
    return np.maximum(image * (1 - 0.7 * np.minimum(shade / INK, 1)), np.minimum(ink, INK))


def _ruler(pen: ImageDraw.ImageDraw, room: np.ndarray, rng: np.random.Generator) -> None:
    """Ticks of depth along one flank of the sector."""
    right = bool(rng.integers(2))
    ticks = int(rng.integers(12, 24))
    rows = np.flatnonzero(room.any(axis=1))
    for tick, y in enumerate(np.linspace(rows[0], rows[-1], ticks).astype(int) if len(rows) else ()):
        columns = np.flatnonzero(room[y])
        if len(columns):
            x, length = (int(columns[-1]), -1) if right else (int(columns[0]), 1)
            pen.line((x + 2 * length, y, x + length * (7 if tick % 5 == 0 else 4), y), INK)


def _label(pen: ImageDraw.ImageDraw, room: np.ndarray, rng: np.random.Generator) -> None:
    """Some words where they fit into the sector, nearest to a place on its margin."""
    words = str(rng.choice(WORDS))
    font = ImageFont.load_default(float(rng.integers(11, 16)))
    left, top, right, bottom = (int(x) for x in pen.textbbox((0, 0), words, font=font))
    fits = np.argwhere(minimum_filter(room, (bottom - top + 3, right - left + 3), mode="constant"))
    where = rng.uniform(0, 1, 2)
    where[rng.integers(2)] = rng.integers(2)
    if len(fits):
        y, x = fits[np.square(fits - where * room.shape).sum(axis=1).argmin()]
        corner = int(x) - (right - left) // 2, int(y) - (bottom - top) // 2
        pen.text((corner[0] - left, corner[1] - top), words, INK, font=font)
        room[corner[1] : corner[1] + bottom - top + 4, corner[0] : corner[0] + right - left + 4] = False  # taken


def _calipers(pen: ImageDraw.ImageDraw, room: np.ndarray, rng: np.random.Generator) -> None:
    """Two crosses and a dotted line between them."""
    fits = np.argwhere(minimum_filter(room, 9, mode="constant"))
    start, angle, length = rng.uniform(0.2, 0.8, 2) * room.shape, rng.uniform(0, np.pi), rng.uniform(20, 80)
    ends = start, start + length * np.array([np.sin(angle), np.cos(angle)])
    if len(fits):
        first, last = (fits[np.square(fits - end).sum(axis=1).argmin()] for end in ends)
        for y, x in ((int(y), int(x)) for y, x in (first, last)):
            pen.line((x - 3, y, x + 3, y), INK)
            pen.line((x, y - 3, x, y + 3), INK)
        for y, x in np.linspace(first, last, max(2, int(length / 4)))[1:-1]:
            pen.point((int(x), int(y)), INK)


MARKS = (_ruler, _label, _calipers, _ruler, _label, _calipers, _label, _calipers, _label)
