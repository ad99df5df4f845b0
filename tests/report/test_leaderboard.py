"""Every number of the table can be made again by hand from the per-image scores."""

from __future__ import annotations

import html
import io
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_scores, put
from markdown_it import MarkdownIt
from rich.console import Console

from usbench.api.stored import of_stores
from usbench.errors import UsbenchError
from usbench.evaluate.segmentation import METRICS
from usbench.evaluate.statistics import Estimate, crossed_interval
from usbench.report.cells import cells
from usbench.report.columns import COLUMNS, columns
from usbench.report.differences import pooled
from usbench.report.files import csv_text, inert, markdown_text, write_csv
from usbench.report.index import Index
from usbench.report.leaderboard import board_of, table_of
from usbench.report.results import Result, evaluations
from usbench.report.robustness import robustness_tables
from usbench.report.table import footnotes, interval, results_table, results_tables
from usbench.runs.store import Store


def leaderboard(found: Sequence[Result]) -> pd.DataFrame:
    return board_of(cells(found))


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


def test_what_is_lost_out_of_distribution_is_lost_by_the_same_networks_and_seeds(store: Store) -> None:
    inside = [put(store, "none", seed, 0.0, arena="a/home", test_data="home", shift="in") for seed in (0, 1, 2)]
    out = [put(store, "none", seed, -0.2, arena="a/away", test_data="away", shift="out") for seed in (0, 2)]
    table = leaderboard(Index([store]).results).set_index("test_data")
    means = [np.mean([t.dice[t.lesion].mean() for t in tables]) for tables in ([inside[0], inside[2]], out)]
    assert table.drop_from_in["away"] == pytest.approx(means[0] - means[1])
    assert math.isnan(table.drop_from_in["home"])


def test_a_set_without_a_lesion_tells_nothing_of_what_is_lost(store: Store) -> None:
    put(store, "none", 0, 0.0, arena="a/home", test_data="home", shift="in")
    normal = made_up_scores(0, 0.0).assign(lesion=False)
    put(store, "none", 0, 0.0, arena="a/none", test_data="normal", shift="in", scores=normal)
    put(store, "none", 0, -0.2, arena="a/away", test_data="away", shift="out")
    table = leaderboard(Index([store]).results).set_index("test_data")
    assert table.drop_from_in["away"] == pytest.approx(table.score_mean["home"] - table.score_mean["away"])
    assert table.images["normal"] == 0 and math.isnan(table.score_mean["normal"])


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.01, -0.2, 0.3), "+.010 [-.200, +.300]"),
        ((10.123, -20.5, 100.25), "+10.123 [-20.500, +100.250]"),
        ((0.0, math.nan, math.nan), "+.000"),
        ((-1.5, math.nan, math.nan), "-1.500"),
    ],
)
def test_a_difference_is_shown_as_the_number_it_is(numbers: tuple[float, float, float], text: str) -> None:
    assert interval(Estimate(*numbers, math.nan)) == text


def test_normal_images_stand_apart(store: Store) -> None:
    put(store, "none", 0, 0.0)
    table = leaderboard(Index([store]).results)
    assert table.normal_fp_rate[0] == pytest.approx(0.4)  # 5 normals, of which 3 have an empty prediction
    assert table.normal_fp_area[0] == pytest.approx(2 / 5 * 10)
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


def test_a_column_pools_the_test_sets_that_all_lines_of_a_training_have_and_says_so(store: Store) -> None:
    of = {name: {"facts": {"pack": name * 3}, "test_data": name} for name in "xyz"}
    means = {}
    for loss in ("none", "mine"):
        for name, gain in (("x", 0.0), ("y", 0.2)):
            if (loss, name) != ("mine", "y"):
                scores = put(store, loss, 0, gain, arena=f"a/{name}", **of[name])
                means[loss, name] = scores.dice[scores.lesion].mean()
        put(store, loss, 0, 0.1, arena="a/z", shift="out", **of["z"])
    shown = lines(store)
    assert shown["none"][0] == f"{means['none', 'x']:.3f}" and shown["mine"][0] == f"{means['mine', 'x']:.3f}"
    table = results_table(cells(Index([store]).results), "")
    assert "pools only the test sets" in str(table.caption)


