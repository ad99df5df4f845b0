"""What miniature releases are made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def grey(seed: int = 0, shape: tuple[int, int] = (40, 48)) -> np.ndarray:
    """A bright noisy image without a single dark pixel."""
    return np.random.default_rng(seed).integers(60, 220, shape).astype(np.uint8)


def box(top: int, left: int, height: int = 8, width: int = 10, shape: tuple[int, int] = (40, 48)) -> np.ndarray:
    """A mask with one rectangle."""
    mask = np.zeros(shape, np.bool_)
    mask[top : top + height, left : left + width] = True
    return mask


def save(path: Path, pixels: np.ndarray, mode: str = "") -> Path:
    """Write an image file, converted to a colour mode where one is named; a bool array becomes 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels)
    (image.convert(mode) if mode else image).save(path)
    return path
