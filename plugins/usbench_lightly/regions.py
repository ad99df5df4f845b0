"""DetCon: contrast of regions instead of whole images.

The paper pools under the masks of an unsupervised segmentation of the image. Here the segments are found on the device
by k-means on the intensity and the place of the cells of both views together; the geometry of the views says where in
the image a cell lies, so both views share the segments.
"""

from __future__ import annotations

import torch
from lightly.loss import DetConBLoss, DetConSLoss
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import pool_masked
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, one_hot

from usbench import Batch, Loss, Network
from usbench_lightly.kmeans import kmeans
from usbench_lightly.maps import map_of_stride, positions
from usbench_lightly.pairs import check

CONTRAST = 0.5  # of intensities beside places: their deviation, as a share of half the image's side


class DetConS(Loss):
    """A segment seen in both views is a positive pair, every other segment of the batch a negative.

    Args:
        segments: segments of an image.
        regions: how many of them, drawn with repetition, stand for a view.
        dense_stride: which map is pooled under the segments, beside the deepest map brought to its size.
    """

    predicted = False  # whether a predictor's regions are compared with a teacher's

    def __init__(
        self,
        network: Network,
        temperature: float = 0.1,
        segments: int = 8,
        regions: int = 8,
        hidden: int = 512,
        projection: int = 128,
        dense_stride: int = 8,
    ) -> None:
        check(temperature=temperature, segments=segments, regions=regions, hidden=hidden, projection=projection)
        if segments < 2:
            raise ValueError(f"segments is {segments}: at least 2")
        level, channels = map_of_stride(network, dense_stride)
        super().__init__(
            network,
            head=lambda dim: BYOLProjectionHead(dim + channels, hidden, projection),
            predictor=(lambda: BYOLPredictionHead(projection, hidden, projection)) if self.predicted else None,
        )
        self.level, self.stride, self.segments, self.regions = level, dense_stride, segments, regions
        criterion = DetConBLoss if self.predicted else DetConSLoss
        self.criterion = criterion(temperature, gather_distributed=False)

    def forward(self, batch: Batch) -> Tensor:
        """Contrast of the regions; in DetConB of the predicted ones with the teacher's."""
        masks = self.partition(batch)
        drawn = [self.choose(mask, batch) for mask in masks]
        with self.autocast():
            seen = self.embed(self.network.encoder, self.projector, batch, masks, drawn)
            if self.predictor is not None:
                seen = self.project(self.predictor, seen)
                with torch.no_grad():
                    seen += self.embed(self.teacher_encoder, self.teacher_projector, batch, masks, drawn)
        return self.criterion(*(each.unflatten(0, (-1, self.regions)) for each in seen), *drawn)

    def embed(
        self, encoder: nn.Module, projector: nn.Module, batch: Batch, masks: list[Tensor], drawn: list[Tensor]
    ) -> list[Tensor]:
        """(n · regions, projection) for each view: the maps, averaged under each drawn segment and projected."""
        pooled = []
        for maps, mask, which in zip(self.encode(encoder, batch.views), masks, drawn, strict=True):
            fine = maps[self.level].float()
            deep = interpolate(maps[-1].float(), size=fine.shape[-2:], mode="bilinear")
            means = pool_masked(torch.cat([fine, deep], 1), mask, self.segments).transpose(1, 2)
            pooled.append(means.gather(1, which[..., None].expand(-1, -1, means.shape[-1])).flatten(0, 1))
        return self.project(projector, pooled)

    @torch.no_grad()
    def partition(self, batch: Batch) -> list[Tensor]:
        """(n, side, side) for each view: the segment of each cell."""
        side = batch.views[0].shape[-1] // self.stride
        points = []
        for view, geometry in zip(batch.views, batch.geometry, strict=True):
            grey = adaptive_avg_pool2d(view.float(), side).flatten(2).transpose(1, 2)
            spread, mean = torch.std_mean(grey, 1, keepdim=True)
            points.append(torch.cat([CONTRAST * (grey - mean) / (spread + 1e-3), positions(geometry, side)], -1))
        found, _ = kmeans(torch.cat(points, 1), self.segments, batch.rng)
        return [half.unflatten(1, (side, side)) for half in found.chunk(2, 1)]

    def choose(self, mask: Tensor, batch: Batch) -> Tensor:
        """(n, regions) segments drawn, with repetition, from those that the view shows."""
        rank = one_hot(mask.flatten(1), self.segments).amax(1).cumsum(1)
        drawn = torch.from_numpy(batch.rng.integers(2**31, size=(len(mask), self.regions))).to(mask.device)
        return torch.searchsorted(rank, drawn % rank[:, -1:] + 1)


class DetConB(DetConS):
    """The same with BYOL's predictor and momentum teacher."""

    teacher = (0.99, 1.0)
    predicted = True