def test_another_pack_of_the_same_name_changes_no_line(store: Store) -> None:
    for loss in ("none", "mine"):
        put(store, loss, 0, 0.0, arena="a/x", facts={"pack": "one"})
        put(store, loss, 0, 0.1, arena="a/y", test_data="y", shift="out", facts={"pack": "two"})
        put(store, loss, 0, 0.2, arena="a/z", test_data="z", shift="out", facts={"pack": "three"})
    before = lines(store)
    put(store, "none", 0, 0.3, arena="b/x", setting="other", facts={"pack": "four"})
    put(store, "none", 0, 0.3, arena="b/y", setting="other-y", test_data="y", shift="out", facts={"pack": "five"})
    after = lines(store)
    assert after["mine"] == before["mine"] and before["none"] in after.values() and len(after) == 3


def test_where_one_patient_allows_no_interval_the_difference_stands_alone(store: Store) -> None:
    for loss, gain in (("none", 0.0), ("mine", 0.1)):
        put(store, loss, 0, 0.0, scores=made_up_scores(0, gain).assign(group=1))
    assert lines(store)["mine"][1] == "+.100"


def test_several_unseen_sets_are_pooled_over_the_seeds_that_all_have(store: Store) -> None:
    first = [put(store, "none", seed, 0.0, arena="a/y", test_data="y", shift="out") for seed in (0, 1)]
    second = put(store, "none", 1, 0.1, arena="a/z", test_data="z", shift="out")
    lesions = second.lesion.to_numpy()
    both = pooled(cells(Index([store]).results))
    assert both.mean == pytest.approx((first[1].dice[lesions].mean() + second.dice[lesions].mean()) / 2)
    assert math.isnan(pooled(cells(Index([store]).results), [None, None]).mean)


def test_distances_come_in_mm_too_over_the_images_whose_pixel_size_is_known(store: Store) -> None:
    scores = made_up_scores(0, 0.0)
    scores["pixel_mm"] = np.where(np.arange(len(scores)) % 2, 0.1, np.nan)
    put(store, "none", 0, 0.0, scores=scores)
    known = scores[scores.lesion & scores.pixel_mm.notna()]
    table = leaderboard(Index([store]).results)
    assert table.hd95_mm_mean[0] == pytest.approx(known.hd95.mean() * 0.1)
    assert table.hd95_mean[0] == pytest.approx(scores.hd95[scores.lesion].mean())


def test_a_missing_border_is_left_out_of_the_mean_and_counted(store: Store) -> None:
    scores = made_up_scores(0, 0.0)
    scores.loc[[0, 1, 2, 3, 4], ["hd95", "assd"]] = np.nan
    put(store, "none", 0, 0.0, scores=scores)
    table = leaderboard(Index([store]).results)
    assert table.no_distance[0] == pytest.approx(5 / 25)
    assert table.hd95_mean[0] == pytest.approx(scores.hd95[scores.lesion].mean())


def test_an_image_without_a_border_in_one_seed_is_left_out_in_all(store: Store) -> None:
    for seed, missing in ((0, [0, 1, 2]), (1, [2, 3])):
        scores = made_up_scores(seed, 0.0)
        scores.loc[missing, ["hd95", "assd"]] = np.nan
        put(store, "none", seed, 0.0, scores=scores)
    assert leaderboard(Index([store]).results).no_distance[0] == pytest.approx(4 / 25)


CLASSIFY: dict[str, Any] = {"metrics": ["accuracy", "confidence"], "primary": "accuracy"}


def classified(seed: int) -> pd.DataFrame:
    """Twenty frames of six videos and four single images."""
    rng = np.random.default_rng(seed)
    benign = rng.uniform(0, 1, 24)
    label = rng.integers(0, 2, 24)
    return pd.DataFrame(
        {
            "name": [f"f{k}" for k in range(24)], "group": [*(np.arange(20) % 6), 7, 8, 9, 9], "label": label,
            "video": [*(f"v{k % 6}" for k in range(20)), "", "", "", ""],
            "accuracy": ((benign < 0.5) == label).astype(float), "confidence": np.maximum(benign, 1 - benign),
            "p_benign": benign, "p_malignant": 1 - benign,
        }
    )  # fmt: skip


