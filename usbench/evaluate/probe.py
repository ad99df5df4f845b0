"""Linear read-outs of frozen features: what an encoder knows before anybody fine-tunes it."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

from usbench.contracts import Network
from usbench.data.feed import Feed
from usbench.train.finetune import clean_statistics, deepest_maps
from usbench.train.loop import Compute

__all__ = ["cell_features", "cell_lesions", "clean_statistics", "lesion_auc", "linear_model"]

SIDE = 16  # cells along an image in a dense read-out
PENALTY = 0.1  # of the linear model, the same for every row: nothing is chosen


def cell_features(network: Network, feed: Feed, compute: Compute) -> np.ndarray:
    """(images, cells, dim) the deepest map, brought to SIDE × SIDE cells."""
    parts = []
    for level in deepest_maps(network.encoder, feed, compute):
        cells = functional.interpolate(level, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        parts.append(cells.flatten(2).transpose(1, 2).cpu().numpy())
    return np.concatenate(parts)


def cell_lesions(feed: Feed) -> np.ndarray:
    """(images, cells) whether more than half of a cell is lesion."""
    assert feed.mask is not None
    share = functional.interpolate(feed.mask.float().cpu() / 255, size=(SIDE, SIDE), mode="area")
    return (share.flatten(1) > 0.5).numpy()


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
