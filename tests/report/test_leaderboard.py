"""Every number of the table can be made again by hand from the per-image scores."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from usbench.evaluate.segmentation import METRICS
from usbench.evaluate.statistics import crossed_interval
from usbench.report.cells import cells, pooled
from usbench.report.columns import COLUMNS
from usbench.report.files import inert, write_csv
from usbench.report.index import Index
from usbench.report.leaderboard import leaderboard
from usbench.report.table import results_table
from usbench.runs.store import Store

IMAGES, GROUPS = 30, 12


def put(
    store: Store, loss: str, seed: int, gain: float, *, arena: str = "a", fraction: float = 100.0, **row_too: Any
) -> pd.DataFrame:
    """A finished evaluation with made-up scores; every sixth image is normal."""
    rng = np.random.default_rng([seed, 7])
    scores = pd.DataFrame(
        {
            "name": [f"i{k}" for k in range(IMAGES)], "group": np.arange(IMAGES) % GROUPS, "label": 0,
            "lesion": np.arange(IMAGES) % 6 != 5,
        }
    )  # fmt: skip
    for metric in METRICS:
        scores[metric] = rng.uniform(0.4, 0.8, IMAGES) + gain
    scores["area_predicted"] = np.where(np.arange(IMAGES) % 12 == 5, 0, 10)
    scores["area_truth"] = 10
    row = {
        "loss": loss, "aug": "none", "backbone": "unet-tiny", "init": "random", "pretrain_data": "none",
        "train_data": "x", "test_data": "x", "shift": "in", "label_fraction": fraction, "protocol": "segment",
        "baseline": "plain" if loss == "none" else "", "reconstruction": False, "seed": seed, "device": "cpu",
        "precision": "float32", "fold": "0", "leaks": 0, "size": 64,
        "arena": arena, "setting": f"{loss}-{arena}", **row_too,
    }  # fmt: skip
    facts = {
        "pretrain_labels": "none", "selection": "inner", "dice_inner": 0.5, "device_seconds": 1.0, "peak_mib": 10,
        "steps": 5, "images_seen": 50, "pixels_seen": 500,
    }  # fmt: skip
    identity = {"finetuned": f"{loss}-{arena.partition('/')[0]}-{seed}"}
    folder = store.stages / f"evaluate-{loss}-{arena.replace('/', '-')}-{seed}"
    folder.mkdir(parents=True)
    scores.to_csv(folder / "scores.csv", index=False)
    (folder / "record.json").write_text(json.dumps({"row": row, "facts": facts, "identity": identity}))
    return scores


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").open()


def test_means_and_differences_are_those_of_the_images(store: Store) -> None:
    mine = [put(store, "mine", seed, 0.1) for seed in (0, 1, 2)]
    base = [put(store, "none", seed, 0.0) for seed in (0, 1, 2)]
    table = leaderboard(Index([store]).results).set_index("loss")
    lesions = mine[0].lesion.to_numpy()
    values = np.stack([t.dice.to_numpy()[lesions] for t in mine], 1)
    other = np.stack([t.dice.to_numpy()[lesions] for t in base], 1)
    assert table.dice_mean["mine"] == pytest.approx(values.mean())
    assert table.delta_vs_supervised["mine"] == pytest.approx((values - other).mean())
    expected = crossed_interval(values - other, mine[0].group.to_numpy()[lesions])
    assert table.delta_vs_supervised_low["mine"] == pytest.approx(expected.low)
    assert table.p_holm["mine"] == pytest.approx(expected.p)
    assert (table.images["mine"], table.groups["mine"], table.seeds["mine"]) == (lesions.sum(), 10, 3)
    assert table["rank"].to_dict() == {"mine": 1, "none": 2}


def test_normal_images_stand_apart(store: Store) -> None:
    put(store, "none", 0, 0.0)
    table = leaderboard(Index([store]).results)
    assert table.normal_fp_rate[0] == pytest.approx(0.4)  # 5 normals, of which 3 have an empty prediction
    assert table.images[0] == 25


def test_a_row_is_compared_with_the_baseline_of_its_own_arena_only(store: Store) -> None:
    put(store, "mine", 0, 0.1, arena="a")
    put(store, "none", 0, 0.0, arena="b")
    table = leaderboard(Index([store]).results).set_index("loss")
    assert math.isnan(table.delta_vs_supervised["mine"])


def test_only_shared_seeds_are_paired(store: Store) -> None:
    mine = [put(store, "mine", seed, 0.1) for seed in (0, 1)]
    base = put(store, "none", 1, 0.0)
    table = leaderboard(Index([store]).results).set_index("loss")
    lesions = base.lesion.to_numpy()
    assert table.delta_vs_supervised["mine"] == pytest.approx((mine[1].dice - base.dice)[lesions].mean())
    assert math.isnan(table.p_holm["mine"])  # one shared seed: no test


def lines(store: Store) -> dict[str, list[str]]:
    """The table of a terminal: what stands behind each name."""
    columns = [list(column.cells) for column in results_table(cells(Index([store]).results), "").columns]
    return dict(zip(columns[1], map(list, zip(*columns[2:], strict=True)), strict=True))


def test_what_differs_in_more_than_the_test_set_stands_on_a_line_of_its_own(store: Store) -> None:
    for fold, gain in ((0, 0.0), (1, 0.1)):
        arena = f"fold{fold}"
        put(store, "none", 0, gain, arena=f"{arena}/x", fold=fold)
        put(store, "none", 0, gain, arena=f"{arena}/y", fold=fold, test_data="y", shift="out")
        put(store, "mine", 0, gain + 0.1, arena=f"{arena}/x", fold=fold)
    put(store, "other", 0, 0.0, fold=0)
    shown = lines(store)
    assert set(shown) == {"none · fold 0", "none · fold 1", "mine · fold 0", "mine · fold 1", "other"}
    table = leaderboard(Index([store]).results).set_index("key")
    for fold in (0, 1):
        assert shown[f"none · fold {fold}"][0] == f"{table.dice_mean[f'none-fold{fold}/x']:.3f}"
        assert shown[f"none · fold {fold}"][2] == f"{table.dice_mean[f'none-fold{fold}/y']:.3f}"
        assert shown[f"mine · fold {fold}"][1].startswith("+.100 ")


def test_several_unseen_sets_are_pooled_over_the_seeds_that_all_have(store: Store) -> None:
    first = [put(store, "none", seed, 0.0, arena="a/y", test_data="y", shift="out") for seed in (0, 1)]
    second = put(store, "none", 1, 0.1, arena="a/z", test_data="z", shift="out")
    lesions = second.lesion.to_numpy()
    both = pooled(cells(Index([store]).results))
    assert both.mean == pytest.approx((first[1].dice[lesions].mean() + second.dice[lesions].mean()) / 2)
    assert math.isnan(pooled(cells(Index([store]).results), [None, None]).mean)


def test_an_image_may_be_called_na(store: Store) -> None:
    scores = put(store, "none", 0, 0.0)
    (result,) = Index([store]).results
    scores.assign(name=["NA", *scores.name[1:]]).to_csv(result.folder / "scores.csv", index=False)
    assert result.scores().name[0] == "NA"


def test_columns_are_the_documented_ones_and_equal_stores_give_equal_bytes(store: Store, tmp_path: Path) -> None:
    put(store, "none", 0, 0.0)
    put(store, "mine", 0, 0.1)
    for name in ("one.csv", "two.csv"):
        write_csv(leaderboard(Index([store]).results), tmp_path / name)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert list(pd.read_csv(tmp_path / "one.csv").columns) == list(COLUMNS)
    assert all(meaning for meaning in COLUMNS.values())


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@x"])
def test_a_name_that_a_spreadsheet_would_run_is_inert(name: str, store: Store, tmp_path: Path) -> None:
    put(store, name, 0, 0.0)
    write_csv(leaderboard(Index([store]).results), tmp_path / "x.csv")
    assert pd.read_csv(tmp_path / "x.csv").loss[0] == f"'{name}"


def test_a_newline_in_a_name_does_not_break_the_table() -> None:
    values: list[Any] = [inert("a\nb"), inert(3), inert("plain")]
    assert values == ["a b", 3, "plain"]
