"""The picture of a suite shows every difference of its table, whatever things are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_up import made_up_scores, put

from usbench.report import forest as module
from usbench.report.cells import cells
from usbench.report.figures import pyplot
from usbench.report.forest import forest
from usbench.report.index import Index
from usbench.report.leaderboard import table_of
from usbench.runs.store import Store


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures, instead of files."""
    kept: list[Any] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, path: kept.append(figure))
    return kept


def test_every_row_with_a_baseline_is_a_point_at_its_difference(store: Store, drawn: list[Any]) -> None:
    for fraction in (20.0, 100.0):
        for tested, shift in (("x", "in"), ("y", "out")):
            shared = {"fraction": fraction, "test_data": tested, "shift": shift, "arena": f"{tested}{fraction}"}
            for number, loss in enumerate(("none", "one", "two$_{")):
                put(store, loss, 0, number * fraction / 1000, **shared)
    every = cells(Index([store]).results)
    forest(every, Path("unused"))
    (figure,) = drawn
    figure.canvas.draw()
    points = {
        round(float(x), 6) for axis in figure.axes for line in axis.lines if line.get_marker() == "o"
        for x in line.get_xdata()
    }  # fmt: skip
    table = table_of(every)
    assert points == {round(x, 6) for x in table.delta_vs_supervised.dropna()}
    assert [axis.get_title() for axis in figure.axes] == ["x → x", "x → y (unseen)"]
    pyplot().close(figure)


def test_a_panel_above_an_empty_place_has_the_numbers_of_its_axis(store: Store, drawn: list[Any]) -> None:
    for tested in "abcde":
        for loss in ("none", "one"):
            put(store, loss, 0, 0.1, test_data=tested, arena=tested)
    forest(cells(Index([store]).results), Path("unused"))
    (figure,) = drawn
    figure.canvas.draw()
    shown = [axis for axis in figure.axes if axis.get_visible()]
    labelled = [axis.get_title() for axis in shown if any(t.get_visible() for t in axis.get_xticklabels())]
    assert labelled == ["x → b", "x → c", "x → d", "x → e"]  # of four columns and two rows
    pyplot().close(figure)


def test_panels_of_a_training_set_stand_beside_each_other_and_name_its_rows_alone(
    store: Store, drawn: list[Any]
) -> None:
    for trained, losses, tests in (("x", ("one", "two"), "xyz"), ("y", ("three",), "yx")):
        for tested in tests:
            for loss in ("none", *losses):
                put(store, loss, 0, 0.1, train_data=trained, test_data=tested, arena=trained + tested)
    forest(cells(Index([store]).results), Path("unused"))
    (figure,) = drawn
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["x → x", "x → y", "x → z", "y → x", "y → y"]
    assert [[t.get_text() for t in shown[place].get_yticklabels()] for place in (0, 3)] == [["one", "two"], ["three"]]
    pyplot().close(figure)


def test_each_protocol_has_a_panel_and_folds_are_one_point(store: Store, drawn: list[Any]) -> None:
    for protocol in ("pocus", "pocus:train=full"):
        for fold in range(3):
            for loss in ("none", "one"):
                scores = made_up_scores(fold, 0.0).assign(name=[f"{fold}-{k}" for k in range(30)])
                arena = f"{protocol}{fold}"
                put(store, loss, 0, 0.1, scores=scores, arena=arena, fold=str(fold), protocol=protocol)
    forest(cells(Index([store]).results), Path("unused"))
    (figure,) = drawn
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["x → x\nby pocus", "x → x\nby pocus:train=full"]
    assert [sum(len(line.get_xdata()) for line in a.lines if line.get_marker() == "o") for a in shown] == [1, 1]
    pyplot().close(figure)


def test_without_a_baseline_nothing_is_drawn(store: Store, drawn: list[Any]) -> None:
    put(store, "one", 0, 0.1)
    forest(cells(Index([store]).results), Path("unused"))
    assert drawn == []
