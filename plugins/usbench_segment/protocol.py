"""Dice + cross-entropy to train, per-image metrics at the pack's size to judge."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional

from usbench import Protocol
from usbench.contracts import Labelled
from usbench.evaluate.segmentation import METRICS, score_mask


def soft_dice(probability: Tensor, mask: Tensor) -> Tensor:
    """(N,) Dice of each image with probabilities for a mask; smoothed, so an empty pair counts 1."""
    both = (probability * mask).sum((1, 2, 3))
    return (2 * both + 1) / (probability.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)


class Segment(Protocol):
    """The lesion against everything else."""

    needs = ("mask",)
    metrics = METRICS
    primary = "dice"

    def objective(self, output: Tensor, batch: Labelled) -> Tensor:
        """Dice loss of each image, averaged, plus cross-entropy of each pixel."""
        dice = 1 - soft_dice(output.sigmoid(), batch.mask).mean()
        return dice + functional.binary_cross_entropy_with_logits(output, batch.mask)

    def inner(self, output: Tensor, batch: Labelled) -> Tensor:
        """Dice of the hard mask at run size; NaN for a normal image, which has no Dice to choose by."""
        truth = (batch.mask > 0.5).float()
        dice = soft_dice((output > 0).float(), truth)
        return dice.masked_fill(truth.sum((1, 2, 3)) == 0, float("nan"))

    def predict(self, output: Tensor, size: int) -> Tensor:
        """Logits brought to the pack's size, then cut at one half."""
        return self._logits(output, size) > 0

    def probability(self, output: Tensor, size: int) -> Tensor:
        """The same logits as probabilities."""
        return self._logits(output, size).sigmoid()

    def _logits(self, output: Tensor, size: int) -> Tensor:
        return functional.interpolate(output.float(), size=(size, size), mode="bilinear", align_corners=False)[:, 0]

    def score(self, predicted: np.ndarray, truth: np.ndarray, spacing: float) -> dict[str, float]:
        """All metrics of one image, distances in native pixels."""
        return score_mask(predicted, truth, spacing=spacing)
