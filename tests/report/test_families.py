"""Ranks compare only what is comparable, and a figure of them is drawn only where there is enough."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import made_up_scores, put
from PIL import Image
from scipy.stats import rankdata

from usbench.report.cells import cells
from usbench.report.differences import difference
from usbench.report.families import families
from usbench.report.figures import mean_ranks
from usbench.report.index import Index
from usbench.report.leaderboard import table_of
from usbench.runs.store import Store

METHODS = ("one", "two", "three")


def fill(store: Store, **too: Any) -> np.ndarray:
    """Three methods and a baseline of two trainings on two test sets each; returns the means of (methods, trainings)
    over the test sets."""
    rng = np.random.default_rng(0)
    means = []
    for fraction in (50.0, 100.0):
        for tested in ("x", "y"):
            shared = {"arena": f"{fraction}/{tested}", "fraction": fraction, "test_data": tested, **too}
            shared |= {"shift": "in" if tested == "x" else "out"}
            for method in (*METHODS, "none"):
                scores = put(store, method, 0, gain := rng.uniform(0, 0.2), **shared)
                means.append(scores.dice[scores.lesion].mean())
                assert gain < 1
    return np.array(means).reshape(2, 2, 4).mean(1).T


def test_the_mean_rank_is_over_trainings_and_their_test_sets_are_one(store: Store) -> None:
    means = fill(store)
    expected = rankdata(-means, axis=0).mean(axis=1)
    table = table_of(cells(Index([store]).results))
    for method, rank in zip((*METHODS, "none"), expected, strict=True):
        assert table[table.loss == method].mean_rank.to_list() == pytest.approx([rank] * 4)


def test_neither_another_budget_nor_a_corruption_is_a_condition_of_the_same_ranks(store: Store) -> None:
    means = fill(store)
    put(store, "rich", 0, 0.5, steps=400, arena="50.0/x", fraction=50.0)
    put(store, "one", 0, 0.5, arena="c", shift="speckle:3", setting="corrupted")
    put(store, "one", 0, 0.5, arena="l", facts={"pretrain_labels": "all"}, setting="labelled")
    drawn = [family for family in families(cells(Index([store]).results)) if family.enough]
    assert [family.complete.shape for family in drawn] == [(4, 2)]
    assert drawn[0].ranks.to_dict() == pytest.approx(
        dict(zip((*METHODS, "none"), rankdata(-means, axis=0).mean(axis=1), strict=True))
    )


def test_from_one_seed_no_test_is_made(store: Store) -> None:
    fill(store)
    (family,) = families(cells(Index([store]).results))
    assert family.enough and all(math.isnan(p) for p in family.pairs.values())
    assert family.bars == [] and "from one seed no test is made" in family.verdict
    assert family.over == "x with 50, 100 % of the labels, tested on x, y"


def test_a_row_of_other_seeds_takes_nobodys_mean_rank(store: Store) -> None:
    for fraction in (50.0, 100.0):
        for seed in range(3):
            for gain, method in enumerate((*METHODS, "none")):
                put(store, method, seed, 0.01 * gain, arena=f"{fraction}/x", fraction=fraction)
        put(store, "trial", 7, 0.5, arena=f"{fraction}/x", fraction=fraction)
    (family,) = families(cells(Index([store]).results))
    assert family.enough and family.ranks.to_dict() == {"none": 1, "three": 2, "two": 3, "one": 4}
    family.__dict__["pairs"] = {pair: math.nan if "one" in pair else 0.5 for pair in family.pairs}
    assert family.bars == [(0, 2)] and "0 of 3 pairs told apart, 3 not tested" in family.verdict


def test_networks_that_were_pretrained_on_a_test_set_take_nobodys_condition(store: Store) -> None:
    means = fill(store)
    for fraction in (50.0, 100.0):
        for tested, shift in (("x", "in"), ("y", "out-transductive")):
            shared = {"fraction": fraction, "test_data": tested, "shift": shift, "pretrain_data": "x+y"}
            put(store, "seer", 0, 0.5, arena=f"{fraction}/{tested}", **shared)
    drawn = [family for family in families(cells(Index([store]).results)) if family.enough]
    assert [set(family.scores.index) for family in drawn] == [{*METHODS, "none"}]
    assert drawn[0].scores.shape == (4, 4) and drawn[0].ranks["one"] == rankdata(-means, axis=0).mean(axis=1)[0]


def test_leaky_rows_and_rows_of_other_images_rank_with_nobody_else(store: Store) -> None:
    fill(store)
    before = table_of(cells(Index([store]).results)).set_index("key").mean_rank
    for fraction in (50.0, 100.0):
        for tested, shift in (("x", "in"), ("y", "out")):
            shared = {"fraction": fraction, "test_data": tested, "shift": shift, "steps": 4}
            put(store, "leaky", 0, 0.5, arena=f"{fraction}/{tested}", leaks=3, **shared)
            put(store, "foreign", 0, 0.5, arena=f"{fraction}/{tested}/imported anew", **shared)
    table = table_of(cells(Index([store]).results)).set_index("key")
    assert table.mean_rank[before.index].to_dict() == before.to_dict()
    assert table.mean_rank[table.loss.isin(["leaky", "foreign"])].isna().all()


def test_rows_that_chose_other_settings_among_equal_trials_rank_under_every_condition(store: Store) -> None:
    for place, fraction in enumerate((20.0, 50.0, 100.0)):
        for number, method in enumerate(METHODS):
            chosen = f"finetune.lr={(place + number) % 3} (of 3)"
            put(store, method, 0, number / 10, arena=f"{fraction}", fraction=fraction, chosen=chosen)
    for folder in store.stages.glob("finetune-*/record.json"):
        record = json.loads(folder.read_text())
        record["identity"]["schedule"]["lr"] = sum(map(ord, folder.parent.name))
        folder.write_text(json.dumps(record))
    table = table_of(cells(Index([store]).results))
    assert table.groupby("loss").mean_rank.unique().map(list).to_dict() == {"one": [3.0], "two": [2.0], "three": [1.0]}


def test_ranks_are_over_the_seeds_that_all_rows_have(store: Store) -> None:
    easy, hard = (made_up_scores(seed, gain) for seed, gain in ((0, 0.0), (1, -0.3)))
    put(store, "few", 0, 0.0, scores=easy)
    for seed, scores in enumerate((easy, hard)):
        better = scores.assign(dice=scores.dice + 0.01)
        put(store, "all", seed, 0.0, scores=better)
    table = table_of(cells(Index([store]).results)).set_index("loss")
    assert table.score_mean["few"] > table.score_mean["all"]
    assert table["rank"].to_dict() == {"all": 1, "few": 2}
    assert table.delta_vs_best["few"] == pytest.approx(-0.01)


def test_a_method_that_stands_twice_under_one_condition_has_no_mean_rank(store: Store) -> None:
    fill(store)
    put(store, "one", 1, 0.0, arena="50.0/x", fraction=50.0, setting="one-again", shift="in")
    table = table_of(cells(Index([store]).results))
    assert table[table.loss == "one"].mean_rank.isna().all() and table[table.loss == "two"].mean_rank.notna().all()


def test_two_methods_or_one_training_are_not_ranked(store: Store) -> None:
    for method in ("one", "two", "none"):
        put(store, method, 0, 0.1)
    table = table_of(cells(Index([store]).results))
    assert table.mean_rank.isna().all() and table["rank"].notna().all()


def test_the_figure_is_drawn_whatever_the_names(store: Store, tmp_path: Path) -> None:
    fill(store)
    for fraction in (50.0, 100.0):
        put(store, "$\\frac{x$\n<b>", 0, 0.1, arena=f"{fraction}/x", fraction=fraction)
    mean_ranks([family for family in families(cells(Index([store]).results)) if family.enough], tmp_path / "ranks.png")
    with Image.open(tmp_path / "ranks.png") as picture:
        assert min(picture.size) > 100


def test_a_bar_joins_what_paired_differences_do_not_tell_apart(store: Store) -> None:
    rng = np.random.default_rng(0)
    gains = {"far": 0.3, "near": 0.01, "none": 0.0, "worse": -0.01}
    for fraction in (50.0, 100.0):
        for loss, gain in gains.items():
            for seed in range(3):
                scores = made_up_scores(seed, gain)
                scores["dice"] += 0.15 * rng.normal(size=len(scores))
                put(store, loss, seed, 0.0, scores=scores, arena=f"{fraction}/x", fraction=fraction)
    (family,) = families(cells(Index([store]).results))
    assert family.ranks.index[0] == "far" and len(family.ranks) == 4
    assert all((p < 0.05) == ("far" in pair) for pair, p in family.pairs.items()) and len(family.pairs) == 6
    assert family.bars == [(1, 3)] and "3 of 6 pairs told apart" in family.verdict
    assert set(family.apart) == {("far", name) for name in family.ranks.index[1:]}
    assert family.verdict.endswith(f": far above {family.ranks.index[1]}, far above {family.ranks.index[2]}, 1 more")
    one, other = (next(c for c in family.cells[name] if c.row["label_fraction"] == 50.0) for name in ("far", "near"))
    assert family.pairs["far", "near"] >= difference(one, other).p / 6  # adjusted, of twice the images
