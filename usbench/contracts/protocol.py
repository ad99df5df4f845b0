"""How a network is fine-tuned and scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from usbench.contracts.network import Network


@dataclass
class Labelled:
    """A supervised batch."""

    images: Tensor  # (N, 1, H, W), normalised
    mask: Tensor  # (N, 1, H, W) in [0, 1]: resampled, so a border pixel may lie between; (N, 0, H, W) if not needed
    label: Tensor  # (N,) the place in `Protocol.classes`; -1 unknown


class Protocol:
    """Turns a network into per-image scores: what is trained, by which objective, and how an image is scored.

    Two forks: a prediction is a mask (`masks`), scored image by image by `score`, or a row of numbers, all of them
    scored together by `tabulate`; and a protocol is trained by steps (`objective`, `inner`), or, registered with
    `frozen=True`, fitted once to pooled features of the network as it is (`fit`).
    """

    needs: ClassVar[tuple[str, ...]] = ()  # as registered: "mask" and "label" say which images count
    metrics: ClassVar[tuple[str, ...]] = ()
    primary: ClassVar[str] = ""
    masks: ClassVar[bool] = True
    keeps_choices: ClassVar[bool] = False  # what inner validation looked at is all tested, for `best_on_test`
    classes: tuple[str, ...] = ()  # of the training data, where "label" is needed; set by the harness
    counts: tuple[int, ...] = ()  # images of each to train on; set by the harness

    def adapt(self, network: Network) -> nn.Module:
        """The module that is trained and tested; the network itself unless the protocol puts something on it.

        What is to stay as it is gets `requires_grad_(False)` here. Modules of which nothing is trained stay in
        evaluation mode, with BatchNorm statistics taken once of the clean training images.
        """
        return network

    def views(self, rng: np.random.Generator, count: int) -> np.ndarray | None:
        """(count, 3, 3) affines of a training batch; None for the usual flips and rotations of up to 15 degrees."""
        return None

    def objective(self, output: Tensor, batch: Labelled) -> Tensor:
        """The supervised loss."""
        raise NotImplementedError(f"{type(self).__name__} must write objective(output, batch)")

    def inner(self, output: Tensor, batch: Labelled) -> Tensor:
        """(N,) the score of each image at run size, by which the step is chosen on inner validation: the mean counts.

        Or (N, parts), NaN where an image is not of a part: the mean over the parts of the mean over each counts. With
        a part for each class and 1 for a right image, 0 for a wrong one, that is the balanced accuracy.
        """
        raise NotImplementedError(f"{type(self).__name__} must write inner(output, batch)")

    def fit(self, model: nn.Module, features: Tensor, label: Tensor) -> float:
        """Fit what `adapt` made to pooled features (N, dim), without gradient; returns its loss.

        What is learnt is put into buffers of the model, of whatever shape. Of a protocol that is `frozen`.
        """
        raise NotImplementedError(f"{type(self).__name__} must write fit(model, features, label)")

    def predict(self, output: Tensor, size: int) -> Tensor:
        """(N, size, size) bool: the predicted masks at the pack's size; without `masks`, (N, …) numbers."""
        raise NotImplementedError(f"{type(self).__name__} must write predict(output, size)")

    def probability(self, output: Tensor, size: int) -> Tensor | None:
        """(N, size, size) how likely each pixel is of the mask, for the calibration error; None where nobody knows."""
        return None

    def score(self, predicted: np.ndarray, truth: np.ndarray, spacing: float) -> dict[str, float]:
        """The metrics of one mask; `spacing` is how many native pixels a mask pixel is."""
        raise NotImplementedError(f"{type(self).__name__} must write score(predicted, truth, spacing)")

    def tabulate(self, predicted: np.ndarray, label: np.ndarray, video: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of one value an image, the metrics among them, for a whole test set: for protocols without masks.

        The mean over the images where a metric is not NaN is what tables show. `video` (N,) is text, "" unknown.
        """
        raise NotImplementedError(f"{type(self).__name__} must write tabulate(predicted, label, video)")