def test_a_protocol_without_lesions_counts_every_image_and_every_video(store: Store) -> None:
    tables = [classified(seed) for seed in (0, 1)]
    for seed, scores in enumerate(tables):
        put(store, "none", seed, 0.0, scores=scores, facts=CLASSIFY)
    (line,) = leaderboard(Index([store]).results).to_dict("records")
    assert line["primary"] == "accuracy" and (line["images"], line["groups"]) == (24, 9)
    assert line["score_mean"] == line["accuracy_mean"] == pytest.approx(np.mean([t.accuracy.mean() for t in tables]))
    assert "dice_mean" not in line and math.isnan(line["normal_fp_rate"])
    means = []
    for scores in tables:
        seen = [scores[scores.video == f"v{k}"].accuracy.mean() for k in range(6)]
        means.append(np.mean([*seen, *scores.accuracy[20:]]))
    assert line["video_score_mean"] == pytest.approx(np.mean(means))


def test_a_balanced_metric_has_no_mean_over_videos(store: Store) -> None:
    facts = {**CLASSIFY, "primary": "balanced_accuracy", "metrics": ["balanced_accuracy"]}
    scores = classified(0).rename(columns={"accuracy": "balanced_accuracy"})
    put(store, "none", 0, 0.0, scores=scores.assign(balanced_accuracy=2.5), facts=facts)
    assert leaderboard(Index([store]).results).video_score_mean.isna().all()


def test_of_two_scorings_of_one_training_the_newer_rules_count(store: Store) -> None:
    put(store, "none", 0, 0.0)
    (old,) = Index([store]).results
    newer = replace(old, revision=old.revision + 1, row={**old.row, "test_data": "newer"})
    for found in ([old, newer], [newer, old]):
        assert leaderboard(found).test_data.to_list() == ["newer"]


def test_the_calibration_error_is_that_of_the_probabilities(store: Store) -> None:
    scores = classified(3)
    put(store, "none", 0, 0.0, scores=scores, facts=CLASSIFY)
    expected = 0.0
    for k in range(15):
        inside = scores[(scores.confidence > k / 15) & (scores.confidence <= (k + 1) / 15)]
        right = (inside[["p_benign", "p_malignant"]].to_numpy().argmax(1) == inside.label).mean()
        expected += len(inside) / 24 * abs(inside.confidence.mean() - right) if len(inside) else 0
    assert leaderboard(Index([store]).results).ece[0] == pytest.approx(expected)


def test_a_metric_that_a_record_promises_and_scores_lack_is_an_empty_cell(store: Store) -> None:
    scores = made_up_scores(0, 0.0).drop(columns=["hd95", "area_predicted"])
    scores["iou"] = np.inf
    put(store, "none", 0, 0.0, scores=scores)
    put(store, "other", 0, 0.0, scores=classified(0), facts=CLASSIFY, arena="b")
    table = leaderboard(Index([store]).results).set_index("loss")
    assert math.isnan(table.hd95_mean["none"]) and math.isnan(table.iou_mean["none"])
    assert table.dice_mean["none"] == pytest.approx(scores.dice[scores.lesion].mean())
    assert math.isnan(table.dice_mean["other"]) and table.accuracy_mean.notna()["other"]


def test_the_difference_to_the_best_is_paired_and_the_best_has_none(store: Store) -> None:
    best, other = put(store, "best", 0, 0.2), put(store, "other", 0, 0.1)
    put(store, "none", 0, 0.0)
    table = leaderboard(Index([store]).results).set_index("loss")
    assert math.isnan(table.delta_vs_best["best"])
    assert table.delta_vs_best["other"] == pytest.approx((other.dice - best.dice)[best.lesion].mean())


def test_a_row_of_another_pretraining_budget_ranks_apart(store: Store) -> None:
    put(store, "none", 0, 0.0)
    put(store, "short", 0, 0.1, steps=4)
    put(store, "shorter", 0, 0.05, steps=4)
    put(store, "long", 0, 0.2, steps=8)
    table = leaderboard(Index([store]).results).set_index("loss")
    assert table["rank"].to_dict() == {"short": 1, "shorter": 2, "long": 1, "none": 1}
    assert table.delta_vs_best["shorter"] == pytest.approx(-0.05)


