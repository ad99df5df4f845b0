"""A linear layer on the pooled deepest feature, and as much of the encoder below it as is wanted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from usbench import Network, Protocol
from usbench.contracts import Labelled, pooled
from usbench.evaluate.classification import METRICS, score_classes
from usbench_classify.stages import last_block, last_stage

TRAIN = ("full", "last-stage", "last-block", "head")
PARTS = {"last-stage": last_stage, "last-block": last_block}


class Classifier(nn.Module):
    """Encoder, mean over the deepest map, linear layer."""

    def __init__(self, encoder: nn.Module, dim: int, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(dim, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) → logits (N, classes)."""
        return self.head(pooled(self.encoder(images)))


def recalls(right: Tensor, label: Tensor, classes: int) -> Tensor:
    """(N, classes) 1 or 0 in the column of an image's class, NaN elsewhere: the mean over the columns' means is the
    balanced accuracy."""
    of_class = functional.one_hot(label, classes).bool()
    return right.float()[:, None].masked_fill(~of_class, float("nan"))


class Classes(Protocol):
    """What all protocols that predict class probabilities share."""

    needs, masks = ("label",), False
    metrics: tuple[str, ...] = METRICS
    primary = "balanced_accuracy"

    def predict(self, output: Tensor, size: int) -> Tensor:
        """(N, classes) probabilities."""
        return output.float().softmax(1)

    def named(self, probability: np.ndarray) -> dict[str, np.ndarray]:
        """The predicted class, as a place in the classes, and a column for the probability of each."""
        columns = {f"p_{name}": probability[:, code] for code, name in enumerate(self.classes)}
        return {"predicted": probability.argmax(1), **columns}

    def tabulate(self, predicted: np.ndarray, label: np.ndarray, video: np.ndarray) -> dict[str, np.ndarray]:
        """The predicted class, the probabilities, and the metrics of each image."""
        return {**self.named(predicted), **score_classes(predicted, label)}


class Classify(Classes):
    """Cross-entropy over the classes, chosen and judged by balanced accuracy.

    Classes are balanced in the loss, not by sampling: every image is seen as often as in any other protocol, and one of
    a class with n of the N training images weighs N / (classes · n). Without it, a rare class hardly moves the network,
    while balanced accuracy judges it.

    Args:
        train: what of the encoder is trained beside the linear layer: all of it, its last stage, the last block of
            that, or nothing.
        balance: weigh the classes alike; else each image.
    """

    def __init__(self, train: str = "full", balance: bool = True) -> None:
        if train not in TRAIN:
            raise ValueError(f"train is '{train}': one of {', '.join(TRAIN)}")
        self.train, self.balance = train, balance

    def adapt(self, network: Network) -> nn.Module:
        """Encoder and linear layer; the decoder takes no part."""
        moved = list(network.encoder.parameters())
        if self.train != "full":
            parts = PARTS[self.train](network) if self.train in PARTS else []
            moved = [parameter for part in parts for parameter in part.parameters()]
            network.encoder.requires_grad_(False)
        for parameter in moved:
            parameter.requires_grad_(True)
        return Classifier(network.encoder, network.dim, len(self.classes))

    def objective(self, output: Tensor, batch: Labelled) -> Tensor:
        """Cross-entropy, each image with the weight of its class."""
        each = functional.cross_entropy(output, batch.label, reduction="none")
        if self.balance:
            counts = torch.tensor(self.counts, dtype=each.dtype, device=each.device)
            weight = counts.sum() / ((counts > 0).sum() * counts.clamp_min(1))
            each = each * weight[batch.label]
        return each.mean()

    def inner(self, output: Tensor, batch: Labelled) -> Tensor:
        """A part for each class, so that the step is chosen by balanced accuracy."""
        return recalls(output.argmax(1) == batch.label, batch.label, len(self.classes))
