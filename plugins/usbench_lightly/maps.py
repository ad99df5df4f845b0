"""Which map of the encoder a dense method reads, and where its positions lie in the image."""

from __future__ import annotations

import torch
from torch import Tensor

from usbench import Network


@torch.no_grad()
def map_of_stride(network: Network, stride: int) -> tuple[int, int]:
    """The place of the map with that stride among the encoder's, and its channels; ValueError with what there is."""
    side = 2 * network.stride
    training = network.training
    maps = network.eval().encoder(torch.zeros(1, 1, side, side))
    network.train(training)
    strides = [side // level.shape[-1] for level in maps]
    if stride not in strides:
        raise ValueError(f"dense_stride is {stride}: the encoder's maps have the strides {strides}")
    return strides.index(stride), maps[strides.index(stride)].shape[1]


def positions(geometry: Tensor, side: int) -> Tensor:
    """(n, 2, 3) view → image, as (n, side², 2): the middle of each cell of a view, in the image's coordinates."""
    at = (torch.arange(side, device=geometry.device, dtype=geometry.dtype) * 2 + 1) / side - 1
    grid = torch.stack(torch.meshgrid(at, at, indexing="xy"), -1).view(1, -1, 2)
    return grid @ geometry[:, :, :2].transpose(1, 2) + geometry[:, None, :, 2]


def rows(level: Tensor) -> Tensor:
    """(n, c, h, w) → (n, h · w, c), float32."""
    return level.flatten(2).transpose(1, 2).float()
