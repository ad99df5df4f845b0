"""Scores of predicted class probabilities: columns of one value an image whose means are the figures of a set."""

from __future__ import annotations

import numpy as np

from usbench.evaluate.statistics import Strata

LEAST = 1e-7  # of a probability under the logarithm: one image that is surely wrong costs 16.1

BINS = 15  # of a calibration error
METRICS = ("accuracy", "balanced_accuracy", "log_loss", "brier")


def balanced(right: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(N,) 1 for right and 0 for wrong, weighted so that the mean is the balanced accuracy.

    A class of n of the N images weighs N / (classes · n) each; classes without an image do not count.
    """
    counts = np.bincount(label)
    return right * len(label) / (np.count_nonzero(counts) * counts[label])


def balancing(label: np.ndarray, known: np.ndarray) -> Strata:
    """The classes of images as strata of one weight, with which the mean of what is right is the balanced accuracy.

    Args:
        label: (N,) classes, numbered.
        known: (N,) which of the images have a value; the others are in nobody's mean.
    """
    weights = np.zeros(len(label))
    weights[known] = balanced(np.ones(known.sum()), label[known])
    return Strata(label, weights)


def score_classes(probability: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics of each image: accuracy, balanced accuracy, log loss, and Brier's score summed over the classes."""
    right = (probability.argmax(1) == label).astype(float)
    of_label = probability[np.arange(len(label)), label].astype(float)
    truth = np.eye(probability.shape[1])[label]
    return {
        "accuracy": right,
        "balanced_accuracy": balanced(right, label),
        "log_loss": 0.0 - np.log(of_label.clip(LEAST)),
        "brier": np.square(probability - truth).sum(1),
    }


def score_videos(probability: np.ndarray, label: np.ndarray, video: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracy of videos, whose probability is the mean over their frames; an image without one is its own.

    A video's value stands at its first image in the set and NaN at its others, so that means are over videos. Its label
    is that of its first image.
    """
    own = np.array([name or f"\0{row}" for row, name in enumerate(video)])
    _, first, of = np.unique(own, return_index=True, return_inverse=True)
    mean = np.stack([np.bincount(of, weights=column) for column in probability.T], 1) / np.bincount(of)[:, None]
    right = (mean.argmax(1) == label[first]).astype(float)
    columns = {"video_accuracy": right, "video_balanced_accuracy": balanced(right, label[first])}
    found = {name: np.full(len(label), np.nan) for name in columns}
    for name, values in columns.items():
        found[name][first] = values
    return found


def expected_calibration_error(probability: np.ndarray, label: np.ndarray) -> float:
    """How far the confidence in the likeliest class lies from how often it is right, over 15 bins of equal width.

    Each bin counts by its share of the images (Naeini et al., AAAI 2015; Guo et al., ICML 2017). An image whose label
    is unknown (−1) or whose probability is NaN is left out; NaN where none is left.

    Args:
        probability: (N, classes).
        label: (N,) the place of the true class.
    """
    known = (label >= 0) & ~np.isnan(probability).any(axis=1)
    if not known.any():
        return float("nan")
    confidence = probability[known].max(axis=1)
    right = probability[known].argmax(axis=1) == label[known]
    # Bins are open on the left: a confidence on an edge belongs to the bin below.
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))
