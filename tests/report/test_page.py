"""The page says what the tables say, needs nothing but itself, and makes nothing of strange names."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import board, made_up_pack, put

from usbench.report.cells import cells
from usbench.report.command import command_of
from usbench.report.files import blocks, visible, with_ends
from usbench.report.gallery import gallery
from usbench.report.index import Index
from usbench.report.leaderboard import table_of
from usbench.report.outline import FINE, outline
from usbench.report.page import page_text
from usbench.report.page_table import tables_of
from usbench.report.summary import places_of
from usbench.runs.store import Store
from usbench.spec import resolve

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\n&lt;b&gt;\u202egnol\u2066{{ 7 * 7 }}"


def page(store: Store, *, images: bool = True, live: str = "") -> str:
    """The page of a store."""
    return page_text(cells(Index([store]).results), [store], [], images=images, live=live)


def data_of(text: str) -> dict[str, Any]:
    """What the page's script is given."""
    return json.loads(re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[0])


class Seen(HTMLParser):
    """What a browser would make of the page: its tags, and the texts of the tables' cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.inside = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two installed sets."""
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path / "home"))
    return {name: made_up_pack(tmp_path / "home" / f"{name}.h5", name) for name in ("x", "far")}


def test_the_page_has_the_rows_the_order_and_the_numbers_of_the_markdown(store: Store) -> None:
    for loss, gain in (("mine", 0.1), ("none", 0.0), ("none-long", 0.02)):
        for shift in ("in", "out-transductive", "speckle:3"):
            for seed in (0, 1):
                more = {"reconstruction": loss == "mine", "setting": f"{shift:.4}-{loss}"}
                put(store, loss, seed, gain, arena=f"a/{shift}", shift=shift, **more)
    table = table_of(cells(Index([store]).results))
    shown = [row for row in Seen(page(store)).rows if row[-1].startswith(("in-", "out-", "spec-"))]
    expected = [row for _, _, some in blocks(table) for row in some.to_dict("records")]
    assert len(shown) == len(expected) == 9
    for row, cells_of in zip(expected, shown, strict=True):
        assert cells_of[0] == row["loss"] + ("†" if row["loss"] == "mine" else "")
        assert with_ends(row, "score_mean", "score", ".3f") in cells_of
        assert with_ends(row, "delta_vs_supervised", "delta_vs_supervised", "+.3f") in cells_of
        assert cells_of[-1] == row["key"][:8]


def test_names_of_strangers_are_inert(store: Store) -> None:
    for loss in ("none", HOSTILE):
        put(store, loss, 0, 0.0, test_data=HOSTILE, backbone=HOSTILE, setting=f"{HOSTILE}{loss}")
    text = page(store)
    seen = Seen(text)
    assert "img" not in {tag for tag, _ in seen.tags}
    assert not any(name.startswith("on") for _, attributes in seen.tags for name in attributes)
    assert sum(tag == "script" for tag, _ in seen.tags) == 2
    assert "\u202e" not in text and "\u2066" not in text and "⟨U+202E⟩gnol⟨U+2066⟩" in html.unescape(text)
    assert "{{ 7 * 7 }}" in html.unescape(text)
    assert any(HOSTILE.partition("\n")[0] in cell for row in seen.rows for cell in row)
    assert visible("a\nb\u200b\u202e") == "a b⟨U+200B⟩⟨U+202E⟩"


def test_the_policy_lets_only_the_pages_own_style_and_script_work(store: Store) -> None:
    put(store, "none", 0, 0.0)
    for live in ("", "tag"):
        text = page(store, live=live)
        policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', text)[0])
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        for kind, tag in (("style-src", "style"), ("script-src", "script")):
            (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
            assert rules[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'"
        assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
        assert rules.get("connect-src") == ("'self'" if live else None)
        assert not re.search(r'\bstyle="|\bon\w+="|(?:src|href)="(?!#|data:)', text)


def test_robustness_is_drawn_of_the_metric_that_the_figures_are_of(store: Store) -> None:
    for loss in ("none", "mine"):
        put(store, loss, 0, 0.0, arena="a/clean")
        put(store, loss, 0, -0.1, arena="a/blur", shift="blur:1")
    facts = {"primary": "area_truth", "metrics": ["area_truth"]}
    for shift in ("in", "blur:1"):
        put(store, "none", 0, 0.0, arena=f"b/{shift}", shift=shift, facts=facts, protocol="other")
    (figure,) = re.findall(r"<svg[^>]*>(?:(?!</svg>).)*under blur.*?</svg>", page(store), re.S)
    assert "Dice under blur" in figure and len(re.findall(r"severity 1: 0\.", figure)) == 2
    assert len(re.findall("severity 1: ", figure)) == 2


def test_the_page_of_an_empty_store_says_so(store: Store) -> None:
    assert "There is no finished result yet" in page(store)


def test_equal_stores_give_equal_pages(store: Store) -> None:
    put(store, "none", 0, 0.0)
    assert page(store) == page(store)


def test_an_outline_encloses_its_mask() -> None:
    rows, columns = np.mgrid[:48, :48]
    mask = ((rows - 20) ** 2 + (columns - 25) ** 2 < 144) & ~((rows - 20) ** 2 + (columns - 25) ** 2 < 9)
    mask[40:44, 0:3] = True  # a second part, at the edge
    from matplotlib.path import Path as Polygon

    inside = np.zeros(mask.shape, bool)
    centres = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], 1) * FINE
    for part in outline(mask).split("M")[1:]:
        start, _, steps = part.rstrip("z").partition("l")
        points = np.array([start.split(), *zip(*[iter(steps.split())] * 2, strict=True)], int).cumsum(axis=0)
        inside ^= Polygon(points).contains_points(centres).reshape(mask.shape)
    assert (inside != mask).sum() <= 0.06 * mask.sum()
    assert outline(np.zeros((8, 8), bool)) == "" and outline(np.ones((8, 8), bool)).count("M") == 1


