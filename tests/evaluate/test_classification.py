"""Class probabilities: every column against a slow reference, and means that are the figures they are named for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from usbench.evaluate.classification import balancing, expected_calibration_error, score_classes, score_videos
from usbench.evaluate.statistics import crossed_interval


def drawn(count: int = 60, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    label = rng.choice(classes, count, p=[0.7, 0.2, 0.1])
    probability = rng.dirichlet(np.ones(classes), count) + 0.5 * np.eye(classes)[label]
    return probability / probability.sum(1, keepdims=True), label


def test_the_interval_of_a_balanced_accuracy_is_of_the_classes_shares_and_not_of_their_weights() -> None:
    label = np.repeat([0, 1], [90, 10])
    classes = balancing(label, np.ones(100, bool))
    perfect = crossed_interval(np.ones((100, 1)), np.arange(100), strata=classes)
    assert (perfect.mean, perfect.low, perfect.high) == (1, 1, 1)
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        right = (rng.random(100) < np.where(label, 0.6, 0.8)).astype(float)
        estimate = crossed_interval(right[:, None], np.arange(100), strata=classes)
        assert estimate.mean == pytest.approx(balanced_accuracy_score(label, np.where(right, label, 1 - label)))
        found.append((estimate.low, estimate.high))
    low, high = np.array(found).T
    assert 0.91 < np.mean((low <= 0.7) & (high >= 0.7)) < 0.99


def test_a_class_of_few_patients_leaves_a_mean_and_no_interval() -> None:
    label, right = np.repeat([0, 1], [50, 7]), np.tile([1.0, 0.0, 1.0], 19)[:, None]
    few = crossed_interval(right, np.arange(57), strata=balancing(label, np.ones(57, bool)))
    assert few.mean == pytest.approx((right[:50].mean() + right[50:].mean()) / 2)
    assert np.isnan([few.low, few.high, few.p]).all()
    assert crossed_interval(right, np.arange(57)).low < crossed_interval(right, np.arange(57)).high


def test_strata_of_one_weight_and_many_patients_in_all_of_them_are_the_plain_mean() -> None:
    rng = np.random.default_rng(0)
    values, groups, codes = rng.random((400, 3)), np.repeat(np.arange(200), 2), np.tile([0, 1], 200)
    plain = crossed_interval(values, groups)
    halves = crossed_interval(values, groups, strata=balancing(codes, np.ones(400, bool)))
    assert halves.mean == pytest.approx(plain.mean) and halves.high == pytest.approx(plain.high, abs=2e-3)


def test_means_of_the_columns_are_the_figures_of_scikit_learn() -> None:
    probability, label = drawn()
    means = {name: values.mean() for name, values in score_classes(probability, label).items()}
    predicted = probability.argmax(1)
    assert means["accuracy"] == pytest.approx(accuracy_score(label, predicted))
    assert means["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, predicted))
    assert means["log_loss"] == pytest.approx(log_loss(label, probability))


def test_each_image_has_its_own_log_loss_and_brier_score() -> None:
    probability, label = drawn()
    scores = score_classes(probability, label)
    for i in range(len(label)):
        assert scores["log_loss"][i] == pytest.approx(-math.log(probability[i, label[i]]))
        brier = sum((probability[i, c] - (c == label[i])) ** 2 for c in range(3))
        assert scores["brier"][i] == pytest.approx(brier)


def test_a_surely_wrong_image_costs_much_and_not_infinitely_much() -> None:
    scores = score_classes(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([1, 0]))
    assert scores["log_loss"].tolist() == pytest.approx([-math.log(1e-7), 0.0])


def test_a_class_without_an_image_does_not_count() -> None:
    probability = np.array([[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    assert score_classes(probability, np.array([0, 0, 1]))["balanced_accuracy"].mean() == pytest.approx(1.0)


def test_a_video_is_judged_by_the_mean_over_its_frames_and_counts_once() -> None:
    probability, label = drawn()
    video = np.array([f"v{i // 4}" if i < 40 else "" for i in range(60)])
    for start in range(0, 40, 4):
        label[start : start + 4] = label[start]
    scores = score_videos(probability, label, video)
    right, truth, first = [], [], []
    for rows in [*(list(range(s, s + 4)) for s in range(0, 40, 4)), *([i] for i in range(40, 60))]:
        mean = [sum(probability[i, c] for i in rows) / len(rows) for c in range(3)]
        right.append(float(mean.index(max(mean)) == label[rows[0]]))
        truth.append(label[rows[0]])
        first.append(rows[0])
    assert scores["video_accuracy"][first].tolist() == right
    assert np.isnan(np.delete(scores["video_accuracy"], first)).all()
    recalls = [np.mean([r for r, t in zip(right, truth, strict=True) if t == c]) for c in set(truth)]
    assert np.nanmean(scores["video_balanced_accuracy"]) == pytest.approx(np.mean(recalls))


def test_the_calibration_error_equals_a_loop_over_bins() -> None:
    rng = np.random.default_rng(0)
    probability = rng.dirichlet([1, 1, 1], 400)
    label = np.array([rng.choice(3, p=p) for p in probability])
    label[:10], probability[10, 0] = -1, np.nan
    expected = 0.0
    kept = range(11, 400)
    for low in np.arange(15) / 15:
        inside = [i for i in kept if low < probability[i].max() <= low + 1 / 15]
        if inside:
            confidence = np.mean([probability[i].max() for i in inside])
            right = np.mean([probability[i].argmax() == label[i] for i in inside])
            expected += len(inside) / len(kept) * abs(confidence - right)
    assert expected_calibration_error(probability, label) == pytest.approx(expected)
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert expected_calibration_error(certain, np.array([0, 1])) == 0
    assert expected_calibration_error(certain, np.array([1, 0])) == 1
    assert np.isnan(expected_calibration_error(certain, np.array([-1, -1])))
