"""The protocol of the POCUS table: the last residual block and a linear layer, five folds of clips."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from usbench.contracts import Labelled
from usbench.evaluate.classification import score_classes, score_videos
from usbench.views import affine
from usbench_classify.classify import Classify

LEAST_AREA = 0.8  # of a crop


class Pocus(Classify):
    """Plain cross-entropy under resized crops and flips, chosen by the accuracy of inner validation frames.

    The published score is that of the epoch which the held-out fold likes best. Here what is predicted at every look at
    inner validation is kept, and scored afterwards: that figure has a row of its own (`selection` is best-on-test) and
    no say in anything. The optimiser is the harness's AdamW, which decays weights apart from the gradient, for Adam.

    Args:
        train: what of the encoder is trained beside the linear layer.
        recipe: learning rate, weight decay, warm-up and batch of the fine-tune; planning puts them into its schedule.
    """

    needs = ("label", "video")
    metrics = (
        "accuracy", "balanced_accuracy", "log_loss", "brier", "video_accuracy", "video_balanced_accuracy",
    )  # fmt: skip
    primary = "accuracy"
    keeps_choices = True

    def __init__(self, train: str = "last-block", **recipe: float) -> None:
        super().__init__(train, balance=False)

    def views(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Crops of 80 to 100 % of the area, and flips."""
        side = np.sqrt(rng.uniform(LEAST_AREA, 1, (count, 1)))
        centre = (1 - side) * rng.uniform(-1, 1, (count, 2))
        return affine(centre, np.tile(side, 2), np.zeros(count), rng.random(count) < 0.5)

    def inner(self, output: Tensor, batch: Labelled) -> Tensor:
        """1 for a frame that is right."""
        return (output.argmax(1) == batch.label).float()

    def tabulate(self, predicted: np.ndarray, label: np.ndarray, video: np.ndarray) -> dict[str, np.ndarray]:
        """The metrics of each frame, and of each video at its first frame."""
        return {
            **self.named(predicted), **score_classes(predicted, label), **score_videos(predicted, label, video),
        }  # fmt: skip
