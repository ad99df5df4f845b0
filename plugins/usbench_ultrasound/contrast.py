"""What several methods share: contrast pair by pair, a classifier of unknown labels, checks of options."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

MOST_CLASSES = 256


def check(**options: float) -> None:
    """Weights and counts that may be 0 end in `_weight`; everything else is above 0."""
    for name, value in options.items():
        weight = name.endswith("_weight")
        if not (value >= 0 if weight else value > 0):
            raise ValueError(f"{name} is {value}: {'not below' if weight else 'above'} 0")


def nt_xent(one: Tensor, other: Tensor, temperature: float, index: Tensor) -> Tensor:
    """(n,) NT-Xent of each pair, the mean of its two directions.

    `index` says which item a pair is of. A small set of videos can give one twice in a batch: another pair of the same
    item is no negative.
    """
    n = len(one)
    z = functional.normalize(torch.cat([one, other]), dim=1)
    who = index.repeat(2)
    positive = torch.arange(2 * n, device=z.device).roll(n)
    hidden = (who[:, None] == who[None]).scatter(1, positive[:, None], False)
    each = functional.cross_entropy((z @ z.T / temperature).masked_fill(hidden, -torch.inf), positive, reduction="none")
    return (each[:n] + each[n:]) / 2


class Classifier(nn.Module):
    """A linear classifier on embeddings whose labels may be unknown (−1), item by item.

    How many classes there are is not known when it is built: a class takes part once a label of it has been seen. A
    batch without a label costs 0.
    """

    def __init__(self, dim: int, smoothing: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, MOST_CLASSES)
        self.smoothing = smoothing
        self.register_buffer("met", torch.zeros(MOST_CLASSES, dtype=torch.bool))

    def forward(self, views: list[Tensor], label: Tensor) -> Tensor:
        """Cross-entropy over the labelled items, summed over the views; classes met share `smoothing` of a target."""
        return torch.stack([self._crossed(z, label) for z in views]).sum()

    def _crossed(self, z: Tensor, label: Tensor) -> Tensor:
        known = label >= 0
        target = functional.one_hot(label.clamp_min(0), MOST_CLASSES) * known[:, None]
        self.met |= target.any(0)
        # Before a first label there is nothing to choose from, and a softmax over nothing is NaN.
        logits = self.linear(z).masked_fill(~(self.met | ~self.met.any()), -torch.inf)
        log_share = logits.log_softmax(1).masked_fill(~self.met, 0.0)
        spread = self.smoothing * self.met / self.met.sum().clamp_min(1)
        each = -(((1 - self.smoothing) * target + spread) * log_share).sum(1)
        return (each * known).sum() / known.sum().clamp_min(1)
