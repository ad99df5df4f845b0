"""Which images show the same picture, though rescaled, mirrored, brightened, cropped a little or compressed anew.

Images are cut to their sector and kept as small thumbnails. Nearest neighbours of a coarse, locally normalised
descriptor are candidates; each is then registered (scale and shift along both axes, coarse to fine) and judged by the
texture of the blocks that the two have in common. The texture of two different scans does not correlate, however alike
their layers, and one block counts as much as another, so that the bright edge of a fan or a burnt-in word decides
nothing. Needs numpy and scipy, not torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy  # its parts are loaded when they are first used
from PIL import Image as PILImage

REVISION = 1  # raise it when thumbnails or verdicts change
SIDE = 64  # of a thumbnail
LEVELS = ((16, 8, 0.6), (32, 5, 0.6), (64, 4, 0.55))  # side, steps of registration, correlation to go on
NEIGHBOURS = 8  # candidates an image and orientation
LEAST_ALIKE = 0.45  # cosine of two descriptors below which they are no candidates
EVEN = (3.0, 8.0)  # pixels over which brightness and contrast are evened out; grey levels that count as contrast
FINE = (2.0, 2.0)  # the same for the texture
TILE, LEAST_TEXTURE, LEAST_TILES = 8, 0.05, 4  # side of a block; what a block, and an image, must have to be judged
SAME = 0.6  # median correlation of the blocks of one picture
MOST_SCALE, MOST_SHIFT = 1.18, 0.1  # how far apart two duplicates may lie; a shift is a share of the side
BLOCK = 2**23  # numbers in memory at once
TURNS = ((1, 1), (1, -1), (-1, 1), (-1, -1))  # as it is, left-right, up-down, both


def thumbnail(image: np.ndarray, sector: np.ndarray) -> np.ndarray:
    """The sector's bounding box as a small square."""
    rows, columns = np.flatnonzero(sector.any(axis=1)), np.flatnonzero(sector.any(axis=0))
    if len(rows):
        image = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.asarray(PILImage.fromarray(image).resize((SIDE, SIDE), PILImage.Resampling.BILINEAR))


def thumbnails(images: Any, sectors: Any, out: np.ndarray) -> np.ndarray:
    """Fill `out` (N, SIDE, SIDE) with the thumbnails of planes that can be sliced: arrays or HDF5 data sets."""
    for start in range(0, len(out), 64):
        rows = slice(start, min(start + 64, len(out)))
        out[rows] = [thumbnail(image, sector) for image, sector in zip(images[rows], sectors[rows], strict=True)]
    return out


