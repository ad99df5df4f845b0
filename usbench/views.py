"""Views of a batch: all spatial steps composed into one affine a sample and one resample, the rest batched after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from usbench.contracts import Augmentation
from usbench.errors import UsbenchError

MEAN, DEVIATION = 0.30, 0.22  # of the input of every row, whatever the data: one fixed choice
LOCAL_SHARE = 0.5  # side of a local view, as a share of a global one


def affine(centre: np.ndarray, half: np.ndarray, degrees: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """(n, 3, 3) matrices from view coordinates to image coordinates: flip, scale to half extents, rotate, move."""
    n = len(centre)
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    sx, sy = half[:, 0] * np.where(flip, -1.0, 1.0), half[:, 1]
    matrix = np.zeros((n, 3, 3), np.float32)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 0, 2] = cos * sx, -sin * sy, centre[:, 0]
    matrix[:, 1, 0], matrix[:, 1, 1], matrix[:, 1, 2] = sin * sx, cos * sy, centre[:, 1]
    matrix[:, 2, 2] = 1.0
    return matrix


def flip_rotate(rng: np.random.Generator, count: int, degrees: float) -> np.ndarray:
    """The fine-tune's augmentation, the same for every row: a horizontal flip and a rotation of up to ±degrees."""
    flip = rng.random(count) < 0.5
    return affine(np.zeros((count, 2)), np.ones((count, 2)), rng.uniform(-degrees, degrees, count), flip)


def resample(planes: Tensor, matrix: Tensor, size: int) -> Tensor:
    """One bilinear resample of (n, c, H, W) through (n, 2, 3) into (n, c, size, size); outside is black."""
    # An affine grid is a sum of a row and a column, which costs a fraction of affine_grid's matrix products.
    at = (torch.arange(size, device=planes.device, dtype=torch.float32) * 2 + 1) / size - 1
    across, down, move = matrix.unbind(-1)
    column = torch.addcmul(move[:, None], down[:, None], at[:, None])
    grid = (across[:, None] * at[:, None])[:, None] + column[:, :, None]
    return functional.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def normalise(images: Tensor) -> Tensor:
    """[0, 1] → the network's input."""
    return images.sub(MEAN).mul_(1 / DEVIATION)


def between(source: Tensor, target: Tensor) -> Tensor:
    """(n, 2, 3): coordinates in the source view → coordinates in the target view, from the two geometries."""
    # Neither a list of numbers nor a check of each matrix: both would wait for a GPU.
    bottom = torch.eye(3, dtype=source.dtype, device=source.device)[2:].expand(len(source), 1, 3)
    first, second = torch.cat([source, bottom], 1), torch.cat([target, bottom], 1)
    return torch.linalg.solve_ex(second.float(), first.float()).result[:, :2]


@dataclass
class Drawn:
    """Host-drawn parameters of the views of one kind (global or local): view-major, one row a view of an image."""

    views: int
    size: int
    matrix: Tensor  # (views · n, 2, 3)
    steps: list[dict[str, Tensor]]


class Views(nn.Module):
    """Makes the views of a batch from its uint8 images: draw on the host, then one pass on the device."""

    def __init__(self, steps: Sequence[Augmentation], size: int, counts: tuple[int, int]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.size, self.counts = size, counts
        self.local_size = max(32, round(size * LOCAL_SHARE / 32) * 32)
        self.wants_sector = any(step.wants_sector for step in steps)

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, device: torch.device) -> list[Drawn]:
        """All parameters of all views of the global batch, copied to the device without waiting."""
        drawn = []
        for count, size, local in ((self.counts[0], self.size, False), (self.counts[1], self.local_size, True)):
            if count == 0:
                continue
            every = np.tile(boxes, (count, 1))
            matrix = np.broadcast_to(np.eye(3, dtype=np.float32), (len(every), 3, 3))
            params: list[dict[str, Tensor]] = []
            for step in self.steps:
                assert isinstance(step, Augmentation)
                step.views = count
                values = step.draw(rng, every, local=local)
                _check_rows(step, values, len(every))
                if "affine" in values:
                    matrix = matrix @ values.pop("affine").astype(np.float32)
                    every = np.tile(np.array([-1, -1, 1, 1], np.float32), (len(every), 1))  # now inside the crop
                params.append({key: to_device(value, device) for key, value in values.items()})
            drawn.append(Drawn(count, size, to_device(np.ascontiguousarray(matrix[:, :2]), device), params))
        return drawn

    @torch.no_grad()
    def forward(
        self, images: Tensor, sector: Tensor | None, drawn: list[Drawn]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """(n, 1, H, W) uint8, and its sector → normalised views, their geometry, their sectors."""
        planes = (images if sector is None else torch.cat([images, sector], 1)).float()
        views: list[Tensor] = []
        geometry: list[Tensor] = []
        sectors: list[Tensor] = []
        for each in drawn:
            sampled = [resample(planes, matrix, each.size) for matrix in each.matrix.chunk(each.views)]
            pixels = torch.cat([view[:, :1] for view in sampled]).mul_(1 / 255)
            inside = torch.cat([view[:, 1:] > 0.5 for view in sampled]) if sector is not None else None
            views += self.change(pixels, each.steps, inside).chunk(each.views)
            geometry += each.matrix.chunk(each.views)
            if inside is not None:
                sectors += inside.float().chunk(each.views)
        return views, geometry, sectors

    def change(self, pixels: Tensor, drawn: Sequence[dict[str, Tensor]], inside: Tensor | None) -> Tensor:
        """All that follows the resample: every step with what was drawn for it, then normalised."""
        for step, params in zip(self.steps, drawn, strict=True):
            given, pixels = pixels.shape, step(pixels, params, inside)
            if not isinstance(pixels, Tensor) or pixels.shape != given:
                raise UsbenchError(
                    f"augmentation step {type(step).__name__} made {_shown(pixels)} of images of {tuple(given)}: "
                    "it must keep their shape."
                )
        return normalise(pixels)


def _check_rows(step: Augmentation, values: Any, count: int) -> None:
    """Refuse draws that are not one row a view."""
    rows, called = values if isinstance(values, dict) else {"": values}, f"augmentation step {type(step).__name__}"
    for name, drawn in rows.items():
        array = isinstance(drawn, np.ndarray)
        if not array or drawn.shape[:1] != (count,):
            of = f"'{name}' of {drawn.shape if array else f'type {type(drawn).__name__}'}"
            raise UsbenchError(
                f"{called} drew {of if name else f'a {type(values).__name__}'} for {count} views: "
                "draw must give a dict of NumPy arrays with one row a view."
            )
        if name == "affine" and drawn.shape[1:] != (3, 3):
            raise UsbenchError(f"{called} drew an 'affine' of {drawn.shape}: it is (views, 3, 3).")


def _shown(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """On the device, from pinned memory and without waiting; float64 becomes float32."""
    tensor = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32) if values.dtype == np.float64 else values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor
