"""The index only saves time: what is read with it is what is read without it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd
import pytest
from made_up import put

from usbench.report import index as module
from usbench.report.cells import Memo, cells
from usbench.report.files import csv_text
from usbench.report.index import NAME, Index
from usbench.report.leaderboard import table_of
from usbench.report.results import Result
from usbench.runs.store import Store


def text_of(store: Store) -> str:
    """The leaderboard through the index, which is saved."""
    index = Index([store])
    text = csv_text(table_of(cells(index.results, index.memo)))
    index.save()
    return text


def without(store: Store) -> str:
    (store.root / NAME).unlink(missing_ok=True)
    return csv_text(table_of(cells(Index([store]).results)))


@pytest.fixture
def filled(store: Store) -> Store:
    for seed in (0, 1):
        for loss, gain in (("none", 0.0), ("mine", 0.1), ("other", 0.05)):
            put(store, loss, seed, gain)
    return store


@pytest.mark.parametrize("seeds_differ", [False, True])
def test_the_second_time_no_score_is_read_and_the_table_is_the_same(
    filled: Store, monkeypatch: pytest.MonkeyPatch, seeds_differ: bool
) -> None:
    if seeds_differ:  # then there are means over some of a row's seeds too
        put(filled, "mine", 2, 0.1)
    first = text_of(filled)
    monkeypatch.setattr(Result, "scores", lambda self: pytest.fail("scores were read"))
    assert text_of(filled) == first


def test_what_changes_is_read_again(filled: Store) -> None:
    before = text_of(filled)
    path = Index([filled]).results[0].folder / "scores.csv"
    scores = pd.read_csv(path)
    scores["dice"] += 0.1
    scores.to_csv(path, index=False)
    after = text_of(filled)
    assert after != before and after == without(filled)
    put(filled, "new", 0, 0.3)
    assert text_of(filled) == without(filled)


def test_a_store_keeps_its_numbers_when_it_is_read_after_another(filled: Store, tmp_path: Path) -> None:
    text_of(filled)
    before = json.loads((filled.root / NAME).read_text())
    first = Store(tmp_path / "first").open()
    put(first, "none", 5, 0.0)
    index = Index([first, filled])
    table_of(cells(index.results, index.memo))
    index.save()
    assert before["numbers"] and json.loads((filled.root / NAME).read_text()) == before


@pytest.mark.parametrize("text", ["", "[]", "{", '{"made_by": "x", "records": {}, "numbers": {}}', None])
def test_a_damaged_or_foreign_index_is_as_good_as_none(filled: Store, text: str | None) -> None:
    expected = text_of(filled)
    path = filled.root / NAME
    if text is None:  # of this code, and with nonsense in it
        known = json.loads(path.read_text())
        known["numbers"] = {key: ["x"] for key in known["numbers"]}
        text = json.dumps(known)
    path.write_text(text)
    assert text_of(filled) == expected


def test_numbers_of_other_code_are_forgotten(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    text_of(filled)
    monkeypatch.setattr(module, "made_by", lambda: "other code")
    assert Index([filled]).memo == Memo()


def test_a_store_that_cannot_be_written_is_still_read(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    assert text_of(filled) == without(filled) and not (filled.root / NAME).exists()


def test_a_file_that_is_touched_is_read_again_and_tells_the_same(filled: Store) -> None:
    before = text_of(filled)
    os.utime(Index([filled]).results[0].folder / "scores.csv", (1, 1))
    assert text_of(filled) == before
