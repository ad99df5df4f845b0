"""The folds of a method are one row, in which each image counts once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_scores, put
from sklearn.metrics import balanced_accuracy_score

from usbench.api.stored import compare
from usbench.evaluate.classification import balanced
from usbench.evaluate.statistics import crossed_interval
from usbench.report import folds
from usbench.report.cells import cells
from usbench.report.files import write_csv
from usbench.report.folds import FOLDS, folded, pooled_folds
from usbench.report.index import Index
from usbench.report.leaderboard import board_of
from usbench.report.table import footnotes, results_tables
from usbench.report.verify import keys_of
from usbench.runs.store import Store

FIVE = range(5)


def fill(store: Store, losses: tuple[str, ...] = ("rcl", "none"), seeds: tuple[int, ...] = (0,)) -> pd.DataFrame:
    """Rows of five folds with images of their own; returns all their scores by loss, seed and fold."""
    every = []
    for place, loss in enumerate(losses):
        for seed in seeds:
            for fold in FIVE:
                scores = made_up_scores(100 * place + 10 * seed + fold, 0.02 * place).head(10 + 4 * fold)
                scores = scores.assign(name=[f"f{fold}-{n}" for n in scores.name], group=scores.group + 20 * fold)
                # The person of group 3 was filmed in two folds.
                scores["group"] = scores.group.replace({23: 3})
                put(store, loss, seed, 0.0, scores=scores, arena=f"{fold}/a", fold=str(fold))
                every.append(scores.assign(loss=loss, seed=seed, fold=fold))
    return pd.concat(every)


def test_the_mean_and_its_interval_are_over_all_images_and_a_person_of_two_folds_is_one_group(store: Store) -> None:
    known = fill(store)
    found = {cell.row["loss"]: cell for cell in pooled_folds(cells(Index([store]).results))}
    assert set(found) == {"rcl", "none"}
    for loss, cell in found.items():
        images = known[(known.loss == loss) & known.lesion]
        expected = crossed_interval(images.dice.to_numpy()[:, None], images.group.to_numpy())
        assert cell.interval().mean == pytest.approx(expected.mean, abs=1e-9)
        assert (cell.interval().low, cell.interval().high) == pytest.approx((expected.low, expected.high), abs=1e-9)
        assert cell.row["fold"] == "0 1 2 3 4"
        assert cell.counts()["groups"] == images.group.nunique()
        assert cell.facts["device_seconds"] == 1.0 and cell.facts["dice_inner"] == pytest.approx(0.5)


def test_classes_are_balanced_among_all_folds_and_not_fold_by_fold(store: Store) -> None:
    rng, facts = np.random.default_rng(0), {"primary": "balanced_accuracy", "metrics": ["balanced_accuracy"]}
    label, right = [], []
    for fold in FIVE:
        of = rng.choice(3 if fold else 2, 12 + 6 * fold)  # the first has no image of the third class
        scores = pd.DataFrame(
            {"name": [f"f{fold}-{n}" for n in range(len(of))], "group": np.arange(len(of)) + 100 * fold}
        )
        known = (rng.random(len(of)) < 0.3 + 0.3 * of).astype(float)
        scores = scores.assign(label=of, accuracy=known, balanced_accuracy=balanced(known, of))
        put(store, "none", 0, 0.0, scores=scores, arena=f"{fold}/a", fold=str(fold), facts=facts)
        label.append(of)
        right.append(known)
    (cell,) = pooled_folds(cells(Index([store]).results))
    every = np.concatenate(label)
    predicted = np.where(np.concatenate(right) > 0, every, (every + 1) % 3)
    assert cell.interval().mean == pytest.approx(balanced_accuracy_score(every, predicted))
    assert cell.mean_over((0,)) == cell.interval().mean


def test_scores_are_read_once_for_all_tables_and_figures(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    every = cells(Index([store]).results)
    first = [cell.row["setting"] for cell in folded(every)]
    monkeypatch.setattr(folds, "_apart", lambda some: pytest.fail("the scores were read again"))
    assert [cell.row["setting"] for cell in folded(every)] == first


def test_the_difference_to_the_baseline_is_paired_over_all_images(store: Store) -> None:
    known = fill(store, seeds=(0, 1))
    table = board_of(cells(Index([store]).results))
    row = table[(table.fold == "0 1 2 3 4") & (table.loss == "rcl")].squeeze()
    images = known[known.lesion].pivot(index=["name", "group"], columns=["loss", "seed"], values="dice")
    expected = crossed_interval(
        (images["rcl"] - images["none"]).to_numpy(), images.index.get_level_values("group").to_numpy()
    )
    assert row.delta_vs_supervised == pytest.approx(expected.mean, abs=1e-9)
    assert row.delta_vs_supervised_low == pytest.approx(expected.low, abs=1e-9)
    assert len(table) == 2 * 5 + 2 and table.key.is_unique
    assert row.p_holm == pytest.approx(expected.p, abs=1e-9)  # the only test of its family


def test_the_terminal_shows_one_line_a_method_and_says_so(store: Store) -> None:
    fill(store)
    every = cells(Index([store]).results)
    (table,) = results_tables(every)
    assert table.row_count == 2
    assert any(note.startswith("Folds are one row") for note in footnotes(every, []))


def test_rows_of_one_fold_and_folds_that_share_test_images_are_as_they_were(store: Store) -> None:
    for fold in FIVE:
        put(store, "rcl", 0, 0.0, arena=f"{fold}/b", fold=str(fold), test_data="other", shift="out")
    put(store, "byol", 0, 0.0, arena="0/a")
    every = cells(Index([store]).results)
    assert pooled_folds(every) == [] and folded(every) == every


def test_networks_that_were_tested_on_a_set_of_all_folds_too_stay_apart(store: Store) -> None:
    fill(store)
    assert len(pooled_folds(cells(Index([store]).results))) == 2
    for fold in FIVE:
        put(store, "none", 0, 0.0, arena=f"{fold}/b", fold=str(fold), test_data="other", shift="out")
    every = cells(Index([store]).results)
    assert folded(every) == every  # a row of all folds of rcl would have no baseline


def test_a_method_that_lacks_a_fold_or_a_seed_of_one_stays_apart_with_its_differences(store: Store) -> None:
    fill(store, ("rcl", "byol", "none"), seeds=(0, 1))
    for path in sorted(store.stages.glob("evaluate-*/record.json")):
        row = json.loads(path.read_text())["row"]
        if (row["loss"], row["fold"]) == ("rcl", "3") or (row["loss"], row["fold"], row["seed"]) == ("byol", "4", 1):
            path.unlink()
    every = cells(Index([store]).results)
    shown = folded(every)
    assert [cell.row["loss"] for cell in shown if cell.row["fold"] == "0 1 2 3 4"] == ["none"]
    assert all(cell.base is not None for cell in shown if cell.row["loss"] in ("rcl", "byol"))
    names = [str(text) for table in results_tables(every) for text in table.columns[1]._cells]
    assert {"rcl · fold 0", "byol · fold 4", "none"} <= set(names) and len(names) == 4 + 5 + 1


def test_folds_of_other_trainings_are_no_folds_of_one_method(store: Store) -> None:
    for fold in FIVE:
        scores = made_up_scores(fold, 0.0).assign(name=[f"f{fold}-{n}" for n in range(30)])
        put(store, "rcl", 0, 0.0, scores=scores, arena=f"{fold}/a", fold=str(fold), steps=4 if fold < 3 else 9)
    found = pooled_folds(cells(Index([store]).results))
    assert [cell.row["fold"] for cell in found] == ["0 1 2"]


def test_what_folds_do_not_have_in_common_is_said_of_all(store: Store) -> None:
    for fold in range(4):
        scores = made_up_scores(fold, 0.0).assign(name=[f"f{fold}-{n}" for n in range(30)])
        facts = {"selection": "last" if fold else "inner", "images_seen": 50 + fold, "peak_mib": 10 * fold}
        put(store, "rcl", 0, 0.0, scores=scores, arena=f"{fold}/a", fold=str(fold), leaks=fold, facts=facts,
            versions={"torch": "2.1" if fold else "2.0"}, chosen=f"finetune.lr={min(fold, 2)} (of 4)")  # fmt: skip
    (cell,) = pooled_folds(cells(Index([store]).results))
    assert cell.row["leaks"] == 6 and cell.row["chosen"].count(";") == 2
    assert cell.facts["selection"] == "inner/last" and cell.facts["images_seen"] == 51.5
    assert cell.facts["peak_mib"] == 30 and cell.results[0].versions == {"torch": "2.0/2.1"}


def test_its_key_compares_and_is_no_key_of_a_stage(store: Store, tmp_path: Path) -> None:
    known = fill(store)
    table = board_of(cells(Index([store]).results))
    keys = table[table.fold == "0 1 2 3 4"].set_index("loss").key
    assert all(key.endswith(FOLDS) for key in keys)
    found = compare(keys.rcl, keys["none"], stores=[store.root])
    means = known[known.lesion].groupby("loss").dice.mean()
    assert float(found.table.difference.iloc[0]) == pytest.approx(means.rcl - means["none"], abs=1e-9)
    write_csv(table, tmp_path / "board.csv")
    assert set(keys) <= keys_of(tmp_path / "board.csv")
    assert not np.isin(list(keys), [cell.row["setting"] for cell in cells(Index([store]).results)]).any()
