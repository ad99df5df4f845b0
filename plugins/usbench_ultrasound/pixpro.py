"""PixPro: each pixel, smoothed by pixels like it, points where the teacher sees that place in the other view."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from usbench import Batch, Loss, Network, Out
from usbench_ultrasound.contrast import check
from usbench_ultrasound.pyramid import TopDown


class PixelHead(nn.Module):
    """A projection of each pixel: 1 × 1 convolutions on one level of a top-down path."""

    def __init__(self, network: Network, stride: int, hidden: int, projection: int) -> None:
        super().__init__()
        self.path = TopDown(network, (stride,), hidden)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, projection, 1),
        )  # fmt: skip

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The encoder's maps → (N, d, h, w)."""
        return self.layers(self.path(maps)[0])


class Propagation(nn.Module):
    """y_i = Σ_j max(cos(x_i, x_j), 0)^γ · g(x_j), with a linear g."""

    def __init__(self, dim: int, sharpness: float) -> None:
        super().__init__()
        self.transform, self.sharpness = nn.Conv2d(dim, dim, 1), sharpness

    def forward(self, x: Tensor) -> Tensor:
        """(N, d, h, w) → the same."""
        flat = functional.normalize(x.flatten(2).float(), dim=1)
        # Not clamped to zero itself, where a power below 1 has no finite slope.
        alike = (flat.transpose(1, 2) @ flat).clamp_min(1e-6).pow(self.sharpness)
        return (self.transform(x).flatten(2).float() @ alike).view(x.shape)


def centres(side: tuple[int, int], geometry: Tensor) -> tuple[Tensor, Tensor]:
    """Where the pixels of a map lie in the image, (N, h·w, 2), and how long the diagonal of one is, (N,)."""
    height, width = side
    x = (torch.arange(width, device=geometry.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=geometry.device) * 2 + 1) / height - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    linear = geometry[:, :, :2]
    edges = linear * geometry.new_tensor([2 / width, 2 / height])
    return grid @ linear.transpose(1, 2) + geometry[:, None, :, 2], edges.square().sum((1, 2)).sqrt()


class PixPro(Loss):
    """−cos between the propagated pixels of one view and the teacher's pixels of the other that lie at most τ away.

    The distance of two pixels is measured in the image, in diagonals of a pixel of the map (the larger of the two
    views'). An image whose views share no place costs nothing. With the deepest stride the map is the encoder's last,
    as published; a finer one, which small images need, is read from a top-down path, the coarser maps taking part.

    Args:
        threshold: τ.
        sharpness: γ of the propagation.
        stride: of the map.
        hidden: width of the pixels' projection head.
        projection: width of the pixels' embedding.
    """

    teacher = (0.99, 1.0)

    def __init__(
        self,
        network: Network,
        threshold: float = 0.7,
        sharpness: float = 2.0,
        stride: int = 8,
        hidden: int = 128,
        projection: int = 128,
    ) -> None:
        check(threshold=threshold, sharpness=sharpness, hidden=hidden, projection=projection)
        super().__init__(
            network,
            head=lambda dim: PixelHead(network, stride, hidden, projection),
            predictor=lambda: Propagation(projection, sharpness),
        )
        self.threshold = threshold

    def look(self, batch: Batch) -> Out:
        """Pixels of both views: propagated by the student, projected by the teacher."""
        with self.autocast():
            out = Out(self.encode(self.network.encoder, batch.views))
            out.p = self._pixels(nn.Sequential(self.projector, self.predictor), out.maps)
            with torch.no_grad():
                out.teacher_maps = self.encode(self.teacher_encoder, batch.views)
                out.t = self._pixels(self.teacher_projector, out.teacher_maps)
        return out

    @staticmethod
    def _pixels(head: nn.Module, maps: list[list[Tensor]]) -> list[Tensor]:
        together = [torch.cat(views) for views in zip(*maps, strict=True)]
        return [part.float() for part in head(together).chunk(len(maps))]

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Both directions, over all pairs of pixels of the same place."""
        side = tuple(out.p[0].shape[-2:])
        (one, size), (other, size_other) = (centres(side, geometry) for geometry in batch.geometry)
        apart = torch.cdist(one, other) / torch.maximum(size, size_other)[:, None, None]
        same = (apart <= self.threshold).float()
        return self._pull(out.p[0], out.t[1], same) + self._pull(out.p[1], out.t[0], same.transpose(1, 2))

    @staticmethod
    def _pull(predicted: Tensor, target: Tensor, same: Tensor) -> Tensor:
        """The mean over images of the mean over their pairs of places."""
        p, t = (functional.normalize(x.flatten(2), dim=1) for x in (predicted, target))
        alike = p.transpose(1, 2) @ t
        count = same.sum((1, 2))
        return -((alike * same).sum((1, 2)) / count.clamp_min(1)).sum() / (count > 0).sum().clamp_min(1)
