"""Two rows are compared image by image, or the field that forbids it is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_scores, put

from usbench.errors import UsbenchError
from usbench.evaluate.classification import balanced
from usbench.evaluate.statistics import crossed_interval
from usbench.report.cells import cells
from usbench.report.compare import compare, find, notes
from usbench.report.index import Index
from usbench.report.leaderboard import board_of
from usbench.report.verify import Verifier
from usbench.runs.records import write_json
from usbench.runs.store import Store


def pair(store: Store, first: str, second: str) -> Any:
    every = cells(Index([store]).results)
    return compare(find(first, every, [store]), find(second, every, [store]))


def test_the_difference_is_paired_over_the_seeds_that_both_have(store: Store) -> None:
    mine = [put(store, "mine", seed, 0.1) for seed in (0, 1, 2)]
    other = [put(store, "other", seed, 0.0, scores=made_up_scores(seed + 9, 0.0)) for seed in (1, 2, 3)]
    (found,) = pair(store, "mine", "other")
    lesions = mine[0].lesion.to_numpy()
    apart = np.stack([(a.dice - b.dice)[lesions] for a, b in zip(mine[1:], other[:2], strict=True)], 1)
    assert found.estimate == crossed_interval(apart, mine[0].group.to_numpy()[lesions])
    assert found.seeds == [1, 2] and len(found.images) == 10
    worst = int(np.abs(apart.mean(axis=1)).argmax())
    assert found.images[0][0] == mine[0].name[lesions].to_list()[worst]


def test_of_a_balanced_metric_the_images_and_the_signed_ranks_are_what_is_right(store: Store) -> None:
    label = np.repeat([0, 1], [90, 10])
    facts = {"primary": "balanced_accuracy", "metrics": ["balanced_accuracy"]}
    for loss, wrong in (("mine", []), ("other", [90, 91])):
        right = np.isin(np.arange(100), wrong, invert=True).astype(float)
        scores = pd.DataFrame({"name": [f"i{k}" for k in range(100)], "group": np.arange(100), "label": label})
        scores = scores.assign(accuracy=right, balanced_accuracy=balanced(right, label))
        for seed in (0, 1):
            put(store, loss, seed, 0.0, scores=scores, facts=facts)
    (found,) = pair(store, "mine", "other")
    assert found.estimate.mean == pytest.approx(0.1) and found.signed_rank == 0.5
    assert found.images[:2] == [("i90", 1.0, 0.0), ("i91", 1.0, 0.0)] and found.images[2][1:] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("too", "field"),
    [
        ({"test_data": "y"}, "test_data is x and y"), ({"train_data": "y"}, "train_data is x and y"),
        ({"fold": "1"}, "fold is 0 and 1"), ({"fraction": 20.0}, "label_fraction is 100.0 and 20.0"),
        ({"backbone": "unet"}, "backbone is unet-tiny and unet"), ({"precision": "bf16"}, "precision is float32"),
        ({}, "the list of training images"),
    ],
)  # fmt: skip
def test_rows_of_two_arenas_are_refused_by_the_first_field_that_differs(
    store: Store, too: dict[str, Any], field: str
) -> None:
    put(store, "mine", 0, 0.1)
    put(store, "other", 0, 0.1, arena="b", **too)
    with pytest.raises(UsbenchError, match=f"'mine'.*'other'.* cannot stand in one table: {field}"):
        pair(store, "mine", "other")


def test_rows_of_another_recipe_are_refused_by_its_field(store: Store) -> None:
    put(store, "mine", 0, 0.1)
    put(store, "other", 0, 0.1, arena="b")
    for result in Index([store]).results:
        if result.row["loss"] == "other":
            record = store.record(f"finetune-{result.finetuned}")
            record["identity"]["schedule"]["lr"] = 0.2
            write_json(store.folder(f"finetune-{result.finetuned}") / "record.json", record)
    with pytest.raises(UsbenchError, match=r"the fine-tune's schedule\.lr is 0\.1 and 0\.2"):
        pair(store, "mine", "other")


def test_rows_of_another_pretraining_budget_are_refused_but_baselines_are_exempt(store: Store) -> None:
    put(store, "mine", 0, 0.1, steps=4)
    put(store, "other", 0, 0.1, steps=8)
    put(store, "none", 0, 0.0)
    with pytest.raises(UsbenchError, match="the pretraining's steps are 4 and 8"):
        pair(store, "mine", "other")
    assert pair(store, "mine", "none") and pair(store, "other", "none")


def test_rows_that_differ_in_their_start_alone_are_compared_and_it_is_said(store: Store) -> None:
    for seed in (0, 1):
        put(store, "none", seed, 0.0, arena="a/random")
        put(store, "none", seed, 0.1, arena="a/mine", init="mine.safetensors")
        put(store, "none", seed, 0.1, arena="b/other", init="other.safetensors")
    (found,) = pair(store, "none-a/mine", "none-a/random")
    assert found.estimate.mean == pytest.approx(0.1) and found.seeds == [0, 1]
    assert notes([found])[0].startswith(
        "Their starting weights differ (none from mine.safetensors and none from random)"
    )
    with pytest.raises(UsbenchError, match=r"init is other\.safetensors and random"):
        pair(store, "none-b/other", "none-a/random")  # other labelled images


def test_what_a_reader_must_know_is_said(store: Store) -> None:
    put(store, "mine", 0, 0.1, facts={"pretrain_labels": "all"}, versions={"torch": "2.11"}, leaks=7)
    put(store, "none", 0, 0.1, versions={"torch": "2.15"})
    (found,) = pair(store, "mine", "none")
    said = " ".join(notes([found]))
    assert "all and none" in said and "torch 2.11 and 2.15" in said and "One shared seed" in said
    assert "let pass: 7 and 0" in said and math.isnan(found.signed_rank)


@pytest.mark.parametrize(
    ("too", "said"),
    [
        ({"facts": {"pretrain_labels": "all"}}, "saw other labels: none and all"),
        ({"shift": "out-transductive"}, "shift is out and out-transductive"),
        ({"leaks": 3}, "let pass with near-duplicates"),
    ],
)
def test_rows_whose_pretrainings_do_not_rank_together_are_refused(store: Store, too: dict[str, Any], said: str) -> None:
    put(store, "mine", 0, 0.1, shift="out")
    put(store, "other", 0, 0.1, **{"shift": "out", **too})
    with pytest.raises(UsbenchError, match=said):
        pair(store, "mine", "other")


@pytest.mark.parametrize("chosen_first", [True, False])
def test_what_was_chosen_among_trials_stands_beside_what_somebody_asked_for(
    usbench: Callable[..., Any], store: Store, tmp_path: Path, chosen_first: bool
) -> None:
    """One setting, in the table of a suite that chose it and in that of a run: both tables keep their baselines."""
    other = Store(tmp_path / "other").open()
    for seed in (0, 1):
        for loss, gain in (("none", 0.0), ("mine", 0.1)):
            put(store, loss, seed, gain)
            put(other, loss, seed, gain, arena="a/chosen", setting=f"{loss}-a", chosen="finetune.lr=0.1 (of 2)")
    put(store, "rare", 0, 0.1)
    stores = [other, store] if chosen_first else [store, other]
    every = cells(Index(stores).results)
    assert len(every) == 5 and all(cell.base for cell in every if not cell.row["baseline"])
    assert [cell.seeds for cell in every if cell.row["loss"] == "mine"] == [(0, 1), (0, 1)]
    (found,) = compare(find("mine-a", every, stores), find("none-a", every, stores))
    assert found.first.row["arena"] == found.second.row["arena"] and found.estimate.mean > 0
    chosen = [cell for cell in every if cell.row.get("chosen") and cell.row["loss"] == "mine"]
    with pytest.raises(UsbenchError, match=r"only 'rare' \(rare-a\) was not chosen among trials"):
        compare(chosen, find("rare-a", every, stores))
    assert usbench("leaderboard", *(s.root for s in stores), "--csv", tmp_path / "board.csv").code == 0
    board = pd.read_csv(tmp_path / "board.csv").set_index(["loss", "chosen"], drop=False)
    assert board.key.tolist().count("mine-a") == 2 and board.delta_vs_supervised.notna().sum() == 3
    verifier = Verifier(store)
    verifier.table(tmp_path / "board.csv", board_of(every))
    assert not verifier.report.wrong
    whole = pd.read_csv(tmp_path / "board.csv", dtype=str)
    whole[(whole.loss != "mine") | whole.chosen.isna()].to_csv(tmp_path / "cut.csv", index=False)
    verifier.table(tmp_path / "cut.csv", board_of(every))
    assert [what.rpartition(": ")[2] for what, _ in verifier.report.wrong] == ["row mine-a is missing"]


def test_rows_are_named_by_keys_and_their_beginnings(usbench: Callable[..., Any], store: Store) -> None:
    put(store, "mine", 0, 0.1)
    put(store, "mint", 0, 0.1)
    put(store, "other", 1, 0.0)
    say = usbench("compare", "mine", "mint", "--in", store.root)
    assert say.code == 0 and "+0.000" in say.out and "i0" in say.out, say.err
    for first, second, sentence in (
        ("min", "other", "begins the keys of several rows (mine-a, mint-a)"),
        ("mime-a", "other", "did you mean 'mine-a'?"),
        ("mine", "other", "has seeds 0 and"), ("mine", "mine", "is one row"),
    ):  # fmt: skip
        refused = usbench("compare", first, second, "--in", store.root)
        assert refused.code == 2 and sentence in refused.one_sentence()
