"""IVPP: two frames of a video a short time apart are a pair, which weighs the more the closer they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lightly.loss import VICRegLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead, SimCLRProjectionHead
from torch import Tensor

from usbench import Batch, Clip, Loss, Network, Out, Video
from usbench.contracts import Head
from usbench_ultrasound.contrast import check, nt_xent

SLACK = 1e-4  # seconds: a time is a rounded number
ROUNDING = 0.01  # frames, likewise


@dataclass(frozen=True)
class Near(Clip):
    """A frame, and another one of the video at most `seconds` apart, or itself.

    Where nobody knows the times of a video, its frames' numbers are taken at `fps` frames a second.
    """

    roles: tuple[str, ...] = ("one", "other")
    stills: bool = True
    seconds: float = 1.5
    fps: float = 30.0

    def frames(self, video: Video, progress: float, rng: np.random.Generator) -> np.ndarray:
        """Both uniform: the first over the video, the second over what is near."""
        at = video.frame / self.fps if np.isnan(video.time).any() else video.time
        one = int(rng.integers(len(video)))
        near = np.flatnonzero(np.abs(at - at[one]) <= self.seconds + SLACK)
        return np.array([one, rng.choice(near)])


class Nearby(Loss):
    """Pairs that weigh w = (D − |i − j| + 1) / (D + 1), where i and j are frames and D = ⌊δt · rate⌋.

    The rate is the pair's own, frames over seconds; where times are not known, `fps` is assumed. Where `stills`, an
    image without a video takes part, as a pair with itself of weight 1, augmented twice.
    """

    views = (1, 0)
    item = Near()

    def __init__(self, network: Network, seconds: float, fps: float, stills: bool, head: Head) -> None:
        check(seconds=seconds, fps=fps)
        super().__init__(network, head=head)
        self.item = Near(seconds=seconds, fps=fps, stills=stills)

    def weight(self, batch: Batch) -> Tensor:
        """(N,) the weight of each pair, in (0, 1]."""
        apart = (batch.frame[:, 0] - batch.frame[:, 1]).abs().float()
        seconds = (batch.time[:, 0] - batch.time[:, 1]).abs()
        rate = torch.where(seconds > 0, apart / seconds, self.item.fps)
        reach = (rate * self.item.seconds + ROUNDING).floor().maximum(apart)
        return (reach - apart + 1) / (reach + 1)


class IVPP(Nearby):
    """NT-Xent, each anchor's term by the weight of its pair.

    Args:
        seconds: δt, the longest time between the frames of a pair.
        fps: frames a second where nobody knows.
        temperature: of the contrast.
        projection: width of the embedding.
        stills: take part with the images that belong to no video.
    """

    def __init__(
        self,
        network: Network,
        seconds: float = 1.5,
        fps: float = 30.0,
        temperature: float = 0.1,
        projection: int = 128,
        stills: bool = True,
    ) -> None:
        check(temperature=temperature, projection=projection)
        super().__init__(
            network, seconds, fps, stills,
            head=lambda dim: SimCLRProjectionHead(dim, max(dim, projection), projection),
        )  # fmt: skip
        self.temperature = temperature

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """The mean of the weighted terms."""
        each = nt_xent(*out.z, self.temperature, batch.index.to(out.z[0].device))
        return (self.weight(batch) * each).mean()


class IVPPBarlow(Nearby):
    """Barlow Twins whose means, deviations and cross-correlations are weighted by the pairs' weights.

    That the correlation takes the weights too is our reading.

    Args:
        seconds: δt, the longest time between the frames of a pair.
        fps: frames a second where nobody knows.
        redundancy_weight: λ, weight of the off-diagonal.
        projection: width of the embedding and of the layers before it.
        stills: take part with the images that belong to no video.
    """

    min_batch = 4

    def __init__(
        self,
        network: Network,
        seconds: float = 3.0,
        fps: float = 30.0,
        redundancy_weight: float = 0.005,
        projection: int = 512,
        stills: bool = True,
    ) -> None:
        check(redundancy_weight=redundancy_weight, projection=projection)
        super().__init__(
            network, seconds, fps, stills, head=lambda dim: BarlowTwinsProjectionHead(dim, projection, projection)
        )
        self.redundancy_weight = redundancy_weight

    def objective(self, out: Out, batch: Batch) -> dict[str, Tensor]:
        """The diagonal of the correlation to one, the rest to zero."""
        share = self.weight(batch)[:, None]
        share = share / share.sum()
        one, other = (self._standard(z, share) for z in out.z)
        correlation = (share * one).T @ other
        diagonal = correlation.diagonal()
        rest = correlation.square().sum() - diagonal.square().sum()
        return {"invariance": (diagonal - 1).square().sum(), "redundancy": self.redundancy_weight * rest}

    @staticmethod
    def _standard(z: Tensor, share: Tensor) -> Tensor:
        centred = z - (share * z).sum(0)
        return centred / ((share * centred.square()).sum(0) + 1e-5).sqrt()


class IVPPVICReg(Nearby):
    """VICReg whose invariance term is weighted by the pairs' weights.

    Args:
        seconds: δt, the longest time between the frames of a pair.
        fps: frames a second where nobody knows.
        invariance_weight: λ.
        variance_weight: μ.
        covariance_weight: ν.
        projection: width of the embedding and of the layers before it.
        stills: take part with the images that belong to no video.
    """

    def __init__(
        self,
        network: Network,
        seconds: float = 0.5,
        fps: float = 30.0,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        projection: int = 512,
        stills: bool = True,
    ) -> None:
        weights = {"variance_weight": variance_weight, "covariance_weight": covariance_weight}
        check(invariance_weight=invariance_weight, projection=projection, **weights)
        super().__init__(
            network, seconds, fps, stills, head=lambda dim: BarlowTwinsProjectionHead(dim, projection, projection)
        )
        self.invariance_weight = invariance_weight
        self.spread = VICRegLoss(lambda_param=0.0, mu_param=variance_weight, nu_param=covariance_weight)

    def objective(self, out: Out, batch: Batch) -> dict[str, Tensor]:
        """Weighted invariance; variance and covariance as they are."""
        one, other = out.z
        pull = (self.weight(batch) * (one - other).square().mean(1)).mean()
        return {"invariance": self.invariance_weight * pull, "spread": self.spread(one, other)}
