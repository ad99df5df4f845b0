"""k-means on the device, many sets of points at once, and equal bytes at every run."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot


@torch.no_grad()
def kmeans(points: Tensor, count: int, rng: np.random.Generator, rounds: int = 10) -> tuple[Tensor, Tensor]:
    """(b, n, d) → the cluster of each point (b, n), and the clusters' centres (b, count, d).

    Lloyd's algorithm from `count` of the points; a cluster that becomes empty keeps its centre. scikit-learn's is not
    used, since it takes one set at a time, on the host, and adds up in the order in which its threads happen to end.
    """
    b, n, d = points.shape
    start = torch.from_numpy(rng.random((b, n)).argsort(1)[:, :count]).to(points.device)
    centres = points.gather(1, start[..., None].expand(-1, -1, d))
    for _ in range(rounds):
        member = one_hot(torch.cdist(points, centres).argmin(2), count).to(points.dtype)
        size = member.sum(1)[..., None]
        centres = torch.where(size > 0, member.transpose(1, 2) @ points / size.clamp_min(1), centres)
    return torch.cdist(points, centres).argmin(2), centres
