"""Linear read-outs of frozen features: what an encoder knows before anybody fine-tunes it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from usbench.contracts import Network, pooled
from usbench.data.feed import Feed
from usbench.train.loop import Compute
from usbench.train.passes import EVALUATION_BATCH, clean_statistics, deepest_maps

__all__ = [
    "area_model", "area_skill", "cell_features", "cell_lesions", "clean_statistics", "image_features", "lesion_auc",
    "lesion_share", "linear_model",
]  # fmt: skip

SIDE = 16  # cells along an image in a dense read-out
PENALTY = 0.1  # of the linear model, the same for every row: nothing is chosen
RIDGES = np.logspace(
    -1, 4, 11
)  # penalties of the read-out of area, chosen by leaving out training images one at a time


def cell_features(network: Network, feed: Feed, compute: Compute) -> np.ndarray:
    """(images, cells, dim) the deepest map, brought to SIDE × SIDE cells."""
    parts = []
    for level in deepest_maps(network.encoder, feed, compute):
        cells = functional.interpolate(level, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        parts.append(cells.flatten(2).transpose(1, 2).cpu().numpy())
    return np.concatenate(parts)


def cell_lesions(feed: Feed) -> np.ndarray:
    """(images, cells) whether more than half of a cell is lesion."""
    cells = [functional.interpolate(lesion / 255, size=(SIDE, SIDE), mode="area") for lesion in _lesions(feed)]
    return (torch.cat(cells).flatten(1) > 0.5).numpy()


def linear_model(features: np.ndarray, target: np.ndarray) -> Pipeline:
    """A logistic regression on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=300)).fit(features, target)


def lesion_auc(features: np.ndarray, lesions: np.ndarray, model: Pipeline) -> np.ndarray:
    """(images,) how well the model ranks an image's lesion cells above its others; NaN where it has but one kind."""
    score = model.decision_function(features.reshape(-1, features.shape[-1])).reshape(lesions.shape)
    some = lesions.any(axis=1) & ~lesions.all(axis=1)
    found = np.full(len(lesions), np.nan)
    found[some] = [roc_auc_score(truth, of) for truth, of in zip(lesions[some], score[some], strict=True)]
    return found


def image_features(network: Network, feed: Feed, compute: Compute) -> np.ndarray:
    """(images, dim) what every image-level head is given: the deepest map, averaged."""
    return np.concatenate([pooled([level]).cpu().numpy() for level in deepest_maps(network.encoder, feed, compute)])


def lesion_share(feed: Feed) -> np.ndarray:
    """(images,) the share of each image that is lesion."""
    return torch.cat([lesion.mean((1, 2, 3)) / 255 for lesion in _lesions(feed)]).numpy()


def _lesions(feed: Feed) -> Iterator[Tensor]:
    """(n, 1, side, side) from 0 to 255, of all images, a batch at a time, on the host."""
    mask = feed.mask
    assert mask is not None
    for rows in feed.in_turn(np.arange(feed.count), EVALUATION_BATCH, mask):
        yield feed.take(mask, rows).cpu().float()


def area_model(features: np.ndarray, share: np.ndarray) -> Pipeline:
    """A ridge regression on standardised features."""
    return make_pipeline(StandardScaler(), RidgeCV(RIDGES)).fit(features, share)


def area_skill(features: np.ndarray, share: np.ndarray, model: Pipeline) -> np.ndarray:
    """(images,) one minus the squared error, in units of the variance: the mean over images is R²."""
    return 1 - (model.predict(features) - share) ** 2 / share.var()
