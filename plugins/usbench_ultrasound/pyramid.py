"""The encoder's maps by stride, and a top-down path over them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from usbench import Network


@torch.no_grad()
def strides(network: Network) -> list[tuple[int, int]]:
    """(stride, channels) of each map of the encoder."""
    side = 2 * network.stride
    training = network.training
    maps = network.eval().encoder(torch.zeros(1, 1, side, side))
    network.train(training)
    return [(side // level.shape[-1], level.shape[1]) for level in maps]


class TopDown(nn.Module):
    """A feature pyramid: each map through a 1 × 1 convolution, plus the coarser level enlarged.

    Gives the levels of the wanted strides, finest first; coarser maps take part in them.
    """

    def __init__(self, network: Network, wanted: tuple[int, ...], width: int) -> None:
        super().__init__()
        found = strides(network)
        known = [stride for stride, _ in found]
        for stride in wanted:
            if stride not in known:
                raise ValueError(f"stride is {stride}: the encoder's maps have the strides {known}")
        self.used = [i for i, (stride, _) in enumerate(found) if stride >= min(wanted)]
        self.wanted = [self.used.index(known.index(stride)) for stride in wanted]
        self.lateral = nn.ModuleList(nn.Conv2d(found[i][1], width, 1) for i in self.used)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """The encoder's maps → the wanted levels."""
        levels: list[Tensor] = []
        for i, lateral in zip(reversed(self.used), reversed(self.lateral), strict=True):
            level = lateral(maps[i])
            if levels:
                level = level + functional.interpolate(levels[0], size=level.shape[-2:], mode="nearest")
            levels.insert(0, level)
        return [levels[place] for place in self.wanted]
