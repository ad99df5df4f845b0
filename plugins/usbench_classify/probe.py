"""What an encoder knows before anybody fine-tunes it: a linear model and nearest neighbours on its frozen features."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import log_loss
from torch import Tensor, nn
from torch.nn import functional

from usbench import Network
from usbench.contracts import Labelled, pooled
from usbench.evaluate.classification import score_classes
from usbench.evaluate.probe import linear_model
from usbench_classify.classify import Classes, recalls


class Reader(nn.Module):
    """An encoder, a linear model of its standardised features, and a bank of features to be near to.

    All that is fitted are buffers: `coef` (classes, dim), `intercept`, `mean` and `scale` of the linear model, `bank`
    (images, dim) of unit length with its `label`.
    """

    coef: Tensor
    intercept: Tensor
    mean: Tensor
    scale: Tensor
    bank: Tensor
    label: Tensor

    def __init__(self, encoder: nn.Module, classes: int, k: int) -> None:
        super().__init__()
        self.encoder, self.classes, self.k = encoder, classes, k
        for name in ("coef", "intercept", "mean", "scale", "bank", "label"):
            self.register_buffer(name, torch.empty(0))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) → probabilities (N, 2, classes): of the linear model, and of the neighbours."""
        return self.read(pooled([self.encoder(images)[-1].float()]))

    def read(self, features: Tensor) -> Tensor:
        """(N, dim) → probabilities (N, 2, classes)."""
        logits = ((features.double() - self.mean) / self.scale) @ self.coef.T + self.intercept
        return torch.stack([logits.softmax(1), self.near(features)], 1).float()

    def near(self, features: Tensor) -> Tensor:
        """(N, classes) the share of each class among the k nearest by cosine."""
        likeness = functional.normalize(features.double(), dim=1) @ self.bank.T
        places = likeness.topk(min(self.k, len(self.bank)), dim=1).indices
        return functional.one_hot(self.label[places], self.classes).double().mean(1)


class Probe(Classes):
    """Logistic regression (fixed penalty) and k nearest neighbours (cosine) on pooled features; nothing is chosen.

    BatchNorm's statistics are taken of the clean training images first, for every row alike. `none` is then the
    untrained encoder, or the one that `--init` gives; `none-long` has no meaning, since no step is taken. The inner
    validation images are left out of the fit, as they are of a fine-tune: their score stands in the record. The columns
    without a prefix are the linear model's.

    Args:
        k: how many neighbours vote, or all images where there are fewer.
    """

    metrics = (
        "linear_accuracy", "linear_balanced_accuracy", "linear_log_loss", "linear_brier",
        "knn_accuracy", "knn_balanced_accuracy",
    )  # fmt: skip
    primary = "linear_balanced_accuracy"

    def __init__(self, k: int = 20) -> None:
        if k < 1:
            raise ValueError(f"k is {k}: at least 1")
        self.k = k

    def adapt(self, network: Network) -> Reader:
        """Encoder, linear model and bank."""
        return Reader(network.encoder, len(self.classes), self.k)

    def fit(self, model: nn.Module, features: Tensor, label: Tensor) -> float:
        """Both read-outs of one label fraction; returns the linear model's log loss on it."""
        assert isinstance(model, Reader)
        plain, target = features.cpu().double().numpy(), label.cpu().numpy()
        fitted = linear_model(plain, target)
        scaler, regression = fitted[0], fitted[1]
        coef, intercept = regression.coef_, regression.intercept_
        if len(coef) == 1:  # of two classes scikit-learn keeps one row, the second's logit against the first's
            coef, intercept = np.concatenate([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
        every = np.zeros((model.classes, plain.shape[1])), np.full(model.classes, -np.inf)  # a class not seen: never
        for whole, part in zip(every, (coef, intercept), strict=True):
            whole[regression.classes_] = part
        tensors = {"coef": every[0], "intercept": every[1], "mean": scaler.mean_, "scale": scaler.scale_}
        for name, value in tensors.items():
            setattr(model, name, torch.from_numpy(np.ascontiguousarray(value)).to(features.device))
        model.bank = functional.normalize(features.double(), dim=1)
        model.label = label.clone()
        return float(log_loss(target, fitted.predict_proba(plain), labels=regression.classes_))

    def inner(self, output: Tensor, batch: Labelled) -> Tensor:
        """The linear model's, a part for each class."""
        return recalls(output[:, 0].argmax(1) == batch.label, batch.label, len(self.classes))

    def predict(self, output: Tensor, size: int) -> Tensor:
        """(N, 2, classes) probabilities."""
        return output

    def tabulate(self, predicted: np.ndarray, label: np.ndarray, video: np.ndarray) -> dict[str, np.ndarray]:
        """The linear model's class and probabilities, the neighbours', and the metrics of both."""
        linear, near = predicted[:, 0], predicted[:, 1]
        columns = self.named(linear)
        columns |= {f"knn_{name}": values for name, values in self.named(near).items()}
        columns |= {f"linear_{name}": values for name, values in score_classes(linear, label).items()}
        scores = score_classes(near, label)
        return columns | {f"knn_{name}": scores[name] for name in ("accuracy", "balanced_accuracy")}
