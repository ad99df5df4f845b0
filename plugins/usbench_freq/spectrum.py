"""What the steps on the 2-D spectrum share: its radius, its lowest frequencies, partners, and sums of plane waves."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor


@functools.lru_cache(maxsize=16)
def radius(height: int, width: int, device: torch.device) -> Tensor:
    """(height, width // 2 + 1) the distance of each frequency of `rfft2` from zero; 1 is the spectrum's corner."""
    fy = torch.fft.fftfreq(height, device=device)[:, None]
    fx = torch.fft.rfftfreq(width, device=device)[None]
    return torch.sqrt(fy**2 + fx**2) / 0.5**0.5


def lowest(side: int, reach: int) -> tuple[slice, slice]:
    """The rows of a spectrum at most `reach` from zero: positive frequencies, then negative ones, none twice."""
    return slice(0, reach + 1), slice(max(reach + 1, side - reach), None)


def partners(rng: np.random.Generator, rows: int, views: int) -> np.ndarray:
    """For each row another one, of another image where there is one: the rows are `views` of each, view-major."""
    images = rows // views
    own = np.arange(rows)
    partner = (own + rng.integers(1, max(2, rows), rows)) % rows
    return np.where(partner % images == own % images, (partner + 1) % rows, partner) if images > 1 else partner


def plane_waves(down: Tensor, across: Tensor, amplitude: Tensor | float = 1.0) -> Tensor:
    """Σₖ aₖ exp(i (downₖ(y) + acrossₖ(x))): phases (n, k, h) and (n, k, w) → complex (n, h, w).

    Each wave is a product of a column and a row, so the sum over the waves is one matrix product.
    """
    size = torch.as_tensor(amplitude, dtype=down.dtype, device=down.device).expand_as(down)
    return torch.polar(size, down).transpose(1, 2) @ torch.polar(torch.ones_like(across), across)
