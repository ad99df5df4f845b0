"""Masks on the grid of tokens: drawn on the host, fitted to the sector on the device without waiting for it.

A token is inside when at least half of it is insonified. What lies outside is neither restored nor counted, and a
ratio is one of the inside: an image whose sector is narrow is masked no more and no less than another.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def inside(sector: Tensor, patch: int) -> Tensor:
    """(N, 1, H, W) sectors → (N, L) bool: which tokens are inside."""
    return functional.avg_pool2d(sector.float(), patch).flatten(1) >= 0.5


def random_scores(rng: np.random.Generator, count: int, side: int, device: torch.device, block: int = 1) -> Tensor:
    """(count, side²) numbers in [0, 1), one for each square of `block` × `block` tokens."""
    coarse = rng.random((count, -(-side // block), -(-side // block)), dtype=np.float32)
    fine = coarse.repeat(block, 1).repeat(block, 2)[:, :side, :side]
    return torch.from_numpy(fine.reshape(count, -1).copy()).to(device, non_blocking=True)


def ranks(scores: Tensor, within: Tensor) -> Tensor:
    """The place of each token by its score: those within come first, the rest after them."""
    return (scores + 2.0 * ~within).argsort(dim=1, stable=True).argsort(dim=1)


def share(scores: Tensor, within: Tensor, ratio: float) -> Tensor:
    """(N, L) bool: of each image's tokens within, the share `ratio` with the lowest scores."""
    many = (ratio * within.sum(1, keepdim=True)).round()
    return (ranks(scores, within) < many) & within


def keep(scores: Tensor, within: Tensor, ratio: float) -> Tensor:
    """(N, K) places, in order: the share `ratio` of the tokens within and of those without, equally many everywhere."""
    count = scores.shape[1]
    total = max(1, round(ratio * count))
    many = within.sum(1, keepdim=True)
    first = (ratio * many).round().clamp(max=total)
    first = first.maximum(total - (count - many))  # where too few lie outside, one more is kept inside
    place = ranks(scores, within)
    kept = torch.where(within, place < first, place - many < total - first)
    return (~kept).int().argsort(dim=1, stable=True)[:, :total]


def at(places: Tensor, count: int) -> Tensor:
    """(N, K) places → (N, count) bool."""
    return torch.zeros(len(places), count, dtype=torch.bool, device=places.device).scatter_(1, places, True)


def blockwise(rng: np.random.Generator, ratio: float, side: int) -> np.ndarray:
    """(side, side) bool: rectangles of random shape until the share `ratio` is covered, as in BEiT."""
    wanted = max(1, round(ratio * side * side))
    mask = np.zeros((side, side), np.bool_)
    while (left := wanted - int(mask.sum())) > 0:
        area, aspect = rng.uniform(1, max(1, left)), np.exp(rng.uniform(np.log(0.3), -np.log(0.3)))
        height = int(np.clip(round(np.sqrt(area * aspect)), 1, side))
        width = int(np.clip(round(np.sqrt(area / aspect)), 1, side))
        top, start = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
        found = mask.copy()
        found[top : top + height, start : start + width] = True
        if found.sum() <= wanted:
            mask = found
    return mask


def half_masked(rng: np.random.Generator, count: int, side: int, ratios: tuple[float, float]) -> np.ndarray:
    """(count, side²) bool: half of the views are masked, by ratios evenly spread over the range, as in DINOv2."""
    masks = np.zeros((count, side, side), np.bool_)
    chosen = rng.permutation(count)[: max(1, count // 2)]
    for view, ratio in zip(chosen, np.linspace(*ratios, len(chosen)), strict=True):
        masks[view] = blockwise(rng, float(ratio), side)
    return masks.reshape(count, -1)


def _rectangle(rng: np.random.Generator, side: int, scale: tuple[float, float], aspect: tuple[float, float]) -> tuple:
    """Height and width of a block whose area is a share `scale` of the grid."""
    area, shape = rng.uniform(*scale) * side * side, rng.uniform(*aspect)
    height, width = round(np.sqrt(area * shape)), round(np.sqrt(area / shape))
    return int(np.clip(height, 1, side)), int(np.clip(width, 1, side))


def _cover(rng: np.random.Generator, shape: tuple[int, ...], side: int, height: int, width: int) -> np.ndarray:
    """(*shape, side, side) bool: one block of that size each, anywhere."""
    top = rng.integers(0, side - height + 1, shape)[..., None]
    start = rng.integers(0, side - width + 1, shape)[..., None]
    along = np.arange(side)
    rows, columns = (along >= top) & (along < top + height), (along >= start) & (along < start + width)
    return rows[..., :, None] & columns[..., None, :]


def multiblock(rng: np.random.Generator, count: int, side: int, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """I-JEPA's masks: (count, K) places of the context and (count, targets, T) of the target blocks.

    Sizes are drawn once a batch (targets cover 15 to 20 % of the grid, the context 85 to 100 % before the targets are
    cut out of it), so that every image has equally many; the context is thinned at random to the batch's smallest.
    """
    target = _rectangle(rng, side, (0.15, 0.2), (0.75, 1.5))
    context = _rectangle(rng, side, (0.85, 1.0), (1.0, 1.0))
    blocks = _cover(rng, (count, targets), side, *target)
    seen = _cover(rng, (count,), side, *context) & ~blocks.any(1)
    for _ in range(20):  # on a small grid the targets may leave nothing to look at
        poor = np.flatnonzero(seen.sum((1, 2)) < max(1, side * side // 8))
        if not len(poor):
            break
        blocks[poor] = _cover(rng, (len(poor), targets), side, *target)
        seen[poor] = _cover(rng, (len(poor),), side, *context) & ~blocks[poor].any(1)
    empty = ~seen.any((1, 2))
    seen[empty] = ~blocks[empty, 0]
    kept = int(seen.sum((1, 2)).min())
    scores = rng.random((count, side * side)) + 2 * ~seen.reshape(count, -1)
    places = np.sort(scores.argsort(1)[:, :kept], 1)
    return places, np.nonzero(blocks.reshape(count * targets, -1))[1].reshape(count, targets, -1)
