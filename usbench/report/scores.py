"""The per-image scores of a row, its seeds side by side, and the numbers that are made of them alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from usbench.errors import UsbenchError
from usbench.evaluate.classification import balancing, expected_calibration_error
from usbench.evaluate.statistics import Estimate, Strata, crossed_interval
from usbench.report.columns import DISTANCES
from usbench.report.results import Result

NOTHING = Estimate(math.nan, math.nan, math.nan, math.nan)
PROBABILITY = "p_"  # the columns of a class's probability
BALANCED = "balanced_"  # what stands in a metric's name before that which it balances


@dataclass(frozen=True)
class Scores:
    """The scores of the images that count, the seeds side by side."""

    names: np.ndarray
    groups: np.ndarray  # a patient is one group within a test set only, so the set's name stands before it
    values: dict[str, np.ndarray]  # metric → (images, seeds)
    strata: dict[str, Strata]  # of the metrics whose mean is one of classes: their values are what is right, unweighted
    videos: np.ndarray | None  # an image of no video is a video of its own
    normals: np.ndarray  # (normal images, seeds) their predicted areas
    calibration: float
    lesions: bool  # whether only lesion images count


def side_by_side(results: Sequence[Result], metrics: Sequence[str]) -> Scores:
    """The scores of a row's seeds, which must list the same images."""
    tables = [result.scores() for result in results]
    first = tables[0]
    for result, table in zip(results, tables, strict=True):
        if lacking := [c for c in ("name", "group") if c not in table]:
            raise UsbenchError(f"{result.folder / 'scores.csv'} has no column '{lacking[0]}': delete the folder.")
        if not np.array_equal(first["name"].to_numpy(), table["name"].to_numpy()):
            raise UsbenchError(
                f"{result.folder.name} and {results[0].folder.name} list other images: delete both folders, run again."
            )
    told = "lesion" in first
    lesions = first.lesion.to_numpy(bool) if told else np.ones(len(first), bool)
    prefix = f"{results[0].row['test_data']}/"
    names, groups = first["name"].to_numpy()[lesions], (prefix + first["group"].astype(str)).to_numpy()[lesions]

    def stacked(column: str, rows: np.ndarray) -> np.ndarray:
        parts = [_numbers(t[column]) if column in t else np.full(len(t), np.nan) for t in tables]
        return np.stack(parts, 1)[rows]

    values = {metric: stacked(metric, lesions) for metric in dict.fromkeys(metrics)}
    # Classes weigh alike among all images that count: those of several folds are balanced together.
    strata = {}
    for metric in values:
        plain = metric.replace(BALANCED, "")
        if BALANCED in metric and plain in first and "label" in first:
            values[metric] = stacked(plain, lesions)
            codes, _ = pd.factorize(first.label.to_numpy()[lesions])
            strata[metric] = balancing(codes, ~np.isnan(values[metric]).any(axis=1))
    if "pixel_mm" in first:
        millimetres = _numbers(first.pixel_mm)[lesions, None]
        values |= {f"{m}_mm": values[m] * millimetres for m in DISTANCES if m in values}
    videos = None
    if "video" in first and first.video.notna().any():
        filmed = first.video[lesions]
        videos = np.where(filmed.notna(), "v/" + filmed.astype(str), "i/" + pd.Series(names, filmed.index))
    return Scores(
        names, groups, values, strata, videos, stacked("area_predicted", ~lesions),
        float(np.nanmean(errors)) if (errors := [e for e in map(_calibration, tables) if e == e]) else math.nan, told,
    )  # fmt: skip


def _numbers(column: pd.Series) -> np.ndarray:
    """A column as numbers; what is none, or is infinite, is unknown."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _calibration(table: pd.DataFrame) -> float:
    """The calibration error of one seed; a label is the place of its class among the probabilities, or its name."""
    classes = [name for name in table.columns if name.startswith(PROBABILITY)]
    if not classes or "label" not in table:
        return math.nan
    label = pd.to_numeric(table.label, errors="coerce")
    if label.isna().all():
        label = table.label.map({name.removeprefix(PROBABILITY): place for place, name in enumerate(classes)})
    return expected_calibration_error(table[classes].to_numpy(float), label.fillna(-1).to_numpy(int))


def mean_of(scores: Scores, metric: str) -> Estimate:
    """The mean over the images that count."""
    return (
        crossed_interval(scores.values[metric], scores.groups, strata=scores.strata.get(metric), share=True)
        if metric in scores.values
        else NOTHING
    )


def over_videos(scores: Scores, metric: str) -> Estimate:
    """The mean over videos, each the mean of its frames."""
    if scores.videos is None:
        return NOTHING
    codes, _ = pd.factorize(scores.videos)
    means = pd.DataFrame(scores.values[metric]).groupby(codes).mean().to_numpy()
    return crossed_interval(means, scores.groups[np.unique(codes, return_index=True)[1]], share=True)


def counts_of(scores: Scores) -> list[float]:
    """How many images and groups count, and the plain shares and means, in the order of `Cell.counts`."""
    distance = next((scores.values[m] for m in DISTANCES if m in scores.values), np.empty(0))
    areas = scores.normals[:, ~np.isnan(scores.normals).all(axis=0)] if scores.normals.size else scores.normals
    return [
        len(scores.names), len(np.unique(scores.groups)),
        float(np.isnan(distance).any(axis=1).mean()) if distance.size else math.nan,
        float((areas > 0).mean()) if areas.size else math.nan, float(areas.mean()) if areas.size else math.nan,
        scores.calibration, float(scores.lesions),
    ]  # fmt: skip
