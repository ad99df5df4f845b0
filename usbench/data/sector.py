"""The insonified region of an image: without black borders, beside a fan, and without a margin of text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy  # its parts are loaded when they are first used: most commands find no sector
from PIL import Image as PILImage
from PIL import ImageDraw

from usbench.items import Item

WORKING = 128  # pixels of the longer side that the sector is looked for at
DARK = 2.0  # mean grey above the background's at which a neighbourhood shows an echo
TEXT_WIDTH = 5  # working pixels: what is thinner than this is writing or a ruler
PART = 0.02  # of the largest connected echo: smaller ones are captions and grey bars
STRAIGHT = 0.9  # of the widest row: how wide the first rows of a linear array are, and a level lower end
NOTCH = 0.02  # of the height: how deep the probe's arc must cut into the top to be one
FULL = 0.985  # of the image: a sector larger than this is all of it


def with_sector(item: Item) -> Item:
    """The item, with its sector found where it brings none."""
    return item if item.sector is not None else replace(item, sector=find_sector(item.image))


def find_sector(image: np.ndarray) -> np.ndarray:
    """(H, W) bool: the convex hull of all echoes, less the arc that a curved probe cuts out of the top.

    Where in doubt it is too large: a shadow or an anechoic cyst lies inside, and all of an image without echoes.
    """
    small = _shrink(image)
    echoes = _echoes(small)
    if not echoes.any():
        return np.ones(image.shape, np.bool_)
    hull = _hull(echoes)
    hull = _straight(hull) if _is_straight(hull) else hull & ~_arc(echoes, hull)
    if hull.mean() > FULL:
        return np.ones(image.shape, np.bool_)
    grown = PILImage.fromarray(hull.astype(np.uint8) * 255).resize(image.shape[::-1], PILImage.Resampling.BILINEAR)
    return np.asarray(grown) >= 128


def _shrink(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    factor = WORKING / max(height, width)
    shape = max(8, round(width * factor)), max(8, round(height * factor))
    return np.asarray(PILImage.fromarray(image).resize(shape, PILImage.Resampling.BOX), np.float32)


def _echoes(small: np.ndarray) -> np.ndarray:
    """Where there is an echo, without writing: the large connected parts of what is brighter than the background."""
    edge = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    background = min(float(np.percentile(edge, 5)), 16.0)
    bright = scipy.ndimage.uniform_filter(small, 3) > background + DARK
    bright = scipy.ndimage.binary_erosion(bright, np.ones((3, 3)), border_value=1)  # what the filter made it grow
    opened = scipy.ndimage.binary_opening(np.pad(bright, TEXT_WIDTH, mode="edge"), np.ones((TEXT_WIDTH, TEXT_WIDTH)))
    opened = opened[TEXT_WIDTH:-TEXT_WIDTH, TEXT_WIDTH:-TEXT_WIDTH]
    parts, count = scipy.ndimage.label(opened)
    if count < 2:
        return opened
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= PART * sizes.max())[parts]


def _hull(region: np.ndarray) -> np.ndarray:
    """The filled convex hull of a region."""
    rows = np.flatnonzero(region.any(axis=1))
    first, last = region.argmax(axis=1)[rows], region.shape[1] - 1 - region[:, ::-1].argmax(axis=1)[rows]
    points = np.concatenate([np.stack([first, rows], 1), np.stack([last, rows], 1)])
    try:
        corners = points[scipy.spatial.ConvexHull(points).vertices]
    except scipy.spatial.QhullError:
        return region
    canvas = PILImage.new("1", region.shape[::-1])
    ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in corners], fill=1)
    return np.asarray(canvas)


def _is_straight(hull: np.ndarray) -> bool:
    """Whether a linear array made it: as wide at the top as anywhere."""
    widths = hull.sum(axis=1)
    rows = np.flatnonzero(widths)
    return bool(widths[rows[0] : rows[0] + max(2, len(hull) // 10)].max() >= STRAIGHT * widths.max())


def _straight(hull: np.ndarray) -> np.ndarray:
    """All below the array: down to the last row where the echoes fade out, to their end where that is a level line."""
    widths = hull.sum(axis=1)
    rows, columns = np.flatnonzero(widths), np.flatnonzero(hull.any(axis=0))
    level = widths[rows[-1] - 1] >= STRAIGHT * widths.max()
    box = np.zeros_like(hull)
    box[rows[0] : rows[-1] + 1 if level else None, columns[0] : columns[-1] + 1] = True
    return box


def _arc(echoes: np.ndarray, hull: np.ndarray) -> np.ndarray:
    """What lies above a curved probe's face: a parabola, sagging in the middle, under the hull's top."""
    nothing = np.zeros_like(hull)
    columns = np.flatnonzero(echoes.any(axis=0))
    if len(columns) < 16:
        return nothing
    top = echoes.argmax(axis=0)[columns].astype(float)
    lid = hull.argmax(axis=0)[columns].astype(float)
    gap = top - lid
    middle = columns[0] + (columns[-1] - columns[0]) / 2
    face = lid <= lid.min() + 0.02 * len(echoes) + 1  # the columns under the hull's flat top
    if face.sum() < 8:
        return nothing
    x = (columns[face] - columns[face].mean()) / (np.ptp(columns[face]) / 2 + 1e-9)
    sag = float(np.median(gap[face][np.abs(x) < 0.3])) if (np.abs(x) < 0.3).any() else 0.0
    ends = float(np.median(gap[face][np.abs(x) > 0.8]))
    if sag < NOTCH * len(echoes) or ends > 0.5 * sag or abs(columns[face].mean() - middle) > 0.2 * len(columns):
        return nothing
    depth = np.full(hull.shape[1], -1.0)
    depth[columns[face]] = lid[face] + np.minimum(sag * (1 - x**2), gap[face])
    return np.arange(len(hull))[:, None] < depth[None, :]
