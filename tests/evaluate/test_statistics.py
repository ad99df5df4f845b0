import numpy as np
import pandas as pd
import pytest
from scipy import stats

from usbench.evaluate.statistics import (
    Estimate,
    Strata,
    crossed_interval,
    holm,
    mean_ranks,
    signed_rank,
)


def simulate(
    rng: np.random.Generator,
    patients: int,
    *,
    seeds: int = 3,
    patient: float = 0.15,
    image: float = 0.2,
    noise: float = 0.0,
    interaction: float = 0.0,
    seed: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores with true mean 0, 1–3 images a patient; each keyword is the deviation of one effect."""
    groups = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    images = len(groups)
    values = (
        patient * rng.normal(size=patients)[groups][:, None]
        + interaction * rng.normal(size=(patients, seeds))[groups]
        + image * rng.normal(size=(images, 1))
        + noise * rng.normal(size=(images, seeds))
        + seed * rng.normal(size=seeds)
    )
    return values, groups


# The last two are differences between two methods: patients agree, and retraining is nearly all of the noise.
SCENES = {
    "seeds do not matter": {},
    "seeds matter a little": {"seed": 0.01},
    "seeds matter": {"seed": 0.03},
    "patients react differently to seeds": {"seed": 0.01, "interaction": 0.05},
    "seeds matter and patients react differently": {"seed": 0.03, "interaction": 0.05},
    "a difference, seeds do not matter": {"patient": 0.02, "image": 0.03, "noise": 0.12},
    "a difference, seeds matter": {"patient": 0.02, "image": 0.03, "noise": 0.12, "seed": 0.01},
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("patients", [60, 375])
def test_the_interval_covers_the_truth_as_often_as_it_says(patients, scene):
    rng = np.random.default_rng(0)
    estimates = [crossed_interval(*simulate(rng, patients, **SCENES[scene])) for _ in range(1000)]
    covered = np.mean([estimate.low <= 0 <= estimate.high for estimate in estimates])
    false_alarms = np.mean([estimate.p < 0.05 for estimate in estimates])
    assert covered >= 0.93
    assert false_alarms <= 0.07


def test_the_interval_is_not_wide_without_need():
    rng = np.random.default_rng(0)
    widths, ideal = [], []
    for _ in range(200):
        values, groups = simulate(rng, 60)
        estimate = crossed_interval(values, groups)
        counts, images = np.bincount(groups), len(groups)
        widths.append(estimate.high - estimate.low)
        ideal.append(2 * 1.96 * np.sqrt(0.15**2 * np.square(counts).sum() / images**2 + 0.2**2 / images))
    assert np.mean(widths) < 1.05 * np.mean(ideal)


def test_more_images_of_the_same_patients_do_not_buy_certainty():
    rng = np.random.default_rng(0)
    values, groups = simulate(rng, 30, seed=0.01)
    once, often = crossed_interval(values, groups), crossed_interval(np.tile(values, (5, 1)), np.tile(groups, 5))
    assert (often.mean, often.low, often.high) == pytest.approx((once.mean, once.low, once.high))


def test_where_only_seeds_differ_the_interval_is_students_over_the_seeds():
    seed_means = np.array([0.1, 0.2, 0.4])
    values = np.tile(seed_means, (12, 1))
    estimate = crossed_interval(values, np.arange(12) // 2)
    test = stats.ttest_1samp(seed_means, 0)
    interval = test.confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert estimate.p == pytest.approx(test.pvalue)


def test_where_only_patients_differ_the_interval_is_students_over_the_patients():
    per_patient = np.random.default_rng(0).normal(0.1, 1, 20)
    estimate = crossed_interval(np.tile(per_patient[:, None], (1, 3)), np.arange(20))
    test = stats.ttest_1samp(per_patient, 0)
    interval = test.confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
    assert estimate.p == pytest.approx(test.pvalue)


def test_the_variance_is_the_analysis_of_variances_for_equal_patients():
    rng = np.random.default_rng(1)
    patients, seeds = 8, 4
    table = rng.normal(size=(patients, 1)) + rng.normal(size=seeds) + 0.5 * rng.normal(size=(patients, seeds))
    rows, columns = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    of_patients = seeds * rows.var(ddof=1)
    of_seeds = patients * columns.var(ddof=1)
    of_both = np.square(table - rows - columns + table.mean()).sum() / ((patients - 1) * (seeds - 1))
    patient_part = (of_patients - of_both) / (patients * seeds)
    seed_part = of_seeds / (patients * seeds)
    assert patient_part > 0
    half = np.sqrt(stats.t.isf(0.05, patients - 1) ** 2 * patient_part + stats.t.isf(0.05, seeds - 1) ** 2 * seed_part)
    estimate = crossed_interval(np.repeat(table, 3, axis=0), np.repeat(np.arange(patients), 3), level=0.9)
    assert (estimate.mean, estimate.high - estimate.mean) == pytest.approx((table.mean(), half))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_the_test_and_the_interval_never_disagree(level):
    rng = np.random.default_rng(0)
    values, groups = simulate(rng, 25, seed=0.02, noise=0.1)
    estimate = crossed_interval(values, groups, level=level)
    at_the_edge = crossed_interval(values - estimate.low, groups)
    assert at_the_edge.p == pytest.approx(1 - level)
    assert crossed_interval(values - estimate.mean, groups).p == pytest.approx(1, abs=1e-6)


def test_one_seed_gives_the_jackknife_over_patients_and_no_test():
    values, groups = simulate(np.random.default_rng(0), 40, seeds=1)
    estimate = crossed_interval(values, groups)
    mean, counts = values.mean(), np.bincount(groups)
    without = np.array([values[groups != g].mean() for g in range(len(counts))])
    error = np.sqrt((1 - 1 / len(counts)) * np.square(without - mean).sum())
    half = stats.t.isf(0.025, counts.sum() ** 2 / np.square(counts).sum() - 1) * error
    assert (estimate.low, estimate.high) == pytest.approx((mean - half, mean + half))
    assert np.isnan(estimate.p)


@pytest.mark.parametrize(("values", "mean"), [(np.empty((0, 3)), np.nan), ([[0.5, 0.7], [0.6, 0.6]], 0.6)])
def test_without_two_patients_there_is_no_interval(values, mean):
    values = np.asarray(values)
    estimate = crossed_interval(values, np.zeros(len(values), dtype=int))
    np.testing.assert_allclose([estimate.mean, estimate.low, estimate.high, estimate.p], [mean, *[np.nan] * 3])


def test_an_image_missing_for_one_seed_is_dropped_for_all():
    values, groups = simulate(np.random.default_rng(0), 20, seed=0.02)
    holed = values.copy()
    holed[3, 1] = holed[7] = np.nan
    keep = np.isin(np.arange(len(values)), [3, 7], invert=True)
    assert crossed_interval(holed, groups) == crossed_interval(values[keep], groups[keep])


def test_groups_may_be_any_names_in_any_order():
    values, groups = simulate(np.random.default_rng(0), 20, seed=0.02)
    names = np.array([f"patient-{97 * g % 20}" for g in groups])
    shuffle = np.random.default_rng(1).permutation(len(values))
    expected, found = crossed_interval(values, groups), crossed_interval(values[shuffle], names[shuffle])
    for field in ("mean", "low", "high", "p"):
        assert getattr(found, field) == pytest.approx(getattr(expected, field))


def test_values_without_any_variance_are_certain():
    groups = np.arange(4)
    assert crossed_interval(np.zeros((4, 3)), groups) == Estimate(0.0, 0.0, 0.0, 1.0)
    assert crossed_interval(np.full((4, 3), 0.5), groups) == Estimate(0.5, 0.5, 0.5, 0.0)


def test_few_images_that_are_all_right_are_not_certain_but_as_sure_as_two_more_right_and_two_wrong():
    right = np.ones((20, 1))
    half = stats.t.isf(0.025, 19) * np.sqrt(22 / 24 * 2 / 24 / 24)
    found = crossed_interval(right, np.arange(20), share=True)
    assert (found.mean, found.low, found.high) == pytest.approx((1, 1 - half, 1 + half))
    # The same of a stratum, beside one whose own patients already tell as much.
    rng = np.random.default_rng(0)
    both = np.concatenate([right, (rng.random((400, 1)) < 0.5).astype(float)])
    strata = Strata(np.repeat([0, 1], [20, 400]), np.repeat([1 / 20, 1 / 400], [20, 400]))
    wide = crossed_interval(both, np.arange(420), strata=strata, share=True)
    narrow = crossed_interval(both, np.arange(420), strata=strata)
    assert wide.mean == narrow.mean
    assert (wide.high - wide.mean) ** 2 == pytest.approx((half / 2) ** 2 + (narrow.high - narrow.mean) ** 2, rel=0.02)


def test_a_share_is_not_widened_where_patients_tell_more_than_images_and_scores_are_no_shares():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 10)
    right = (rng.random((400, 3)) < rng.random(40)[patients, None]).astype(float)
    assert crossed_interval(right, patients, share=True) == crossed_interval(right, patients)
    scores, groups = simulate(rng, 20)
    assert crossed_interval(scores, groups, share=True) == crossed_interval(scores, groups)


@pytest.mark.parametrize(
    ("values", "groups", "message"),
    [
        (np.zeros(4), np.arange(4), "images, seeds"),
        (np.zeros((4, 2)), np.arange(3), "one group an image"),
        (np.full((4, 2), np.inf), np.arange(4), "infinite"),
        (np.zeros((2, 2)), np.array(["a", None], dtype=object), "no group"),
    ],
)
def test_data_that_cannot_be_judged_is_refused(values, groups, message):
    with pytest.raises(ValueError, match=message):
        crossed_interval(values, groups)


def test_holm_equals_a_slow_loop_and_passes_nan_through():
    def slow(p):
        adjusted = [np.nan] * len(p)
        left = {i: value for i, value in enumerate(p) if not np.isnan(value)}
        floor = 0.0
        while left:
            smallest = min(left, key=left.__getitem__)
            floor = max(floor, min(1.0, len(left) * left.pop(smallest)))
            adjusted[smallest] = floor
        return adjusted

    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 5, 20):
        p = rng.random(size) ** 3
        p[rng.random(size) < 0.2] = np.nan
        p[: size // 4] = 0.01
        np.testing.assert_allclose(holm(p), slow(p))
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, np.nan, 0.03])), [0.03, 0.06, np.nan, 0.06])
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(np.array([0.5, 1.5]))


def test_mean_ranks_put_the_best_first_and_share_ties():
    table = pd.DataFrame({"x": [0.9, 0.8, 0.8], "y": [0.7, 0.9, 0.5]}, index=["a", "b", "c"])
    pd.testing.assert_series_equal(mean_ranks(table), pd.Series([1.5, 1.75, 2.75], index=["a", "b", "c"]))


def test_a_condition_that_a_method_lacks_ranks_nobody():
    table = pd.DataFrame({"x": [0.9, 0.8], "hard": [np.nan, 0.1]}, index=["a", "b"])
    assert mean_ranks(table).to_dict() == {"a": 1.0, "b": 2.0}
    assert mean_ranks(table[["hard"]]).isna().all()


def test_mean_ranks_are_scipys_on_random_tables():
    rng = np.random.default_rng(0)
    for methods, conditions in ((3, 2), (5, 7), (12, 30)):
        values = rng.integers(0, 8, (methods, conditions)) / 8  # with ties
        expected = stats.rankdata(-values, axis=0).mean(axis=1)
        np.testing.assert_allclose(mean_ranks(pd.DataFrame(values)), expected)


def test_signed_rank_is_scipys_on_the_patients_mean_differences():
    rng = np.random.default_rng(0)
    for patients in (8, 30, 200):
        values, groups = simulate(rng, patients, seed=0.02)
        per_patient = [values[groups == g].mean() for g in range(patients)]
        assert signed_rank(values, groups) == pytest.approx(stats.wilcoxon(per_patient).pvalue)
    assert np.isnan(signed_rank(np.zeros((4, 2)), np.arange(4)))