def test_cases_are_the_best_median_and_worst_of_the_scores(store: Store, packs: dict[str, Any]) -> None:
    board(store, ["mine", "none"], packs, fractions=(100.0,), seeds=(0, 1))
    every = cells(Index([store]).results)
    shown = gallery(every, places_of([store]), images=True)
    assert {group["name"] for group in shown.groups} == {"x", "far"} and not shown.notes
    for group in shown.groups:
        means = 0
        for row in group["rows"]:
            cell = next(c for c in every if c.row["setting"] == row["key"])
            scores = cell.results[0].scores()
            dice = scores[scores.lesion].set_index("name").dice
            means = means + dice
            ordered = dice.sort_values(ascending=False, kind="stable").index
            expected = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
            assert [group["cases"][at]["name"] for at in row["own"]] == expected
            assert all(
                row["scores"][at] == pytest.approx(dice[group["cases"][at]["name"]], abs=5e-4) for at in row["own"]
            )
            assert all(row["paths"][at] for at in (*row["own"], *group["shared"]))
        assert group["cases"][group["shared"][0]]["name"] == means.idxmax()
        assert group["cases"][group["shared"][2]]["name"] == means.idxmin()
        assert all(case["truth"] and case["image"] for case in group["cases"])


def test_without_images_no_picture_travels_and_without_the_pack_no_truth(
    store: Store, packs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    board(store, ["mine", "none"], packs, fractions=(100.0,), seeds=(0,))
    text = page(store, images=False)
    cases = [case for group in data_of(text)["gallery"] for case in group["cases"]]
    assert cases and all("image" not in case and case["truth"] for case in cases)
    assert "data:image/" not in text.partition("<script>")[0] and "Made without images" in text
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path / "nowhere"))
    text = page(store)
    cases = [case for group in data_of(text)["gallery"] for case in group["cases"]]
    assert cases and all("image" not in case and "truth" not in case for case in cases)
    assert "is not installed where this page was made" in text


def test_every_row_tells_where_it_comes_from(store: Store) -> None:
    put(store, "mine", 3, 0.1, facts={"pack": "f" * 32}, versions={"torch": "2.15"})
    (tested,) = store.stages.glob("evaluate-*")
    spec = resolve({"loss": "mine", "seeds": [3]}).model_dump(mode="json")
    (store.root / "mine-run").mkdir()
    run = {"spec": spec, "stages": [[tested.name, "test"]], "packs": {}}
    (store.root / "mine-run" / "run.json").write_text(json.dumps(run))
    said = data_of(page(store))
    (row,) = said["rows"]
    assert row["pack"] == "f" * 32 and said["versions"][row["versions"]] == {"torch": "2.15"}
    assert row["seeds"][0][:2] == ["3", tested.name]
    assert set(row["stages"]) == {f.name for f in store.stages.iterdir()} == set(said["stages"])
    assert said["runs"][row["run"]] == {"spec": spec, "command": "usbench run --loss mine --preset quick --seed 3"}


