"""Masked image modelling for any network: the image is spoilt, and restored from the encoder's maps.

By default a small head of the loss's own restores the image and the fine-tune inherits the encoder, as from any other
method. With decoder=true the segmentation network itself restores it, its one output read as intensity; then decoder
and head are trained too, and the fine-tune inherits the whole network (transfer "network").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from usbench import Batch, Loss, Network
from usbench_tokens.base import at_least, ratio
from usbench_tokens.masks import random_scores, share
from usbench_tokens.restore import mean_over


class PyramidHead(nn.Module):
    """Every map narrowed to `width`, enlarged and added up, from the deepest to the finest; then one pixel each."""

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        self.narrow = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, maps: list[Tensor], size: int) -> Tensor:
        """Maps → (N, 1, size, size)."""
        total: Tensor | None = None
        for narrow, level in zip(reversed(self.narrow), reversed(maps), strict=True):
            here = narrow(level)
            if total is not None:
                total = functional.interpolate(total, size=here.shape[-2:], mode="bilinear", align_corners=False)
            total = here if total is None else total + here
        assert total is not None
        larger = functional.interpolate(functional.gelu(total), size=size, mode="bilinear", align_corners=False)
        return self.out(larger)


@torch.no_grad()
def channels_of(network: Network) -> list[int]:
    """The channels of the encoder's maps, without the image itself and without the empty maps that some have."""
    training, side = network.training, 2 * network.stride
    maps = network.eval().encoder(torch.zeros(1, 1, side, side))
    network.train(training)
    return [level.shape[1] for level in inner(maps, side)]


def inner(maps: Sequence[Tensor], side: int) -> list[Tensor]:
    """The maps that are smaller than the image and have channels."""
    return [level for level in maps if level.shape[-1] < side and level.shape[1]]


class SimMIMCNN(Loss):
    """Squares inside the sector give way to one learned value; their pixels are restored.

    The error is absolute, on the network's input values, and counts on masked pixels inside the sector only. The
    learned value starts at the mean of the input.

    Args:
        mask_ratio: share of the sector's squares that is masked.
        grid: squares along a side of the image.
        width: channels of the restoring head.
        decoder: whether the segmentation network itself restores the image, and is inherited whole.
    """

    views = (1, 0)
    wants_sector = True

    def __init__(
        self, network: Network, mask_ratio: float = 0.6, grid: int = 8, width: int = 32, decoder: bool = False
    ) -> None:
        ratio(mask_ratio=mask_ratio)
        at_least(2, grid=grid)
        at_least(1, width=width)
        super().__init__(network)
        self.mask_ratio, self.grid = mask_ratio, grid
        self.transfer = "network" if decoder else "encoder"
        self.restoring = None if decoder else PyramidHead(channels_of(network), width)
        self.mask_value = nn.Parameter(torch.zeros(()))

    def draw(self, batch: Batch) -> Tensor:
        """(N, 1, H, W) bool: the masked pixels."""
        view, sector = batch.views[0], batch.sectors[0]
        scores = random_scores(batch.rng, len(view), self.grid, view.device)
        within = functional.adaptive_avg_pool2d(sector, self.grid).flatten(1) >= 0.5
        chosen = share(scores, within, self.mask_ratio)
        squares = chosen.view(-1, 1, self.grid, self.grid)
        return functional.interpolate(squares.float(), size=view.shape[-1], mode="nearest").bool() & sector.bool()

    def restore(self, images: Tensor, masked: Tensor) -> Tensor:
        """The network's guess of the whole image, from one in which the masked pixels are hidden."""
        with self.autocast():
            hidden = torch.where(masked, self.mask_value, images)
            if self.restoring is None:
                return self.network(hidden).float()
            size = hidden.shape[-1]
            return self.restoring(inner(self.network.encoder(hidden), size), size).float()

    def forward(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """Mean absolute error on masked pixels."""
        view, masked = batch.views[0], self.draw(batch)
        return mean_over((self.restore(view, masked) - view).abs(), masked)


class USFM(SimMIMCNN):
    """Squares are masked in an image whose spectrum has a ring cut out; the image is restored in both domains.

    The ring lies at a random radius and spares the lowest frequencies, or only contrast would be asked for. To the
    error on masked pixels comes that of the spectrum inside the ring: the size of the complex difference, of an
    orthonormal transform. The paper's widths, its weight between the domains and its head (it pretrains a vision
    transformer) were not readable to us: all of that is our reconstruction.

    Args:
        band: width of the ring, as a share of the radius of the spectrum.
        frequency_weight: of the spectrum's error.
    """

    def __init__(
        self, network: Network, band: float = 0.2, frequency_weight: float = 0.5, mask_ratio: float = 0.6,
        grid: int = 8, width: int = 32, decoder: bool = False,
    ) -> None:  # fmt: skip
        if not 0 < band <= 0.5:
            raise ValueError(f"band is {band}: a share of the radius, above 0 and at most 0.5")
        at_least(0, frequency_weight=frequency_weight)
        super().__init__(network, mask_ratio, grid, width, decoder)
        self.band, self.frequency_weight = band, frequency_weight

    def ring(self, batch: Batch) -> Tensor:
        """(N, H, W // 2 + 1) bool: the frequencies that are cut out of each image."""
        view = batch.views[0]
        height, width = view.shape[-2:]
        # Along an axis the spectrum reaches 1; a ring beyond that would miss most of it.
        low = batch.rng.uniform(0.1, 1 - self.band, len(view)).astype(np.float32)
        start = torch.from_numpy(low).to(view.device, non_blocking=True).view(-1, 1, 1)
        down = 2 * torch.fft.fftfreq(height, device=view.device)[:, None]
        radius = torch.sqrt(down**2 + (2 * torch.fft.rfftfreq(width, device=view.device)) ** 2)
        return (radius >= start) & (radius < start + self.band)

    def forward(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """The error on masked pixels, and on the frequencies that were cut out."""
        view, masked, ring = batch.views[0], self.draw(batch), self.ring(batch)
        spectrum = torch.fft.rfft2(view[:, 0].float(), norm="ortho")
        cut = torch.fft.irfft2(spectrum.masked_fill(ring, 0), s=view.shape[-2:], norm="ortho")[:, None]
        spoilt = torch.where(batch.sectors[0].bool(), cut, view)  # nothing changes outside the sector
        restored = self.restore(spoilt, masked)
        found = {"spatial": mean_over((restored - view).abs(), masked)}
        if self.frequency_weight:
            difference = torch.fft.rfft2(restored[:, 0], norm="ortho") - spectrum
            found["frequency"] = self.frequency_weight * mean_over(difference.abs(), ring)
        return found
