"""Bytes of an image file to grey values or a mask, whatever its colour mode."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from usbench.data.release import Undecodable

MAX_PIXELS = 64_000_000
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
LOW, HIGH = 0.15, 0.85  # of a mask's brightest value: what lies between is grey
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


def read_grey(data: bytes) -> np.ndarray:
    """(H, W) uint8, from any colour mode and depth; what is transparent is black."""
    image = read_image(data)
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
    """(H, W, 3) uint8; what is transparent is black."""
    rgba = np.asarray(read_image(data).convert("RGBA"), np.uint16)
    return ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)


def read_mask(data: bytes) -> np.ndarray:
    """(H, W) bool: what is brighter than half of the brightest value; a mask with grey areas is refused."""
    image = read_image(data)
    grey = np.asarray(image).astype(np.float32) if image.mode in DEEP else read_grey(data).astype(np.float32)
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
    return grey > 0.5


def fill_outline(outline: np.ndarray) -> np.ndarray:
    """The region inside a closed outline; of an open one (cut off at the border), its convex hull."""
    filled = ndimage.binary_fill_holes(outline)
    if not outline.any() or filled.sum() > 2 * outline.sum():
        return filled
    points = np.argwhere(outline)
    try:
        corners = points[ConvexHull(points).vertices]
    except QhullError:
        return filled
    canvas = PILImage.new("1", (outline.shape[1], outline.shape[0]))
    ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for y, x in corners], fill=1)
    return np.asarray(canvas) | outline
