"""Scores one predicted binary mask against its truth, and packs masks so that any score can be made again.

The surface metrics follow MONAI's definitions (the tests hold them equal): a border is the mask less its erosion by a
cross, and pixels beyond the image count as background, so a mask that touches the image's edge has a border there.
"""

import numpy as np
import scipy  # its parts are loaded when they are first used, which is never where only names are wanted

METRICS = ("dice", "iou", "hd95", "assd", "surface_dice", "precision", "recall")
CALIBRATION, BINS = "calibration_error", 10

_NAN = float("nan")

# A distance to a border that does not exist is undefined: it is NaN, never 0 and never a made-up penalty, and whoever
# averages must say how many images were left out. Every overlap score is defined for every image:
# - recall is 1 where there is nothing to find: it depends on the truth alone there, so it is the same for every row;
# - precision is 1 for silence about a normal image, but 0 for silence about a lesion: a network that says nothing
#   must not buy precision with it.
_EMPTY: dict[tuple[bool, bool], dict[str, float]] = {
    (True, True): dict(zip(METRICS, (1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0), strict=True)),
    (True, False): dict(zip(METRICS, (0.0, 0.0, _NAN, _NAN, 0.0, 0.0, 1.0), strict=True)),
    (False, True): dict(zip(METRICS, (0.0, 0.0, _NAN, _NAN, 0.0, 0.0, 0.0), strict=True)),
}

EMPTY_MASK_CONVENTION: list[dict[str, str | float]] = [
    {
        "truth": "empty" if truth_empty else "not empty",
        "prediction": "empty" if prediction_empty else "not empty",
        **values,
    }
    for (truth_empty, prediction_empty), values in _EMPTY.items()
]
"""What each metric is where a mask is empty: one row a case, ready to print."""


def score_mask(
    predicted: np.ndarray, truth: np.ndarray, *, spacing: float = 1.0, tolerance: float = 2.0
) -> dict[str, float]:
    """Every metric of METRICS for one image, and both areas in mask pixels.

    Args:
        predicted: bool (H, W).
        truth: bool (H, W).
        spacing: native pixels (or mm) per mask pixel; ``hd95`` and ``assd`` come in this unit.
        tolerance: how far apart two borders may lie and still agree for ``surface_dice``, in the same unit.

    Returns:
        One float a metric, then ``area_predicted`` and ``area_truth``: on a normal image the first is the
        false-positive area. Where a mask is empty, EMPTY_MASK_CONVENTION holds.
    """
    _check(predicted, truth, spacing, tolerance)
    area_predicted, area_truth = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    areas = {"area_predicted": float(area_predicted), "area_truth": float(area_truth)}
    if not (area_predicted and area_truth):
        return {**_EMPTY[area_truth == 0, area_predicted == 0], **areas}
    hits = int(np.count_nonzero(predicted & truth))
    to_truth, to_predicted = (spacing * d for d in _border_distances(predicted, truth))
    both = np.concatenate([to_truth, to_predicted])
    return {
        "dice": 2 * hits / (area_predicted + area_truth),
        "iou": hits / (area_predicted + area_truth - hits),
        "hd95": float(max(np.percentile(to_truth, 95), np.percentile(to_predicted, 95))),
        "assd": float(both.mean()),
        # The slack keeps 3 × 0.1 within 0.3.
        "surface_dice": float(np.mean(both <= tolerance * (1 + 1e-6))),
        "precision": hits / area_predicted,
        "recall": hits / area_truth,
        **areas,
    }


def calibration_error(probability: np.ndarray, truth: np.ndarray, inside: np.ndarray) -> float:
    """The expected calibration error of an image: |mean probability − share of lesion| over bins of its pixels.

    The pixels `inside` fall into ten equal bins of probability, and a bin weighs as many pixels as it holds.
    """
    found = probability[inside].astype(np.float64)
    place = np.minimum((found * BINS).astype(np.int64), BINS - 1)
    expected, seen = (np.bincount(place, weights, BINS) for weights in (found, truth[inside].astype(np.float64)))
    return float(np.abs(expected - seen).sum() / len(found)) if len(found) else _NAN


def pack_masks(masks: np.ndarray) -> np.ndarray:
    """Bool (N, H, W) as bits: uint8 (N, ceil(H·W / 8)), one row an image."""
    if masks.ndim != 3 or masks.dtype != np.bool_:
        raise ValueError(f"masks must be bool (N, H, W), got {masks.dtype} {masks.shape}")
    count, height, width = masks.shape
    return np.packbits(masks.reshape(count, height * width), axis=1)


def unpack_masks(bits: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The bool (N, H, W) that ``pack_masks`` was given; ``shape`` is (H, W), the size of one mask."""
    height, width = shape
    expected = -(-height * width // 8)
    if bits.ndim != 2 or bits.dtype != np.uint8 or bits.shape[1] != expected:
        raise ValueError(
            f"masks of {height} × {width} take uint8 rows of {expected} bytes, got {bits.dtype} {bits.shape}"
        )
    return np.unpackbits(bits, axis=1, count=height * width).astype(bool).reshape(len(bits), height, width)


def _check(predicted: np.ndarray, truth: np.ndarray, spacing: float, tolerance: float) -> None:
    """Refuse what would be scored wrongly in silence."""
    for name, mask in (("predicted", predicted), ("truth", truth)):
        if mask.ndim != 2 or mask.dtype != np.bool_:
            raise ValueError(f"the {name} mask must be bool (H, W), got {mask.dtype} {mask.shape}")
    if predicted.shape != truth.shape:
        raise ValueError(f"the masks differ in size: predicted {predicted.shape}, truth {truth.shape}")
    if not (np.isfinite(spacing) and spacing > 0):
        raise ValueError(f"spacing must be a positive number, got {spacing}")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must not be negative, got {tolerance}")


def _border_distances(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From each border pixel of one mask to the other's nearest, both ways, in mask pixels; neither may be empty."""
    union = first | second
    rows, columns = np.flatnonzero(union.any(axis=1)), np.flatnonzero(union.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    border_a, border_b = _border(first[box]), _border(second[box])
    return _nearest(border_a, border_b), _nearest(border_b, border_a)


def _nearest(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """From each pixel of one border to the nearest of the other.

    Both ways are exact. A tree sees border pixels only: several times faster for an outline, as a trained network draws
    it. A transform sees the whole box, whatever is in it: it bounds the time for a speckled mask. The weights are those
    of asking and of building a tree, next to a pixel of the transform.
    """
    if 7 * np.count_nonzero(here) + 2 * np.count_nonzero(there) < here.size:
        points = np.argwhere(there)
        tree = scipy.spatial.KDTree(points, leafsize=32, balanced_tree=False, compact_nodes=False)  # quickly built
        return tree.query(np.argwhere(here))[0]
    return scipy.ndimage.distance_transform_edt(~there)[here]


def _border(mask: np.ndarray) -> np.ndarray:
    """The mask less its erosion by a cross; beyond the array lies background."""
    padded = np.zeros((mask.shape[0] + 2, mask.shape[1] + 2), dtype=bool)
    padded[1:-1, 1:-1] = mask
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner
