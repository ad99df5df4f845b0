"""`usbench.load`, `leaderboard` and `compare` give what the run gave, and a notebook shows it safely."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import usbench
from usbench import Result, UsbenchError
from usbench.report.cells import cells

HOSTILE = "<script>alert(1)</script>\"'&[bold]\n\u202e"


def test_a_loaded_run_is_the_run(finished: Result) -> None:
    loaded = usbench.load(finished.path)
    pd.testing.assert_frame_equal(loaded.leaderboard, finished.leaderboard)
    pd.testing.assert_frame_equal(loaded.scores, finished.scores)
    assert (loaded.spec, loaded.keys, loaded.titles) == (finished.spec, finished.keys, finished.titles)
    assert loaded.summary() == finished.summary() and repr(loaded) == repr(finished)
    assert set(loaded.figures) == set(finished.figures)


def test_a_loaded_store_has_the_rows_of_its_runs(finished: Result, store: Path) -> None:
    loaded = usbench.load(store)
    pd.testing.assert_frame_equal(loaded.leaderboard, finished.leaderboard)
    pd.testing.assert_frame_equal(usbench.leaderboard(store, store), finished.leaderboard)
    assert loaded.spec is None and loaded.figures == {} and str(store) in repr(loaded)


@pytest.mark.parametrize(
    ("call", "words"),
    [(usbench.load, "no run's folder and no store"), (usbench.leaderboard, "no usbench store")],
)
def test_a_folder_that_is_neither_is_refused(call: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsbenchError, match=words):
        call(tmp_path)


def test_a_run_that_is_not_there_is_answered_with_the_nearest(finished: Result, store: Path) -> None:
    near = re.escape(str(finished.path))
    typed = store / f"{finished.path.name[:-3]}000"
    with pytest.raises(UsbenchError, match=rf"is no run's folder and no store: did you mean {near}\?$"):
        usbench.load(typed)
    key = finished.keys[0]
    for name in (typed.name, str(typed)):
        with pytest.raises(UsbenchError, match=rf"unknown row '.*' in .*: did you mean the run {near}\?$"):
            usbench.compare(key, name, stores=[store])
    with pytest.raises(UsbenchError, match=f"did you mean '{key}'"):
        usbench.compare(key, f"{key[:-3]}zzz", stores=[store])


def test_a_run_that_was_damaged_is_a_sentence(tmp_path: Path, finished: Result, store: Path) -> None:
    folder = store / "damaged"
    folder.mkdir()
    (folder / "run.json").write_text((finished.path / "run.json").read_text().replace('"loss"', '"lass"'))
    with pytest.raises(UsbenchError, match=r"run\.json cannot be read .* run the same command again"):
        usbench.load(folder)


def test_two_rows_are_compared_as_the_leaderboard_compares_them(finished: Result, store: Path) -> None:
    table = finished.leaderboard
    mine = table[(table.loss == "simclr") & (table["shift"] == "in")].iloc[0]
    base = table[(table.loss == "none") & (table["shift"] == "in")].iloc[0]
    found = usbench.compare(mine.key, base.key, stores=[store])
    line = found.table.iloc[0]
    assert [line.difference, line.low, line.high] == pytest.approx(
        [mine.delta_vs_supervised, mine.delta_vs_supervised_low, mine.delta_vs_supervised_high]
    )
    assert (line.a, line.b) == pytest.approx((mine.score_mean, base.score_mean))
    scores = finished.scores.set_index(["key", "name"]).dice
    for image in found.images.itertuples():
        assert image.difference == pytest.approx(scores[mine.key, image.name] - scores[base.key, image.name])
    assert "One shared seed" in found.summary() and "simclr" in found.summary() and "<pre" in found._repr_html_()
    assert repr(found).startswith("<usbench comparison: dice ")


def test_results_are_compared_with_one_another(finished: Result) -> None:
    with pytest.raises(UsbenchError, match="is one row: name two"):
        usbench.compare(finished, finished)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_hostile_names_are_inert_in_a_notebook(finished: Result) -> None:
    results = [
        replace(result, row={**result.row, "loss": HOSTILE + result.row["loss"], "test_data": HOSTILE})
        for cell in finished.cells
        for result in cell.results
    ]
    assert finished.spec is not None
    shown = replace(
        finished, cells=cells(results), missing=[HOSTILE], path=Path(HOSTILE),
        spec=finished.spec.model_copy(update={"loss": HOSTILE}), files=[],
    )  # fmt: skip
    page = _Tags()
    page.feed(shown._repr_html_())
    assert page.seen <= {"p", "b", "pre", "span"}
    assert "\n" not in repr(shown) and "\u202e" not in repr(shown)
    assert not re.search("<script", shown._repr_html_())


def test_the_notebook_shows_the_table_and_the_curve(finished: Result) -> None:
    page = finished._repr_html_()
    assert "Mean Dice of lesion images" in page and page.count("<img") == 1 and "none-long" in page