def test_corrupted_copies_of_a_test_set_are_tested_and_ranked_apart(store: Store) -> None:
    for seed in (0, 1):
        put(store, "none", seed, 0.0)
        put(store, "mine", seed, 0.1)
        for severity in range(1, 4):
            arena, shift = f"a/{severity}", f"speckle:{severity}"
            put(store, "none", seed, 0.0, arena=arena, shift=shift)
            put(store, "mine", seed, 0.1, arena=arena, shift=shift)
    every = Index([store]).results
    whole = leaderboard(every).set_index("key")
    alone = leaderboard([r for r in every if r.row["shift"] == "in"]).set_index("key")
    assert whole.p_holm["mine-a"] == alone.p_holm["mine-a"]
    assert set(lines(store)) == {"none", "mine"}


def test_what_a_test_set_chose_is_a_row_of_its_own_and_changes_no_other(store: Store) -> None:
    peeked = {}
    for loss in ("none", "mine"):
        for seed in (0, 1):
            put(store, loss, seed, 0.0, scores=classified(seed), facts={**CLASSIFY, "selection": "inner"})
    alone = leaderboard(Index([store]).results)
    for folder in evaluations(store):
        scores = pd.read_csv(folder / "scores.csv")
        loss, seed = (store.record(folder.name)["row"][name] for name in ("loss", "seed"))
        peeked[loss, seed] = scores.assign(accuracy=1.0 if loss == "mine" else scores.accuracy)
        peeked[loss, seed].to_csv(folder / "best-on-test.csv", index=False)
    whole = leaderboard(Index([store]).results)
    pd.testing.assert_frame_equal(whole[whole.selection == "inner"], alone, check_dtype=False)
    best = whole[whole.selection == "best-on-test"].set_index("loss")
    assert list(best.key) == [f"{key}-best-on-test" for key in alone.set_index("loss").key[best.index]]
    mean = np.mean([peeked["none", seed].accuracy.mean() for seed in (0, 1)])
    assert best.accuracy_mean["mine"] == 1 and best.accuracy_mean["none"] == pytest.approx(mean)
    assert best.delta_vs_supervised["mine"] == pytest.approx(1 - mean) and best["rank"]["mine"] == 1
    assert best.score_inner.isna().all()
    assert len(results_table(cells(Index([store]).results), "t").rows) == 2  # the terminal shows none of them


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
    assert list(pd.read_csv(tmp_path / "one.csv").columns) == list(columns(METRICS))
    assert all(meaning for meaning in COLUMNS.values())


def test_what_starting_weights_have_seen_is_asked_in_a_footnote(store: Store) -> None:
    for init, arena in (("random", "a"), ("imagenet", "b")):
        put(store, "none", 0, 0.0, init=init, arena=arena)
    assert not any("not known here" in note for note in footnotes(cells(Index([store]).results), []))
    put(store, "none", 0, 0.0, init="mine.safetensors", arena="c")
    assert any("Which images mine.safetensors" in note for note in footnotes(cells(Index([store]).results), []))


def test_other_versions_and_half_written_records_are_footnotes(store: Store) -> None:
    put(store, "none", 0, 0.0, versions={"torch": "2.11"})
    put(store, "mine", 0, 0.0, versions={"torch": "2.15"})
    put(store, "other", 0, 0.0)
    index = Index([store])
    broken = next(r.folder for r in index.results if r.row["loss"] == "other")
    text = (broken / "record.json").read_text()
    for cut in (text[:100], '{"row": {}, "facts": {}, "identity": {"finetuned": "x"}}', "[]", None):
        (broken / "record.json").unlink() if cut is None else (broken / "record.json").write_text(cut)
        index = Index([store])
        notes = footnotes(cells(index.results), index.broken)
        assert any("torch 2.11 and 2.15" in note for note in notes)
        what = "half-written (it has no record.json)" if cut is None else "damaged ("
        assert any(f"Not in the table: {broken.name}, which is {what}" in note for note in notes)
        assert all(note.count("(") == note.count(")") for note in notes)


