"""How often the intervals hold and how often two equal methods are called different, on simulated tables.

    OMP_NUM_THREADS=1 python benchmarks/coverage.py --repeats 5000 --tables 1500 --csv results/trust/coverage.csv

A table has lesion images of patients, one to three each, scored by three seeds; in some, every tenth patient has
twenty times as many, as videos do. Patients differ, images differ, and the seeds move all scores of a run together
(`seed`). The truth is known, so it can be counted how often a 95 % interval holds it; the same of a balanced accuracy
whose classes have few images. The second half draws two methods that are the same, three seeds against three, many rows
a table, and counts how many are called better or worse at 0.05, each row by itself and after Holm.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from usbench.evaluate.classification import balancing
from usbench.evaluate.statistics import crossed_interval, holm

PATIENTS, DEVIATIONS, SEEDS, ROWS = (60, 375), (0.0, 0.01, 0.03), 3, 4
UNEVEN, MANY = (30, 100), 20
CLASSES = ((100, 100), (90, 10), (60, 40, 8))  # images of each
TRUTH = 0.7
RIGHT = (0.7, 0.9, 0.95)  # the share of each class that is right


def scores(rng: np.random.Generator, groups: np.ndarray, deviation: float, seeds: int = SEEDS) -> np.ndarray:
    """(images, seeds) what independent trainings of one method score; the mean over all of them is TRUTH."""
    images, patients = len(groups), groups.max() + 1
    shared = 0.12 * rng.normal(size=patients)[groups] + 0.1 * rng.normal(size=images)
    return TRUTH + shared[:, None] + trainings(rng, groups, deviation, seeds)


def trainings(rng: np.random.Generator, groups: np.ndarray, deviation: float, seeds: int = SEEDS) -> np.ndarray:
    """(images, seeds) what retraining moves: everything together, and each image a little by itself."""
    return deviation * rng.normal(size=seeds) + 0.05 * rng.normal(size=(len(groups), seeds))


def patients_of(rng: np.random.Generator, count: int, *, uneven: bool = False) -> np.ndarray:
    """One to three images a patient, or twenty times as many for every tenth."""
    many = np.where(np.arange(count) % 10 == 0, MANY, 1) if uneven else 1
    return np.repeat(np.arange(count), many * rng.integers(1, 4, count))


def coverage(
    patients: int, deviation: float, repeats: int, seed: int = 0, *, uneven: bool = False, seeds: int = SEEDS
) -> float:
    """The share of 95 % intervals that hold the truth."""
    rng = np.random.default_rng([seed, patients, int(deviation * 1000)])
    held = 0
    for _ in range(repeats):
        groups = patients_of(rng, patients, uneven=uneven)
        found = crossed_interval(scores(rng, groups, deviation, seeds), groups)
        held += found.low <= TRUTH <= found.high
    return held / repeats


def coverage_of_classes(sizes: Sequence[int], truth: float, repeats: int, seed: int = 0) -> float:
    """The share of 95 % intervals of a balanced accuracy that hold it, of a patient an image and one seed."""
    rng = np.random.default_rng([seed, *sizes, int(truth * 1000)])
    label = np.repeat(np.arange(len(sizes)), sizes)
    classes, held = balancing(label, np.ones(len(label), bool)), 0
    for _ in range(repeats):
        right = (rng.random((len(label), 1)) < truth).astype(float)
        found = crossed_interval(right, np.arange(len(label)), strata=classes, share=True)
        held += found.low <= truth <= found.high
    return held / repeats


def equal_methods(tables: int, seed: int = 0) -> tuple[float, float]:
    """The share of rows called different from a baseline that is the same method, before and after Holm."""
    rng = np.random.default_rng([seed, 1])
    called, adjusted = [], []
    for deviation in itertools.islice(itertools.cycle(DEVIATIONS), tables):
        groups = patients_of(rng, 60)
        shared = 0.12 * rng.normal(size=60)[groups] + 0.1 * rng.normal(size=len(groups))
        base = shared[:, None] + trainings(rng, groups, deviation)
        rows = [shared[:, None] + trainings(rng, groups, deviation) for _ in range(ROWS)]
        p = np.array([crossed_interval(row - base, groups).p for row in rows])
        called.append((p < 0.05).mean())
        adjusted.append((holm(p) < 0.05).any())
    return float(np.mean(called)), float(np.mean(adjusted))


def lines(repeats: int, tables: int) -> Iterator[tuple[str, float, int]]:
    """What was asked of what, the share of them, and how many they were."""
    for patients, deviation in itertools.product(PATIENTS, DEVIATIONS):
        share = coverage(patients, deviation, repeats)
        yield f"intervals that hold: {patients} patients, {SEEDS} seeds of deviation {deviation:.2f}", share, repeats
    for patients, seeds in itertools.product(UNEVEN, (1, SEEDS)):
        share = coverage(patients, 0.01 if seeds > 1 else 0.0, repeats, uneven=True, seeds=seeds)
        named = "1 seed" if seeds == 1 else f"{seeds} seeds"
        yield f"intervals that hold: {patients} patients of unequal many images, {named}", share, repeats
    for sizes, truth in itertools.product(CLASSES, RIGHT):
        share = coverage_of_classes(sizes, truth, repeats)
        named = " + ".join(map(str, sizes))
        yield f"intervals that hold: balanced accuracy, {named} images of classes, {truth} right", share, repeats
    called, adjusted = equal_methods(tables)
    yield f"rows of equal methods called different, unadjusted, of tables of {ROWS}", called, tables * ROWS
    yield f"tables of {ROWS} equal methods in which one is called different, after Holm", adjusted, tables


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--tables", type=int, default=500)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    found = []
    for what, share, count in lines(given.repeats, given.tables):
        print(f"{what}: {share:.1%} of {count}", flush=True)
        found.append({"what": what, "share": share, "of": count})
    if given.csv:
        pd.DataFrame(found).to_csv(given.csv, index=False)


if __name__ == "__main__":
    main()
