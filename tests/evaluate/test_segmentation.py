import itertools
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from usbench.evaluate.segmentation import (
    EMPTY_MASK_CONVENTION,
    METRICS,
    calibration_error,
    pack_masks,
    score_mask,
    unpack_masks,
)


def blob(rng: np.random.Generator, shape: tuple[int, int], share: float, smoothness: float) -> np.ndarray:
    """Smooth noise above a quantile: lobes, holes and islands, some of them cut by the image's edge."""
    noise = gaussian_filter(rng.normal(size=shape), smoothness)
    return noise >= np.quantile(noise, 1 - share)


def random_pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """From near-agreement to none, from one outline to speckle."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        shape = (int(rng.integers(20, 80)), int(rng.integers(20, 80)))
        truth = blob(rng, shape, rng.uniform(0.01, 0.5), rng.uniform(0.5, 8))
        other = blob(rng, shape, rng.uniform(0.01, 0.5), rng.uniform(0.5, 8))
        shifted = np.roll(truth, tuple(rng.integers(-4, 5, 2)), axis=(0, 1))
        pairs.append((shifted if rng.random() < 0.5 else other, truth))
    return pairs


def square(size: int = 32, start: int = 10, stop: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[start:stop, start:stop] = True
    return mask


@pytest.mark.parametrize(("spacing", "tolerance"), [(1.0, 2.0), (0.37, 1.0), (2.5, 5.0)])
def test_every_metric_equals_monais(spacing, tolerance):
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")

    for predicted, truth in random_pairs(40):
        a, b = (torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth))
        confusion = metrics.get_confusion_matrix(a, b, include_background=True)
        expected = {
            "dice": metrics.compute_dice(a, b, include_background=True),
            "iou": metrics.compute_iou(a, b, include_background=True),
            "hd95": metrics.compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=spacing),
            "assd": metrics.compute_average_surface_distance(
                a, b, include_background=True, symmetric=True, spacing=spacing
            ),
            "surface_dice": metrics.compute_surface_dice(
                a, b, class_thresholds=[tolerance], include_background=True, spacing=spacing
            ),
            "precision": metrics.compute_confusion_matrix_metric("precision", confusion),
            "recall": metrics.compute_confusion_matrix_metric("sensitivity", confusion),
        }
        scores = score_mask(predicted, truth, spacing=spacing, tolerance=tolerance)
        for metric in METRICS:
            assert scores[metric] == pytest.approx(float(expected[metric]), rel=1e-5, abs=1e-5), metric


def test_surface_metrics_equal_a_loop_over_border_pixels():
    def border(mask: np.ndarray) -> list[tuple[int, int]]:
        points = []
        for y, x in itertools.product(*map(range, mask.shape)):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [0 <= v < mask.shape[0] and 0 <= u < mask.shape[1] and mask[v, u] for v, u in around]
            if mask[y, x] and not all(inside):
                points.append((y, x))
        return points

    for predicted, truth in random_pairs(4):
        first, second = border(predicted), border(truth)
        there = [min(np.hypot(y - v, x - u) for v, u in second) for y, x in first]
        back = [min(np.hypot(y - v, x - u) for v, u in first) for y, x in second]
        scores = score_mask(predicted, truth)
        assert scores["hd95"] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
        assert scores["assd"] == pytest.approx(np.mean(there + back))
        assert scores["surface_dice"] == pytest.approx(np.mean(np.array(there + back) <= 2))


def test_scores_hold_all_metrics_and_both_areas_in_mask_pixels():
    scores = score_mask(square(stop=15), square(), spacing=3.0)
    assert tuple(scores) == (*METRICS, "area_predicted", "area_truth")
    assert all(type(value) is float for value in scores.values())
    assert (scores["area_predicted"], scores["area_truth"]) == (25.0, 100.0)


def test_equal_masks_score_perfectly():
    scores = score_mask(square(), square())
    assert [scores[metric] for metric in METRICS] == [1, 1, 0, 0, 1, 1, 1]


def test_metrics_do_not_depend_on_the_order_of_the_masks_but_for_precision_and_recall():
    for predicted, truth in random_pairs(5):
        there, back = score_mask(predicted, truth), score_mask(truth, predicted)
        for metric in ("dice", "iou", "hd95", "assd", "surface_dice"):
            assert there[metric] == pytest.approx(back[metric])
        assert there["precision"] == back["recall"]


@pytest.mark.parametrize(
    "row", EMPTY_MASK_CONVENTION, ids=lambda r: f"truth {r['truth']}, prediction {r['prediction']}"
)
def test_empty_masks_score_as_the_convention_says(row):
    nothing = np.zeros((32, 32), dtype=bool)
    truth = nothing if row["truth"] == "empty" else square()
    predicted = nothing if row["prediction"] == "empty" else square(start=3, stop=7)
    scores = score_mask(predicted, truth)
    assert scores["area_predicted"] == predicted.sum()
    assert scores["area_truth"] == truth.sum()
    for metric in METRICS:
        np.testing.assert_equal(scores[metric], row[metric], err_msg=metric)


def test_the_convention_is_this_table():
    nan = float("nan")
    expected = [
        # truth, prediction: dice, iou, hd95, assd, surface_dice, precision, recall
        ("empty", "empty", 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0),
        ("empty", "not empty", 0.0, 0.0, nan, nan, 0.0, 0.0, 1.0),
        ("not empty", "empty", 0.0, 0.0, nan, nan, 0.0, 0.0, 0.0),
    ]
    np.testing.assert_equal([tuple(row.values()) for row in EMPTY_MASK_CONVENTION], expected)


def test_spacing_scales_distances_only():
    for predicted, truth in random_pairs(10):
        once = score_mask(predicted, truth, tolerance=2.0)
        twice = score_mask(predicted, truth, tolerance=4.0, spacing=2.0)
        for name, value in once.items():
            assert twice[name] == pytest.approx(2 * value if name in ("hd95", "assd") else value), name


def test_the_tolerance_includes_a_border_that_far_away():
    # Three steps of 0.1 are 0.30000000000000004.
    predicted, truth = np.zeros((2, 20, 20), dtype=bool)
    predicted[5, 5] = truth[5, 8] = True
    assert score_mask(predicted, truth, spacing=0.1, tolerance=0.3)["surface_dice"] == 1.0
    assert score_mask(predicted, truth, spacing=0.1, tolerance=0.29)["surface_dice"] == 0.0


@pytest.mark.parametrize(
    ("predicted", "truth", "options", "message"),
    [
        (square().astype(np.uint8), square(), {}, "predicted mask must be bool"),
        (square(), square()[None], {}, "truth mask must be bool"),
        (square(32), square(40), {}, "differ in size"),
        (square(), square(), {"spacing": 0.0}, "spacing"),
        (square(), square(), {"spacing": float("nan")}, "spacing"),
        (square(), square(), {"tolerance": -1.0}, "tolerance"),
    ],
)
def test_what_would_be_scored_wrongly_is_refused(predicted, truth, options, message):
    with pytest.raises(ValueError, match=message):
        score_mask(predicted, truth, **options)


@pytest.mark.parametrize("shape", [(3, 8, 8), (5, 7, 3), (1, 1, 1), (2, 13, 17), (0, 5, 5), (4, 224, 223)])
def test_packed_masks_come_back_bit_for_bit(shape):
    masks = np.random.default_rng(0).random(shape) < 0.5
    bits = pack_masks(masks)
    assert bits.dtype == np.uint8
    assert bits.shape == (shape[0], -(-shape[1] * shape[2] // 8))
    back = unpack_masks(bits, shape[1:])
    assert back.dtype == np.bool_
    np.testing.assert_array_equal(back, masks)


def test_an_image_can_be_unpacked_alone():
    masks = np.random.default_rng(0).random((4, 9, 5)) < 0.5
    np.testing.assert_array_equal(unpack_masks(pack_masks(masks)[2:3], (9, 5))[0], masks[2])


def test_bits_of_another_size_are_refused():
    with pytest.raises(ValueError, match="9 × 9 take uint8 rows of 11 bytes"):
        unpack_masks(pack_masks(np.zeros((2, 8, 8), dtype=bool)), (9, 9))
    with pytest.raises(ValueError, match="must be bool"):
        pack_masks(np.zeros((2, 8, 8)))


def test_scoring_does_not_import_torch():
    code = "import sys, usbench.evaluate.segmentation, usbench.evaluate.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_calibration_error_is_that_of_a_loop_over_the_bins() -> None:
    rng = np.random.default_rng(0)
    probability, truth = rng.random((40, 50)), rng.random((40, 50)) < 0.3
    probability[0, :2] = 0.0, 1.0
    inside = rng.random((40, 50)) < 0.8
    pairs = list(zip(probability[inside], truth[inside], strict=True))
    expected = 0.0
    for place in range(10):
        some = [(p, t) for p, t in pairs if place / 10 <= p < (place + 1) / 10 or (place == 9 and p == 1)]
        expected += abs(sum(p for p, _ in some) - sum(t for _, t in some)) / len(pairs)
    assert calibration_error(probability, truth, inside) == pytest.approx(expected)
    assert calibration_error(truth.astype(float), truth, inside) == 0