def test_a_row_of_a_suite_has_the_command_of_the_run_that_asked_for_it(store: Store) -> None:
    put(store, "mine", 0, 0.1, train_data="phantom-l7", aug="spatial", arena="a")
    put(store, "mine", 0, 0.1, train_data="phantom-l7", aug="freq", arena="b")
    tests = {json.loads((f / "record.json").read_text())["row"]["aug"]: f.name for f in store.stages.glob("evaluate-*")}
    asked = [({"loss": "mine", "aug": "spatial"}, None), ({"loss": "mine", "aug": "freq"}, {"spec": {}, "over": {}})]
    plans = [
        {"spec": resolve(given).model_dump(mode="json"), "common": common, "stages": [tests[given["aug"]]]}
        for given, common in asked
    ]
    (store.root / "suite-s").mkdir()
    suite = {"plans": plans, "tests": [[name, "test"] for name in tests.values()]}
    (store.root / "suite-s" / "suite.json").write_text(json.dumps(suite))
    said = data_of(page(store))
    found = {row["name"]: row["run"] for row in said["rows"]}
    assert found["mine · freq"] is None  # chosen among trials
    assert said["runs"][found["mine · spatial"]]["command"] == "usbench run --loss mine --preset quick"


def test_the_title_counts_a_method_once_whatever_it_was_trained_on(store: Store) -> None:
    for trained, loss in ((trained, loss) for trained in ("x", "y") for loss in ("none", "none-long", "mine", "other")):
        put(store, loss, 0, 0.1, train_data=trained, arena=trained, setting=f"{loss}-{trained}")
    assert "<h1>2 pretraining methods and 2 supervised baselines" in page(store)


def test_what_is_no_json_does_not_stop_the_pages_script(store: Store) -> None:
    put(store, "none", 0, 0.0)
    (record,) = store.stages.glob("finetune-*/record.json")
    record.write_text(record.read_text().replace('"lr": 0.1', '"lr": NaN'))
    text = re.findall(r'id="data">(.*?)</script>', page(store), re.S)[0]
    assert '"lr":"NaN"' in text and json.loads(text, parse_constant=pytest.fail)


def test_the_page_needs_no_torch() -> None:
    code = "import sys, usbench.report.page, usbench.report.watch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    "given",
    [
        {}, {"labels": [12.5, 100 / 3], "seeds": [0, 2], "data": ["busi", "breast"], "ood": ["busbra"]},
        {"data": ["busi"], "ood": [], "pretrain_data": ["busi", "us4"], "split": ["x y.json"], "allow_leaks": True},
        {"preset": "paper", "shifts": ["blur", "gain-down"], "severities": [1, 5], "finetune": {"encoder_factor": 0.1}},
        {"ood": [], "pretrain": {"steps": 7, "warmup": 0.1}, "leave_device": "U @10", "loss": "a:b=1,c=d e"},
        {"pretrain_part": "train", "devices": 2},
    ],
)  # fmt: skip
def test_the_command_makes_the_same_spec(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from usbench.cli import run as cli

    spec = resolve({"loss": "mine", **given})
    command = command_of(spec.model_dump(mode="json"))
    words = shlex.split(command)
    assert words[:2] == ["usbench", "run"]
    found: list[Any] = []

    class Planned(Exception):
        pass

    def stop(_: Any, asked: Any, *__: Any, **___: Any) -> None:
        found.append(asked)
        raise Planned

    monkeypatch.setattr("usbench.api.running.make_plan", stop)
    with pytest.raises(Planned):
        cli.run.main(words[2:], standalone_mode=False)
    assert found == [spec]


def test_the_command_line_writes_the_page(store: Store, usbench: Callable[..., Any], tmp_path: Path) -> None:
    put(store, "none", 0, 0.0)
    said = usbench("leaderboard", store.root, "--html", tmp_path / "board.html")
    assert said.code == 0 and "board.html" in said.out
    assert (tmp_path / "board.html").read_text().startswith("<!doctype html>")
    assert "--no-images" in usbench("leaderboard", store.root, "--no-images").one_sentence()
    for flag in ("--html", "--csv", "--md", "--curves", "--ranks", "--outlines"):
        for bad in (tmp_path, tmp_path / "board.html" / "x.html"):
            refused = usbench("leaderboard", store.root, flag, bad)
            assert refused.code == 2 and flag in refused.one_sentence() and refused.out == "", "before the table"


def test_what_was_pretrained_on_is_a_column_where_rows_differ_in_it(store: Store) -> None:
    put(store, "none", 0, 0.0)
    for loss, sets in (("mine", "x"), ("yours", "x+y")):
        put(store, loss, 0, 0.1, pretrain_data=sets)
    every = cells(Index([store]).results)
    (table,), _ = tables_of(table_of(every), every)
    assert table.columns["pretrain_data"] == "pretrained on"
    alike = [cell for cell in every if cell.row["pretrain_data"] != "x+y"]
    (table,), _ = tables_of(table_of(alike), alike)
    assert "pretrain_data" not in table.columns and ("pretrained on", "x") in table.shared
