"""The pictures of a leaderboard show the numbers of its table, and masks without any image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import board, made_up_pack, put

from usbench.report import board_figures as module
from usbench.report.board_figures import against_labels, outlines
from usbench.report.cells import cells
from usbench.report.figures import pyplot
from usbench.report.index import Index
from usbench.report.leaderboard import table_of
from usbench.report.summary import places_of
from usbench.runs.store import Store


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The figures, instead of files; closed at the end."""
    kept: list[Any] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, path: kept.append(figure))
    yield kept
    for figure in kept:
        pyplot().close(figure)


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Two sets, in a data home of their own."""
    monkeypatch.setenv("USBENCH_DATA", str(home := tmp_path / "home"))
    return {name: made_up_pack(home / f"{name}.h5", name) for name in ("x", "far")}


def shown(figure: Any) -> list[Any]:
    return [axis for axis in figure.axes if axis.get_visible()]


def test_every_mean_of_the_table_is_a_point_in_its_test_sets_panel(
    store: Store, packs: dict[str, Any], drawn: list[Any]
) -> None:
    board(store, ["one", "two$_{", "none"], packs)
    every = cells(Index([store]).results)
    against_labels(every, Path("unused"))
    (figure,) = drawn
    figure.canvas.draw()
    table = table_of(every)
    for axis, tested, title in zip(shown(figure), ("x", "far"), ("x", "x → far (unseen)"), strict=True):
        assert axis.get_title() == title
        points = {round(float(y), 6) for line in axis.lines for y in line.get_ydata() if len(line.get_ydata()) == 3}
        assert points >= {round(mean, 6) for mean in table[table.test_data == tested].score_mean}
    assert next(text.get_text() for text in figure.legends[0].get_texts()) == "none"


def test_a_method_looks_the_same_in_the_panels_of_all_training_sets(store: Store, drawn: list[Any]) -> None:
    for trained, loss in ((trained, loss) for trained in ("x", "y") for loss in ("none", "mine")):
        put(store, loss, 0, 0.1, train_data=trained, arena=trained, setting=f"{loss}-{trained}")
    against_labels(cells(Index([store]).results), Path("unused"))
    (figure,) = drawn
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["none", "mine"]
    looks = [{line.get_color() for line in axis.lines} for axis in shown(figure)]
    assert len(looks) == 2 and looks[0] == looks[1] and len(looks[0]) == 2


@pytest.mark.parametrize(("count", "last"), [(6, "m5"), (7, "m6"), (9, "3 others")])
def test_no_line_is_without_a_name_in_the_legend(store: Store, drawn: list[Any], count: int, last: str) -> None:
    for loss in ("none", *(f"m{number}" for number in range(count))):
        put(store, loss, 0, 0.1)
    against_labels(cells(Index([store]).results), Path("unused"))
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names[0] == "none" and names[-1] == last and len(names) == 1 + min(count, 7)


def test_figures_are_of_the_metric_that_most_rows_have(store: Store, drawn: list[Any]) -> None:
    put(store, "none", 0, 0.1, facts={"primary": "area_truth", "metrics": ["area_truth"]}, arena="other", fraction=5.0)
    for loss in ("none", "one"):
        put(store, loss, 0, 0.1)
    against_labels(cells(Index([store]).results), Path("unused"))
    assert drawn[0].get_supylabel() == "mean Dice, 95 % interval"


def test_outlines_show_truth_and_every_mask_and_no_image(
    store: Store, packs: dict[str, Any], drawn: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    board(store, ["one", "two", "none"], packs, fractions=(20.0, 100.0))
    every = cells(Index([store]).results)
    outlines(every, places_of([store]), Path("unused"))
    figure = drawn[0]
    assert [axis.get_ylabel() for axis in shown(figure)[::4]] == [
        f"{name}, {labels} % of the labels" for name in ("x", "far") for labels in (20, 100)
    ]
    for axis in shown(figure):
        assert not axis.images and len(axis.collections) == 4  # the truth and three masks
    for above, below in zip(shown(figure)[:4], shown(figure)[4:8], strict=True):
        assert above.get_xlim() == below.get_xlim()  # the same image, as near, at every label fraction
    assert next(text.get_text() for text in figure.legends[0].get_texts()) == "truth"
    outlines(every, {}, Path("unused"))
    assert all(len(axis.collections) == 3 for axis in shown(drawn[1])), "without the pack there is no truth"


def test_where_no_mask_was_kept_a_sentence_says_so(store: Store, usbench: Callable[..., Any], tmp_path: Path) -> None:
    put(store, "none", 0, 0.0)
    said = usbench("leaderboard", store.root, "--outlines", tmp_path / "o.png")
    assert said.code == 2 and "no row kept masks" in said.one_sentence()
    assert usbench("leaderboard", store.root, "--curves", tmp_path / "c.png").code == 0
    assert (tmp_path / "c.png").stat().st_size > 5000
