"""Intervals, tests and ranks that do not claim more than a few seeds and patients can carry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy  # its parts are loaded when they are first used: together they take longer than a table of cached rows

_SMALLEST_P = 1e-100
LEAST_OF_STRATUM = 8  # equal patients: of fewer, how they vary is not known well enough for an interval


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its interval, and the two-sided p that it is 0 (NaN with one seed)."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Strata:
    """What makes a mean over images one of strata, such as classes: each has a weight, whatever images are of it."""

    codes: np.ndarray  # (images,) the stratum of each, numbered
    weights: np.ndarray  # (images,) an image's part of its stratum's weight: the same for all images of a stratum

    @staticmethod
    def joined(parts: Sequence["Strata | None"]) -> "Strata | None":
        """Those of several sets of images, one after the other; none where one of these has none."""
        known = [part for part in parts if part is not None]
        if not known or len(known) < len(parts):
            return None
        offsets = np.cumsum([0, *(part.codes.max(initial=-1) + 1 for part in known)])
        codes = np.concatenate([part.codes + offset for part, offset in zip(known, offsets, strict=False)])
        return Strata(codes, np.concatenate([part.weights for part in known]))


def crossed_interval(
    values: np.ndarray, groups: np.ndarray, *, strata: Strata | None = None, share: bool = False, level: float = 0.95
) -> Estimate:
    """The mean over images, with an interval that holds for new patients and for new seeds.

    Every seed tests the same patients, so the two are crossed, and the variance of the mean has two parts:

    - *patients*, the variance of the patients' true effects: MS(patients) − MS(patient × seed), not below 0;
    - *seeds*, all that new seeds would redraw, their main effect and their interaction with patients: the variance
      of the seeds' own means.

    Their sum is the usual crossed estimate. Each part takes the t quantile of its own degrees of freedom, G − 1 and
    S − 1: half-width² = t²(G − 1) · patients + t²(S − 1) · seeds. Patients of many images count as fewer: G is the
    number of equal patients that would be as much evidence, (Σn)² / Σn². Pooling the two parts into one Satterthwaite t
    instead covers too little, as with three seeds the degrees of freedom themselves are guessed from two: where the
    seeds' variance happens to come out small, the interval is too short and too sure of itself at once.
    The p is the level at which the interval just reaches 0, so the two never disagree.

    With strata the mean is that of the strata's means, and each is as sure as its own patients are many: the patients'
    part is the sum over the strata, and takes their quantiles in proportion to what each of them brings.

    A share of images that are right varies little among few images when nearly all of them are right or wrong, which
    shows how few they are and not how sure it is: of it, and of each of its strata, the patients' part is not below
    that of as many independent images in which two more were right and two more wrong (Agresti and Coull, 1998).

    With one seed the interval is over patients only, and p is NaN: no test is made from one seed.
    With fewer than two groups, counted so, or fewer than eight in a stratum, there is no interval: low, high and p are
    NaN.

    Args:
        values: (images, seeds); an image that is NaN for any seed is dropped for all.
        groups: (images,), the patient (or group of patients) of each image; int or str.
        strata: of the images; none for the plain mean.
        share: the mean is one of images that are right, so that values may be 1 or 0; of a difference it is none.
        level: the interval's coverage.
    """
    values, codes, kept = _complete_images(values, groups)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    nan = float("nan")
    if values.size == 0:
        return Estimate(nan, nan, nan, nan)
    parts = [_part(values, codes)]
    if strata is not None:
        of, weights = strata.codes[kept], strata.weights[kept]
        weights, most = weights / weights.sum(), codes.max() + 1
        parts = [_part(values[rows], codes[rows], most, weights[rows].sum()) for rows in of == np.unique(of)[:, None]]
    seed_means, seed_count = np.sum([part.means for part in parts], axis=0), values.shape[1]
    mean = float(np.mean(seed_means))
    if any(part.freedom < (1 if strata is None else LEAST_OF_STRATUM - 1) for part in parts):
        return Estimate(mean, nan, nan, nan)

    lacking = np.zeros(len(parts))
    if share and np.isin(values, (0, 1)).all():
        lacking = np.array([max(part.least - _of_patients(part.deviations), 0.0) for part in parts])
    brought = np.array([np.square(part.deviations.mean(axis=1)).sum() for part in parts]) + lacking
    brought = brought / brought.sum() if brought.any() else brought
    freedoms = np.array([part.freedom for part in parts])
    patients = _of_patients(np.sum([part.deviations for part in parts], axis=0)) + float(lacking.sum())
    seeds = float(np.var(seed_means, ddof=1)) / seed_count if seed_count > 1 else 0.0

    def half_width(alpha: float) -> float:
        squared = float(brought @ scipy.special.stdtrit(freedoms, alpha / 2) ** 2) * patients
        if seed_count > 1:
            squared += scipy.special.stdtrit(seed_count - 1, alpha / 2) ** 2 * seeds
        return float(np.sqrt(squared))

    half = half_width(1 - level)
    p = _p_where_interval_reaches(abs(mean), half_width) if seed_count > 1 else nan
    return Estimate(mean, mean - half, mean + half, p)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm-adjusted p-values; a NaN is no test: it stays NaN and does not count."""
    p = np.asarray(p, dtype=float)
    if np.any((p < 0) | (p > 1)):
        raise ValueError("p-values must lie between 0 and 1")
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted


def signed_rank(values: np.ndarray, groups: np.ndarray) -> float:
    """Wilcoxon's signed-rank p over the patients' mean differences, for readers who ask for it.

    It averages the seeds away and so does not know that another seed would give other numbers: `crossed_interval`
    makes the claim, and this p stands beside it.
    """
    values, codes, _ = _complete_images(values, groups)
    of_patients = np.bincount(codes, weights=values.mean(axis=1)) / np.bincount(codes) if len(codes) else np.empty(0)
    of_patients = of_patients[of_patients != 0]
    return float(scipy.stats.wilcoxon(of_patients).pvalue) if len(of_patients) else float("nan")


def mean_ranks(table: pd.DataFrame) -> pd.Series:
    """Each method's rank averaged over conditions: 1 is best, higher values are better, ties share their mean rank.

    Rows are methods, columns are conditions. Only conditions that every method has count: a method must not rise
    because it was left out of a hard one. Without such a condition every rank is NaN.
    """
    return table.dropna(axis="columns").rank(axis="index", ascending=False, method="average").mean(axis="columns")


def _complete_images(values: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images that have a value for every seed, their groups numbered from 0 without gaps, and which they are."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or len(values) != len(groups):
        raise ValueError(
            f"values must be (images, seeds) with one group an image, got {values.shape} and {len(groups)} groups"
        )
    if np.isinf(values).any():
        raise ValueError("a value is infinite: give NaN where a score is not defined")
    keep = ~np.isnan(values).any(axis=1)
    codes, _ = pd.factorize(np.asarray(groups)[keep])
    if (codes < 0).any():
        raise ValueError("an image has no group: without one it cannot be told from its patient's other images")
    return values[keep], codes, keep


@dataclass(frozen=True)
class _Part:
    """What the images of a stratum, or all images, bring to a mean."""

    means: np.ndarray  # (seeds,) of a seed, times the stratum's share
    deviations: np.ndarray  # (groups, seeds) whose squares sum to the variance of the mean
    freedom: float
    least: float  # the variance of as many independent images, if values are 1 for right and 0 for wrong


def _part(values: np.ndarray, codes: np.ndarray, groups: int = 0, share: float = 1.0) -> _Part:
    """Patients have different numbers of images, so the mean is a ratio (sum of totals over sum of counts). It is made
    linear: each patient stands with their total's deviation from what their count of images would give. A patient of
    many images draws the mean towards them, and so deviates too little: each deviation is what it would be from a mean
    without them, which makes the patients' part the jackknife's that leaves out a patient at a time.
    """
    counts = np.bincount(codes, minlength=groups).astype(float)
    totals = np.stack([np.bincount(codes, weights=column, minlength=groups) for column in values.T], axis=1)
    means = values.mean(axis=0)
    whole, there = counts.sum(), np.count_nonzero(counts)
    freedom = float(whole**2 / np.square(counts).sum()) - 1
    right = (float(values.mean()) * whole + 2) / (whole + 4)
    least = share**2 * right * (1 - right) / (whole + 4)
    if freedom < 1:  # one patient has nearly all, and there is no mean without them
        return _Part(share * means, np.zeros_like(totals), freedom, least)
    scale = share * np.sqrt((there - 1) / there) / (whole - counts)
    return _Part(share * means, (totals - counts[:, None] * means) * scale[:, None], freedom, least)


def _of_patients(deviations: np.ndarray) -> float:
    """The patients' part of the variance of the mean, from their deviations in each seed."""
    of_all, seed_count = deviations.mean(axis=1), deviations.shape[1]
    patients = float(np.square(of_all).sum())
    if seed_count == 1:
        return patients
    interaction = float(np.square(deviations - of_all[:, None]).sum()) / (seed_count - 1)
    return max(patients - interaction / seed_count, 0.0)


def _p_where_interval_reaches(distance: float, half_width: Callable[[float], float]) -> float:
    """The two-sided level alpha at which the half-width equals the distance."""
    if distance == 0:
        return 1.0
    if half_width(_SMALLEST_P) <= distance:
        return 0.0

    def beyond(log_alpha: float) -> float:
        return half_width(np.exp(log_alpha)) - distance

    # In log alpha, since p spans many powers of ten.
    return float(np.exp(scipy.optimize.brentq(beyond, np.log(_SMALLEST_P), 0.0)))