def test_rows_of_different_processors_are_a_footnote(store: Store) -> None:
    for loss, name in (("none", "AMD, AVX512"), ("mine", "Intel, AVX512"), ("other", "Intel, AVX512, NVIDIA H100")):
        put(store, loss, 0, 0.0, processor=name)
        notes = [note for note in footnotes(cells(Index([store]).results), []) if "different processors" in note]
        assert bool(notes) == (loss != "none")
    assert "(AMD, AVX512; Intel, AVX512, NVIDIA H100)" in notes[0]
    Index([store]).save()
    assert notes[0] in footnotes(cells(Index([store]).results), [])


def test_a_row_that_stands_in_two_stores_with_other_scores_is_a_footnote(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other").open()
    for seed in range(2):
        put(store, "mine", seed, 0.0)
        put(other, "mine", seed, 0.1 * seed)
    notes = footnotes(cells(Index([store, other]).results), [])
    assert any("in several stores with other scores" in note and ": 1; those of" in note for note in notes)
    assert not any("several stores" in note for note in footnotes(cells(Index([store]).results), []))


HOSTILE = ["=cmd()", "+1", "-1", "@x", "\t=1+1", "\n@x", "＝cmd()"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_a_spreadsheet_would_run_is_inert(name: str, store: Store, tmp_path: Path) -> None:
    put(store, name, 0, 0.0)
    write_csv(leaderboard(Index([store]).results), tmp_path / "x.csv")
    assert pd.read_csv(tmp_path / "x.csv").loss[0] == f"'{name.strip()}"


def test_a_metric_that_a_spreadsheet_would_run_is_inert(store: Store) -> None:
    put(store, "none", 0, 0.0, scores=classified(0), facts={"metrics": ["=cmd()"], "primary": "=cmd()"})
    assert "\n=" not in csv_text(leaderboard(Index([store]).results)).replace(",", "\n")


MARKED = ["<script>alert(1)</script>", "a | b", "a\nb\r\n| --- |", "![x](//x)", "[x](y)", "`x", "\x1b[31mred", "**x**"]


@pytest.mark.parametrize("name", [*MARKED, *HOSTILE])
def test_no_name_becomes_more_than_text_in_markdown(name: str, store: Store) -> None:
    put(store, name, 0, 0.0)
    put(store, "none", 0, 0.0, test_data=name, train_data=name)
    page = MarkdownIt("commonmark").enable("table").render(markdown_text(leaderboard(Index([store]).results)))
    assert set(re.findall(r"<(\w+)", page)) == {"h3", "table", "thead", "tbody", "tr", "th", "td"}
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in page.split("<tr>")[2:]]
    by_loss = {html.unescape(row[0]): row for row in rows}
    assert set(by_loss) == {inert(name), "none"} and {len(row) for row in rows} == {23}
    assert html.unescape(by_loss["none"][8]) == inert(name) and inert(name)[0] not in "=+-@＝"


def test_a_newline_in_a_name_does_not_break_the_table() -> None:
    values: list[Any] = [inert("a\nb"), inert(3), inert("plain")]
    assert values == ["a b", 3, "plain"]


def test_corrupted_images_change_nothing_of_what_is_said_of_clean_ones(store: Store) -> None:
    for seed in (0, 1, 2):
        put(store, "mine", seed, 0.03, arena="a/clean")
        put(store, "none", seed, 0.0, arena="a/clean")
    before, shown = leaderboard(Index([store]).results), results_tables(cells(Index([store]).results))
    for seed, severity in itertools.product((0, 1, 2), (1, 2, 3)):
        for loss in ("mine", "none"):
            put(store, loss, seed, -0.1 * severity, arena=f"a/blur-{severity}", shift=f"blur:{severity}")
    after = leaderboard(Index([store]).results)
    clean = after[after["shift"] == "in"].reset_index(drop=True)
    pd.testing.assert_frame_equal(clean, before)
    (table,) = results_tables(cells(Index([store]).results))
    assert [list(c.cells) for c in table.columns] == [list(c.cells) for c in shown[0].columns]


def test_robustness_is_the_mean_over_severities_beside_the_same_images_uncorrupted(store: Store) -> None:
    clean = [put(store, "mine", seed, 0.0, arena="a/clean") for seed in (0, 1)]
    put(store, "none", 0, 0.0, arena="a/clean")
    shifted: dict[int, list[pd.DataFrame]] = {1: [], 3: [], 5: []}
    for severity, seed in itertools.product(shifted, (0, 1)):
        scores = put(store, "mine", seed, -0.1 * severity, arena=f"a/s{severity}", shift=f"tgc:{severity}")
        shifted[severity].append(scores)
    for severity in (1, 5):
        put(store, "none", 0, -0.2, arena=f"a/s{severity}", shift=f"tgc:{severity}")
    put(store, "mine", 0, 0.0, arena="b/s1", shift="tgc:1")  # of another fine-tune, without a clean result
    (table,) = robustness_tables(cells(Index([store]).results))
    _, losses, dice, change = (list(column.cells) for column in table.columns)
    assert list(table.columns[0].cells) == ["clean", "", "tgc 1,5", ""]  # 3 was not asked of every line
    lesions = clean[0].lesion.to_numpy()
    expected = np.mean([t.dice[lesions].mean() for severity in (1, 5) for t in shifted[severity]])
    whole = np.mean([t.dice[lesions].mean() for t in clean])
    place = losses.index("mine", 2)
    assert dice[place] == f"{expected:.3f}" and dice[losses.index("mine")] == f"{whole:.3f}"
    assert change[place].startswith(f"{expected - whole:+.3f}".replace("0.", ".", 1))
    assert robustness_tables([cell for cell in cells(Index([store]).results) if cell.row["shift"] == "in"]) == []


def test_robustness_is_told_of_each_metric_by_its_name(store: Store) -> None:
    for arena, facts in (("dice", {}), ("accuracy", {"metrics": ["accuracy"], "primary": "accuracy"})):
        for shift in ("in", "tgc:1"):
            scores = made_up_scores(0, 0.0).assign(accuracy=0.25)
            put(store, "none", 0, 0.0, scores=scores, facts=facts, arena=f"{arena}/{shift}", shift=shift,
                protocol=arena, finetuned=arena)  # fmt: skip
    tables = {str(table.columns[2].header): table for table in robustness_tables(cells(Index([store]).results))}
    assert set(tables) == {"Dice", "Accuracy"} and "mean Accuracy" in str(tables["Accuracy"].title)
    assert list(tables["Accuracy"].columns[2].cells) == ["0.250", "0.250"]


def test_a_long_metric_leaves_room_for_the_names_of_the_rows(store: Store) -> None:
    facts = {"primary": "balanced_accuracy", "metrics": ["balanced_accuracy"]}
    for loss in ("mine", "none"):
        for shift in ("in", "out"):
            scores = made_up_scores(0, 0.0).assign(balanced_accuracy=0.5)
            put(store, loss, 0, 0.0, scores=scores, facts=facts, arena=f"a/{shift}", shift=shift, test_data=shift)
    console = Console(width=80, file=io.StringIO())
    for table in results_tables(cells(Index([store]).results)):
        console.print(table)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(word in said for word in (" mine ", " none ", " labels ", "+.000 [+.000, +.000]")), said


def test_rows_of_fewer_seeds_than_their_baseline_are_said(store: Store) -> None:
    for seed in (0, 1, 2):
        put(store, "none", seed, 0.0)
    for seed in (0, 1):
        put(store, "mine", seed, 0.0)
    assert any(
        "with 2 to 3 seeds, not the same for all rows; a difference is over" in n
        for n in footnotes(cells(Index([store]).results), [])
    )
    put(store, "byol", 0, 0.0)
    assert any("1 to 3 seeds (with one: over patients only)" in n for n in footnotes(cells(Index([store]).results), []))


def test_robustness_shows_the_same_seeds_clean_and_corrupted(store: Store) -> None:
    clean = [put(store, "none", seed, 0.1 * seed, arena="a/clean") for seed in (0, 1, 2)]
    shifted = put(store, "none", 0, -0.1, arena="a/s1", shift="tgc:1")
    (table,) = robustness_tables(cells(Index([store]).results))
    _, _, dice, change = (list(column.cells) for column in table.columns)
    lesions = clean[0].lesion.to_numpy()
    before, after = (t.dice[lesions].mean() for t in (clean[0], shifted))
    assert dice == [f"{before:.3f}", f"{after:.3f}"]
    assert change[1].startswith(f"{after - before:+.3f}".replace("0.", ".", 1))


def test_a_column_pools_the_test_sets_that_every_line_of_the_same_training_sets_has(store: Store) -> None:
    """Rows that pretrained on the images of one target stand elsewhere for it, and are compared on the other one."""
    for name, gain in (("near", 0.0), ("far", -0.3)):
        shift = {"near": "out", "far": "out-transductive"}[name]
        put(store, "mine", 0, gain, arena=f"a/{name}", test_data=name, shift=shift)
        put(store, "none", 0, gain, arena=f"a/{name}", test_data=name, shift="out")
    every = cells(Index([store]).results)
    first, second = results_tables(every)
    dice = list(first.columns[4].cells)
    assert dice[0] == dice[1] == f"{next(c for c in every if c.row['test_data'] == 'near').interval().mean:.3f}"
    assert "Transductive" in str(second.title)


def test_a_picture_that_cannot_be_drawn_takes_no_table_away(usbench: Any, store: Store, tmp_path: Path) -> None:
    put(store, "mine", 0, 0.0)
    board = tmp_path / "board.csv"
    said = usbench("leaderboard", store.root, "--csv", board, "--ranks", tmp_path / "ranks.txt")
    assert said.code == 2 and "cannot be written as 'txt'" in said.one_sentence() and not board.exists()
    said = usbench("leaderboard", store.root, "--csv", board, "--ranks", tmp_path / "ranks.png")
    assert said.code == 2 and "mean ranks need" in said.err and board.exists()
    assert "mine" in said.out and f"1 rows in {board}" in said.out


def test_two_trainings_are_not_one_row(store: Store) -> None:
    put(store, "mine", 0, 0.0, arena="a/x")
    put(store, "mine", 0, 0.1, arena="b/x", setting="mine-a/x")
    with pytest.raises(UsbenchError, match="one row and seed of two trainings"):
        cells(Index([store]).results)


def test_a_row_of_other_seeds_has_no_rank_and_takes_nobody_elses(store: Store) -> None:
    for loss, gain in (("none", 0.0), ("mine", 0.1), ("other", 0.05)):
        for seed in (0, 1, 2):
            put(store, loss, seed, gain)
    put(store, "trial", 7, 0.3)
    table = table_of(cells(Index([store]).results)).set_index("loss")
    assert table["rank"][["mine", "other", "none"]].to_list() == [1, 2, 3] and math.isnan(table["rank"]["trial"])


def test_a_row_stands_beside_the_baseline_of_its_own_suite(store: Store) -> None:
    for suite, gain, fraction in (("a", 0.0, 100.0), ("b", 0.05, 50.0)):
        put(store, "none", 0, gain, setting=f"none-{suite}", fraction=fraction)
        put(store, "mine", 0, 0.1, setting=f"mine-{suite}", fraction=fraction)
    for suite in ("a", "b"):
        own = [r.folder.name for r in Index([store]).results if r.row["setting"].endswith(suite)]
        (store.root / f"suite-{suite}").mkdir()
        said = {"plans": [], "tests": [(name, {}) for name in own]}
        (store.root / f"suite-{suite}" / "suite.json").write_text(json.dumps(said))
    table = of_stores([store.root]).leaderboard.set_index("key")
    assert table.delta_vs_supervised[["mine-a", "mine-b"]].to_list() == pytest.approx([0.1, 0.05])


def test_lines_of_several_training_sets_all_say_theirs(store: Store) -> None:
    for trained in ("x", "y"):
        put(store, "none", 0, 0.0, train_data=trained, arena=trained, setting=f"none-{trained}")
    put(store, "mine", 0, 0.1, train_data="y", arena="y")
    (table,) = results_tables(cells(Index([store]).results))
    assert {str(name) for name in table.columns[1].cells if name} == {"none · x", "none · y", "mine · y"}
