"""Hard negatives from ultrasound videos: far frames of the same video, and the most similar frames of others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from lightly.models.modules.heads import MoCoProjectionHead
from torch import Tensor
from torch.nn import functional

from usbench import Batch, Clip, Loss, Network, Out, Video
from usbench.contracts import pooled
from usbench_ultrasound.contrast import check

INTRA = 3
WARMUP = 1 / 6  # of the training: cross-video negatives only
EMPTY = -2  # the video of a place in the store that holds nothing yet


@dataclass(frozen=True)
class Hard(Clip):
    """An anchor in [0.2 n, 0.5 n), a positive at most three frames away, and three negatives far away.

    The negatives are 0.2 n to 0.4 n frames away, on either side; over the second half of training both distances shrink
    by a cosine to the first frame outside the positive's window. In a short video the window is a tenth of it, at least
    one frame, so that there is an outside; where fewer than three frames are far, some are drawn twice.
    """

    roles: tuple[str, ...] = ("anchor", "positive", *(f"negative {i + 1}" for i in range(INTRA)))
    least: int = 4

    @staticmethod
    def window(n: int) -> int:
        """How far the positive may be."""
        return min(3, max(1, n // 10))

    @staticmethod
    def far(n: int, progress: float) -> tuple[float, float]:
        """The least and the largest distance of a negative."""
        nearest = Hard.window(n) + 1
        share = (1 + math.cos(math.pi * max(0.0, 2 * progress - 1))) / 2
        low, high = (nearest + share * (max(part * n, nearest) - nearest) for part in (0.2, 0.4))
        return low, high

    def frames(self, video: Video, progress: float, rng: np.random.Generator) -> np.ndarray:
        """Places in the video: the frames are those of the pack, however many of the recording these are."""
        n = len(video)
        anchor = int(rng.integers(-(-n // 5), -(-n // 2)))  # from 0.2 n, below 0.5 n
        away = np.abs(np.arange(n) - anchor)
        low, high = self.far(n, progress)
        positive = rng.choice(np.flatnonzero((away > 0) & (away <= self.window(n))))
        # Distances are whole numbers: round them to such that lie in the range, or next to it.
        far = np.flatnonzero((away >= math.floor(low)) & (away <= math.floor(high)) & (away > self.window(n)))
        negatives = rng.choice(far, INTRA, replace=len(far) < INTRA)
        return np.array([anchor, positive, *negatives])


class UCLHard(Loss):
    """InfoNCE of an anchor with a near frame, against three far frames of its video and one of other videos.

    The positive is seen by a momentum encoder. The cross-video negative is the mean of the `nearest` most similar of
    the last `store` stored embeddings, weighted by a softmax of their similarities; those of the anchor's own video are
    left out. During the first sixth of training it is the only negative.

    Ours: the store holds the momentum encoder's embeddings of positives, this batch's included, so that it is never
    empty; the mean's weights are constants, and it is brought back to length one.

    Args:
        temperature: of the contrast and of the mean's softmax.
        store: embeddings that are kept.
        nearest: how many of them make the negative.
        projection: width of the embedding.
    """

    views = (1, 0)
    item = Hard()
    teacher = (0.999, 0.999)

    def __init__(
        self, network: Network, temperature: float = 0.07, store: int = 96, nearest: int = 4, projection: int = 128
    ) -> None:
        check(temperature=temperature, store=store, nearest=nearest, projection=projection)
        super().__init__(network, head=lambda dim: MoCoProjectionHead(dim, max(dim, projection), projection))
        self.temperature, self.nearest = temperature, nearest
        self.register_buffer("stored", torch.zeros(store, projection))
        self.register_buffer("stored_video", torch.full((store,), EMPTY))

    def look(self, batch: Batch) -> Out:
        """The anchor and the negatives through the network, the positive through its teacher."""
        anchor, positive, *negatives = batch.views
        with self.autocast():
            out = Out(self.encode(self.network.encoder, [anchor, *negatives]))
            out.z = self.project(self.projector, [pooled(maps) for maps in out.maps])
            with torch.no_grad():
                out.teacher_maps = self.encode(self.teacher_encoder, [positive])
                out.t = self.project(self.teacher_projector, [pooled(maps) for maps in out.teacher_maps])
        return out

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """InfoNCE over the positive and the negatives that this time of the training has."""
        anchor, *intra = (functional.normalize(z, dim=1) for z in out.z)
        positive = functional.normalize(out.t[0], dim=1)
        self._keep(positive, batch.video)
        cross, found = self._cross(anchor, batch.video)
        similar = torch.stack([(anchor * other).sum(1) for other in (positive, *intra, cross)], 1)
        hidden = torch.zeros_like(similar, dtype=torch.bool)
        hidden[:, 1:-1] = batch.progress < WARMUP
        hidden[:, -1] = ~found
        scores = (similar / self.temperature).masked_fill(hidden, -torch.inf)
        return -scores.log_softmax(1)[:, 0].mean()

    @torch.no_grad()
    def _keep(self, embedding: Tensor, video: Tensor) -> None:
        count = len(self.stored)
        self.stored.copy_(torch.cat([self.stored, embedding])[-count:])
        self.stored_video.copy_(torch.cat([self.stored_video, video.to(self.stored_video)])[-count:])

    @torch.no_grad()
    def _cross(self, anchor: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        """(N, d) the negative of each anchor, and whether there is one."""
        other = (self.stored_video[None] != video[:, None]) & (self.stored_video != EMPTY)[None]
        similar = (anchor @ self.stored.T).masked_fill(~other, -torch.inf)
        best, at = similar.topk(min(self.nearest, len(self.stored)), dim=1)
        # A row of −inf alone would be NaN: it gets a value, and is not used.
        best = best.masked_fill(~other.any(1, keepdim=True), 0.0)
        share = (best / self.temperature).softmax(1)
        return functional.normalize((share[:, :, None] * self.stored[at]).sum(1), dim=1), other.any(1)
