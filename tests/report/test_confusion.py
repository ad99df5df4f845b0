"""Confusion matrices pool the folds of a method, frame by frame and video by video, as scikit-learn counts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import put
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from usbench.report.confusion import confusion, confusion_table, matrices
from usbench.report.results import evaluations, whole
from usbench.runs.store import Store

CLASSES = ["covid", "pneumonia", "regular"]


def frames(seed: int, count: int = 60) -> pd.DataFrame:
    """Frames of clips of 1 to 5, some without a clip."""
    rng = np.random.default_rng(seed)
    clip = np.sort(rng.integers(0, 15, count))
    of_clip = rng.integers(0, 3, 15)
    probability = rng.dirichlet(np.ones(3), count)
    table = pd.DataFrame({"name": [f"s{seed}i{k}" for k in range(count)], "group": clip, "label": of_clip[clip]})
    table["video"] = [f"v{c}" if c % 4 else "" for c in clip]
    table["predicted"] = probability.argmax(1)
    for code, name in enumerate(CLASSES):
        table[f"p_{name}"] = probability[:, code]
    return table.assign(accuracy=(table.predicted == table.label).astype(float))


FACTS = {"classes": CLASSES, "metrics": ["accuracy"], "primary": "accuracy"}


@pytest.fixture
def pooled(tmp_path: Path) -> tuple[Store, list[pd.DataFrame]]:
    """A store with one method in five folds, and another one in one."""
    store = Store(tmp_path / "runs").open()
    tables = [frames(fold) for fold in range(5)]
    for fold, table in enumerate(tables):
        put(store, "uscl", 0, 0, arena=f"f{fold}", fold=str(fold), scores=table, facts=FACTS)
    put(store, "byol", 0, 0, arena="f0", fold="0", scores=frames(9), facts=FACTS)
    put(store, "segmented", 0, 0.1)
    return store, tables


def read(store: Store) -> list[Any]:
    return matrices(whole(store, folder) for folder in evaluations(store))  # type: ignore[misc]


def test_counts_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 4, (2, 200))
    assert np.array_equal(confusion(label, predicted, 4), confusion_matrix(label, predicted, labels=range(4)))
    assert np.array_equal(confusion(label[:1], predicted[:1], 4).sum(), 1)


def test_frames_of_all_folds_are_counted_together(pooled: tuple[Store, list[pd.DataFrame]]) -> None:
    store, tables = pooled
    every = pd.concat(tables)
    matrix = next(m for m in read(store) if m.row["loss"] == "uscl" and m.unit == "frame")
    assert np.array_equal(matrix.counts, confusion_matrix(every.label, every.predicted))
    assert matrix.folds == ("0", "1", "2", "3", "4") and matrix.seeds == (0,)
    assert matrix.balanced_accuracy == pytest.approx(balanced_accuracy_score(every.label, every.predicted))
    assert {m.row["loss"] for m in read(store)} == {"uscl", "byol"}


@pytest.mark.parametrize("again", ["0 without GE", "split.json"])
def test_folds_that_share_an_image_are_not_counted_together(
    pooled: tuple[Store, list[pd.DataFrame]], again: str
) -> None:
    store, tables = pooled
    put(store, "uscl", 0, 0, arena="again", fold=again, scores=tables[0], facts=FACTS)
    found = [m for m in read(store) if m.row["loss"] == "uscl" and m.unit == "frame"]
    assert sorted(m.folds for m in found) == sorted((str(fold),) for fold in (*range(5), again))
    assert all(m.counts.sum() == 60 for m in found)


def test_videos_are_judged_by_the_mean_of_their_frames(pooled: tuple[Store, list[pd.DataFrame]]) -> None:
    store, tables = pooled
    label, predicted = [], []
    for table in tables:
        frames_of: dict[str, list[Any]] = {}
        for place, frame in enumerate(table.itertuples()):
            frames_of.setdefault(frame.video or f"alone {place}", []).append(frame)
        for some in frames_of.values():
            means = [sum(getattr(frame, f"p_{name}") for frame in some) / len(some) for name in CLASSES]
            label.append(some[0].label)
            predicted.append(means.index(max(means)))
    matrix = next(m for m in read(store) if m.row["loss"] == "uscl" and m.unit == "video")
    assert np.array_equal(matrix.counts, confusion_matrix(label, predicted))


def test_the_published_rule_has_a_matrix_of_its_own(pooled: tuple[Store, list[pd.DataFrame]]) -> None:
    store, tables = pooled
    folders = [f for f in evaluations(store) if '"uscl"' in (f / "record.json").read_text()]
    for folder in folders:
        scores = pd.read_csv(folder / "scores.csv")
        scores.assign(predicted=scores.label).to_csv(folder / "best-on-test.csv", index=False)
    best = next(m for m in read(store) if m.rule == "best-on-test" and m.unit == "frame")
    assert best.accuracy == 1 and best.counts.sum() == sum(map(len, tables))
    (folders[0] / "best-on-test.csv").unlink()
    assert not [m for m in read(store) if m.rule == "best-on-test"]  # not of all folds


def test_the_table_has_a_line_for_each_pair_of_classes(pooled: tuple[Store, list[pd.DataFrame]]) -> None:
    store, tables = pooled
    table = confusion_table(read(store))
    some = table[(table.loss == "uscl") & (table.unit == "frame")]
    assert len(some) == 9 and some["count"].sum() == sum(map(len, tables))
    assert set(some.folds) == {"0 1 2 3 4"} and set(some.selection) == {"inner"}
    line = some[(some.truth == "covid") & (some.predicted == "regular")]["count"].item()
    every = pd.concat(tables)
    assert line == ((every.label == 0) & (every.predicted == 2)).sum()


def test_a_run_shows_the_matrix_of_all_folds_and_keeps_that_of_its_own(
    usbench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    words = [w for w in tiny if w not in ("--labels", "50,100")]
    out = tmp_path / "o"
    for fold in (0, 1):
        said = usbench(
            "run", "--loss", "none", *words, "--labels", "100", "--protocol", "classify", "--fold", fold, "--out", out
        )
        assert said.code == 0, said.err
    folder = re.findall(r"usbench show (.+)$", said.out.strip(), re.M)[-1]
    assert set(pd.read_csv(Path(folder) / "confusion.csv").folds) == {1}
    shown = usbench("show", folder)
    assert shown.code == 0 and "folds 0, 1, one seed" in " ".join(shown.out.split())
