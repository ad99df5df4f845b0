"""Bytes of an image file to grey values or a mask, whatever its colour mode."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image as PILImage
from PIL import ImageOps
from scipy import ndimage

from usbench.data.release import Undecodable

MAX_PIXELS = 64_000_000
ORIENTATION = 0x0112  # of EXIF
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
LOW, HIGH = 0.15, 0.85  # of a mask's brightest value: what lies between is grey
LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
GREY_SHARE = 0.001  # of a mask's pixels that may be grey away from every edge


def read_image(data: bytes) -> PILImage.Image:
    """The decoded image, its first frame; a damaged or gigantic one is refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = PILImage.open(io.BytesIO(data))
            if image.width * image.height > MAX_PIXELS:
                raise Undecodable(f"it has {image.width} × {image.height} pixels")
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, PILImage.DecompressionBombError):
        raise Undecodable("it does not decode as an image") from None
    return image


def turned_upright(image: PILImage.Image) -> PILImage.Image | None:
    """The image as its EXIF says it is to be seen; None where that is as it is."""
    try:
        return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else None
    except Exception:  # noqa: BLE001 - damaged EXIF raises whatever it likes, and says nothing about the pixels
        return None


def _upright(data: bytes) -> PILImage.Image:
    image = read_image(data)
    return turned_upright(image) or image


def read_grey(data: bytes) -> np.ndarray:
    """(H, W) uint8, from any colour mode and depth, upright; what is transparent is black."""
    return grey_of(_upright(data))


def grey_of(image: PILImage.Image) -> np.ndarray:
    """(H, W) uint8 of a decoded image; floating-point values, whose range nobody knows, are refused."""
    if image.mode in DEEP:
        deep = np.asarray(image).astype(np.int64).clip(0)
        depth = next((bits for bits in (8, 10, 12, 14, 16, 24) if deep.max() < 2**bits), 32)
        return (deep >> (depth - 8)).astype(np.uint8)
    if image.mode == "F":
        raise Undecodable("it holds floating-point values")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        grey = np.asarray(rgba.convert("RGB").convert("L"), np.uint16)
        return ((grey * np.asarray(rgba)[..., 3] + 127) // 255).astype(np.uint8)
    return np.array(image if image.mode == "L" else image.convert("RGB").convert("L"))


def read_colour(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8, upright; what is transparent is black."""
    rgba = np.asarray(_upright(data).convert("RGBA"), np.uint16)
    return ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)


def read_mask(data: bytes) -> np.ndarray:
    """(H, W) bool: what is brighter than half of the brightest value; a mask with grey areas is refused."""
    image = _upright(data)
    grey = np.asarray(image).astype(np.float32) if image.mode in DEEP else grey_of(image).astype(np.float32)
    top = float(grey.max())
    if top <= 0:
        return np.zeros(grey.shape, np.bool_)
    grey = grey / top
    between = (grey > LOW) & (grey < HIGH)
    if between.any():  # fine beside an edge, where antialiasing and JPEG put them
        lowest, highest = ndimage.minimum_filter(grey, 5), ndimage.maximum_filter(grey, 5)
        levels = int((between & ((lowest > LOW) | (highest < HIGH))).sum())
        if levels > GREY_SHARE * grey.size:
            raise Undecodable(f"it is a mask with grey levels ({100 * levels / grey.size:.1f} % of it is half-bright)")
    if image.format in LOSSLESS:  # where an area is no noise
        faint = (grey > 0) & (grey <= LOW)
        area = int(ndimage.binary_erosion(faint, iterations=2).sum()) if faint.any() else 0
        if area > GREY_SHARE * grey.size:
            raise Undecodable(f"it is a mask with a second, faint level ({100 * area / grey.size:.1f} % of it)")
    return grey > 0.5


def fill_outline(outline: np.ndarray) -> np.ndarray:
    """The region inside a closed outline; of an open one (cut off at the border), of the ellipse through it."""
    filled = ndimage.binary_fill_holes(outline)
    if filled.sum() > 2 * outline.sum():
        return filled
    ellipse = _ellipse(np.argwhere(outline), outline.shape)
    return filled if ellipse is None else ellipse | outline


def _ellipse(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The filled least-squares ellipse (Halíř & Flusser, WSCG 1998) through (row, column) points, or nothing."""
    if len(np.unique(points, axis=0)) < 6:
        return None
    middle, spread = points.mean(axis=0), points.std() + 1e-9

    def terms(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, x = ((at - middle) / spread).T
        return np.stack([x * x, x * y, y * y], 1), np.stack([x, y, np.ones_like(x)], 1)

    square, linear = terms(points)
    try:
        back = -np.linalg.solve(linear.T @ linear, linear.T @ square)
        scatter = square.T @ square + square.T @ linear @ back
        vectors = np.linalg.eig(np.array([[0, 0, 0.5], [0, -1, 0], [0.5, 0, 0]]) @ scatter)[1].real
    except np.linalg.LinAlgError:
        return None
    valid = 4 * vectors[0] * vectors[2] - vectors[1] ** 2 > 0
    if not valid.any():
        return None
    conic = vectors[:, valid][:, 0]
    square, linear = terms(np.argwhere(np.ones(shape, np.bool_)).astype(float))
    values = (square @ conic + linear @ (back @ conic)).reshape(shape)
    return values * (conic[0] + conic[2]) <= 0