def near_duplicates(
    first: np.ndarray, second: np.ndarray | None = None, videos: Sequence[str] | None = None
) -> np.ndarray:
    """(n, 2) the near-duplicates among thumbnails: pairs i < j within one set, or (of the first, of the second).

    Frames of one named video are alike by nature: within one set they are passed over."""
    inside = second is None
    video = None
    if videos is not None and any(videos):
        numbers = {name: number for number, name in enumerate(dict.fromkeys(videos))}
        video = np.array([numbers[name] if name else -1 for name in videos])
    other = first if second is None else second
    mine, theirs = _descriptors(first), _descriptors(other)
    found = [np.empty((0, 2), np.int64)]
    for turn in TURNS:
        pairs = list(_neighbours(mine, _turned(theirs, turn), inside=inside, video=video))
        if not inside:
            pairs += [back[:, ::-1] for back in _neighbours(theirs, _turned(mine, turn))]
        candidates = np.concatenate(pairs) if pairs else found[0]
        candidates = np.unique(np.sort(candidates, axis=1) if inside else candidates, axis=0)
        for part in np.array_split(candidates, max(1, len(candidates) * SIDE**2 * 8 // BLOCK)):
            same = alike(np.asarray(first[part[:, 0]]), _turned(np.asarray(other[part[:, 1]]), turn))
            found.append(part[same])
    return np.unique(np.concatenate(found), axis=0)


def alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each pair of thumbnails, whether they show the same picture but for a little scale and shift."""
    left = np.arange(len(first))
    fit = np.tile(np.array([1, 0, 1, 0], np.float32), (len(first), 1))  # scale and shift down, scale and shift across
    for side, steps, least in LEVELS:
        still, moving = (_evened(_shrunk(planes[left], side), *EVEN) for planes in (first, second))
        fit, score = _register(still, moving, fit, steps)
        fit, left = fit[score >= least], left[score >= least]
    moved, seen = _moved(second[left].astype(np.float32), fit)
    same = np.zeros(len(first), np.bool_)
    same[left] = _texture(first[left].astype(np.float32), moved, seen) >= SAME
    return same


def _texture(first: np.ndarray, second: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The median correlation of the blocks that have texture in either image; 0 where too few have."""
    first, second, inside = (_blocks(planes) for planes in (_evened(first, *FINE), _evened(second, *FINE), seen))
    first, second = (blocks - blocks.mean(axis=2, keepdims=True) for blocks in (first, second))
    one, two = ((blocks**2).mean(axis=2) for blocks in (first, second))
    correlation = (first * second).mean(axis=2) / np.sqrt(one * two + 1e-9)
    judged = inside.all(axis=2) & (np.maximum(one, two) > LEAST_TEXTURE)
    ordered = np.sort(np.where(judged, correlation, np.inf), axis=1)
    count = judged.sum(axis=1)
    middle = np.take_along_axis(ordered, np.maximum(count - 1, 0)[:, None] // 2, axis=1)[:, 0]
    return np.where(count >= LEAST_TILES, middle, 0)


def _blocks(planes: np.ndarray) -> np.ndarray:
    """(n, SIDE, SIDE) → (n, blocks, pixels)."""
    along = SIDE // TILE
    return planes.reshape(-1, along, TILE, along, TILE).transpose(0, 1, 3, 2, 4).reshape(-1, along**2, TILE**2)


def _turned(planes: np.ndarray, turn: tuple[int, int]) -> np.ndarray:
    return planes[:, :: turn[0], :: turn[1]]


def _shrunk(planes: np.ndarray, side: int) -> np.ndarray:
    by = SIDE // side
    return planes.reshape(len(planes), side, by, side, by).mean(axis=(2, 4), dtype=np.float32)


def _evened(planes: np.ndarray, reach: float, floor: float) -> np.ndarray:
    """Without the local mean and contrast, so that gain and depth compensation do not matter."""
    planes = planes - scipy.ndimage.gaussian_filter(planes, (0, reach, reach), mode="nearest")
    spread = np.sqrt(scipy.ndimage.gaussian_filter(planes * planes, (0, reach, reach), mode="nearest"))
    return planes / (spread + floor)


def _descriptors(thumbs: np.ndarray) -> np.ndarray:
    """(N, 16, 16) of unit length; all zero where there is nothing to see."""
    side = LEVELS[0][0]
    out = np.empty((len(thumbs), side, side), np.float32)
    for start in range(0, len(thumbs), 1024):
        planes = _evened(_shrunk(thumbs[start : start + 1024], side), *EVEN)
        planes -= planes.mean(axis=(1, 2), keepdims=True)
        out[start : start + 1024] = planes / (np.sqrt((planes**2).sum(axis=(1, 2), keepdims=True)) + 1e-6)
    return out


def _neighbours(
    mine: np.ndarray, theirs: np.ndarray, *, inside: bool = False, video: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Of each descriptor the nearest others, as pairs, by blocks of one matrix product."""
    flat, across = mine.reshape(len(mine), -1), theirs.reshape(len(theirs), -1).T
    most = min(NEIGHBOURS, len(theirs))
    step = max(1, BLOCK // max(1, len(theirs)))
    for start in range(0, len(flat), step):
        cosine = flat[start : start + step] @ across
        rows = np.arange(start, start + len(cosine))
        if inside:
            cosine[rows - start, rows] = -1
            if video is not None:
                cosine[(video[rows, None] == video) & (video[rows, None] >= 0)] = -1
        near = np.argpartition(cosine, -most, axis=1)[:, -most:]
        row, column = np.nonzero(np.take_along_axis(cosine, near, axis=1) >= LEAST_ALIKE)
        yield np.stack([rows[row], near[row, column]], axis=1)


def _moved(planes: np.ndarray, fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The planes resampled linearly by scale and shift along both axes, and which pixels come from inside."""
    side = planes.shape[-1]
    middle = (side - 1) / 2
    places = np.arange(side, dtype=np.float32)
    at = fit[:, 0::2, None] * (places - middle) + fit[:, 1::2, None] * side + middle
    down, over = np.maximum(0, 1 - np.abs(places - at[..., None])).swapaxes(0, 1)
    inside = (at >= 0) & (at <= side - 1)
    return down @ planes @ over.swapaxes(1, 2), inside[:, 0, :, None] & inside[:, 1, None, :]


def _register(still: np.ndarray, moving: np.ndarray, fit: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The scale and shift of each pair after some Gauss-Newton steps, and the correlation where they overlap."""
    side = still.shape[-1]
    places = (np.arange(side, dtype=np.float32) - (side - 1) / 2) / side
    most, least = (
        np.array([s, t] * 2, np.float32) for s, t in ((MOST_SCALE, MOST_SHIFT), (1 / MOST_SCALE, -MOST_SHIFT))
    )
    for step in range(steps + 1):
        moved, inside = _moved(moving, fit)
        seen = inside.astype(np.float32)
        if step == steps:
            break
        slope_down = np.gradient(moved, axis=1) * seen * (side / fit[:, 0, None, None])
        slope_over = np.gradient(moved, axis=2) * seen * (side / fit[:, 2, None, None])
        slopes = np.stack([slope_down * places[:, None], slope_down, slope_over * places, slope_over], axis=1)
        slopes = slopes.reshape(len(fit), 4, side**2)
        square = slopes @ slopes.transpose(0, 2, 1)
        size = np.trace(square, axis1=1, axis2=2)[:, None, None]
        change = np.linalg.solve(
            square + np.eye(4, dtype=np.float32) * (1e-4 * size + 1e-6),
            slopes @ ((still - moved) * seen).reshape(len(fit), side**2, 1),
        )
        fit = np.clip(fit + change[..., 0], least, most)
    return fit, _correlation(still, moved, seen)


def _correlation(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    total = weight.sum(axis=(1, 2), keepdims=True) + 1e-6
    first, second = (
        (planes - (planes * weight).sum(axis=(1, 2), keepdims=True) / total) * weight for planes in (first, second)
    )
    norm = np.sqrt((first**2).sum(axis=(1, 2)) * (second**2).sum(axis=(1, 2)))
    return (first * second).sum(axis=(1, 2)) / (norm + 1e-6)
