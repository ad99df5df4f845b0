"""Relational reasoning: a learned head tells pairs of views of one image from pairs of views of two."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

from usbench import Batch, Loss, Network, Out
from usbench_ultrasound.contrast import check


class RelationalReasoning(Loss):
    """Binary cross-entropy of relation scores on aggregated pairs of features.

    Of every two of an image's `augmentations` views one positive pair is made, and one negative with another image's
    view, by cyclic shift of the batch; the shift grows from pair to pair.

    Args:
        augmentations: views of each image.
        hidden: width of the relation head.
        focus: γ of the focal form, which weighs down what is already told apart; 0 is plain cross-entropy.
    """

    def __init__(self, network: Network, augmentations: int = 4, hidden: int = 256, focus: float = 0.0) -> None:
        check(hidden=hidden)
        if augmentations < 2:
            raise ValueError(f"augmentations is {augmentations}: at least 2, to make a pair")
        if not focus >= 0:
            raise ValueError(f"focus is {focus}: not below 0")
        super().__init__(network)
        self.views, self.focus = (augmentations, 0), focus
        first = nn.Linear(2 * network.dim, hidden)
        self.relation = nn.Sequential(first, nn.BatchNorm1d(hidden), nn.LeakyReLU(), nn.Linear(hidden, 1))

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """Positives and negatives in equal number, all in one batch of the head."""
        n = len(out.features[0])
        positive, negative = [], []
        for place, (u, v) in enumerate(combinations(out.features, 2)):
            positive.append(torch.cat([u, v], 1))
            negative.append(torch.cat([u, v.roll(1 + place % (n - 1), 0)], 1))
        score = self.relation(torch.cat(positive + negative)).squeeze(1)
        target = torch.arange(len(score), device=score.device).lt(len(score) // 2).float()
        each = functional.binary_cross_entropy_with_logits(score, target, reduction="none")
        return (each * (-each).exp().neg().add(1).pow(self.focus)).mean() if self.focus else each.mean()
