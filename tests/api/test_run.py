"""`usbench.run` from Python does what the command does, and returns what there is to know."""

from __future__ import annotations

import inspect
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import usbench
from usbench import Result, UsbenchError
from usbench.api.asked import spec_of
from usbench.api.outlook import outlook
from usbench.cli.run import run as command
from usbench.errors import Interrupted
from usbench.hooks import Registry
from usbench.report.files import csv_text
from usbench.runs import engines
from usbench.runs.plan import make_plan
from usbench.runs.stage import Stage
from usbench.runs.store import Store
from usbench.spec import resolve

NOTHING = dict.fromkeys(inspect.signature(usbench.run).parameters)


def test_it_takes_the_options_of_the_command_by_their_names() -> None:
    options = {str(parameter.name) for parameter in command.params}
    assert options | {"progress", "workers"} == set(inspect.signature(usbench.run).parameters)


def test_its_table_is_the_csv_of_the_run(finished: Result) -> None:
    assert csv_text(finished.leaderboard) == (finished.path / "leaderboard.csv").read_text()
    numbers = finished.leaderboard[["score_mean", "label_fraction", "seeds", "device_seconds"]]
    assert all(pd.api.types.is_numeric_dtype(dtype) for dtype in numbers.dtypes)
    assert finished.leaderboard.reconstruction.dtype == bool
    assert finished.keys == tuple(finished.leaderboard.key)


def test_its_scores_are_those_of_every_image_under_every_row(finished: Result) -> None:
    scores = finished.scores
    for row in finished.leaderboard.itertuples():
        mine = scores[(scores.key == row.key) & scores.lesion]
        assert len(mine) == row.images and set(mine.loss) == {row.loss} and set(mine.test_data) == {row.test_data}
        assert mine.dice.mean() == pytest.approx(row.score_mean, abs=1e-5)
        assert mine.name.is_unique
    for stage in scores.stage.unique():
        assert (finished.store.folder(stage) / "scores.csv").is_file()


def test_pictures_are_shown_by_name(finished: Result) -> None:
    figures = finished.figures
    assert {"overlays", "curves", "dice"} <= set(figures)
    for name, picture in figures.items():
        assert picture._repr_png_().startswith(b"\x89PNG") and Path(picture).stem == name
    assert figures._repr_html_().count("<img") == len(figures)


def test_a_second_call_computes_nothing_and_gives_the_same(
    finished: Result, asked: dict[str, Any], store: Path
) -> None:
    again = usbench.run(**asked, out=store)
    assert (finished.computed, again.computed) == (len(finished.titles), 0)
    pd.testing.assert_frame_equal(again.leaderboard, finished.leaderboard)
    assert again.path == finished.path and again.stages.done.all()


def test_the_command_says_what_the_result_says(
    finished: Result, store: Path, tiny: list[str], usbench: Callable[..., Any]
) -> None:
    steps = ["--set", "pretrain.steps=10", "--set", "finetune.steps=10", "--labels", "100"]
    said = usbench("run", "--loss", "simclr", *tiny, *steps, "--out", store)
    assert said.code == 0 and re.search(r"^0 of \d+ stages computed", said.out, re.M)
    for line in finished.summary().splitlines():
        assert "".join(line.split())[:60] in "".join(said.out.split())


def test_a_run_that_is_only_planned_lists_its_stages(asked: dict[str, Any], tmp_path: Path) -> None:
    planned = usbench.run(**asked, out=tmp_path / "runs", dry_run=True)
    assert planned.planned and not planned.stages.done.any() and not (tmp_path / "runs").exists()
    assert planned.leaderboard.empty and planned.scores.empty and planned.figures == {}
    assert "to do" in planned.summary() and "planned" in repr(planned) and "to do" in planned._repr_html_()


@pytest.mark.parametrize(
    ("typed", "python"),
    [
        ({"labels": "20,50%"}, {"labels": [20, 50]}),
        ({"labels": "20"}, {"labels": np.array([20])}),
        ({"seeds": 3}, {"seeds": [0, 1, 2]}),
        ({"seeds": 3}, {"seeds": np.int64(3)}),
        ({"seeds": 3}, {"seeds": "3"}),
        ({"seed": "1,2"}, {"seeds": np.arange(1, 3)}),
        ({"seed": "4,2"}, {"seeds": (4, 2)}),
        ({"seed": 4}, {"seeds": [4]}),
        ({"ood": ("a.h5", "b.h5")}, {"ood": [Path("a.h5"), "b.h5"]}),
        ({"ood": "a.h5+b.h5"}, {"ood": ["a.h5", "b.h5"]}),
        ({"shifts": "speckle, text", "severities": "1,3"}, {"shifts": ["speckle", "text"], "severities": [1, 3]}),
    ],
)
def test_what_is_typed_and_what_python_says_are_one_spec(typed: dict[str, Any], python: dict[str, Any]) -> None:
    specs = [spec_of({**NOTHING, "loss": "simclr", **given}, None, None) for given in (typed, python)]
    assert specs[0] == specs[1]


@pytest.mark.parametrize(
    "settings",
    [
        ("pretrain.steps=7", "finetune.lr=0.1"),
        {"pretrain.steps": 7, "finetune.lr": 0.1},
        {"pretrain": {"steps": 7}, "finetune.lr": 0.1},
    ],
)
def test_a_schedule_is_overridden_in_any_form(settings: Any) -> None:
    spec = spec_of({**NOTHING, "loss": "simclr"}, settings, None)
    assert (spec.pretrain.steps, spec.finetune.lr) == (7, 0.1) and spec.pretrain.batch > 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"loss": None}, "no loss is named"),
        ({"loss": "simclrr"}, "did you mean 'simclr'"),
        ({"seeds": 2, "seed": 1}, "exclude each other"),
        ({"seeds": 0}, "at least one seed"),
        ({"labels": "many"}, "are not numbers"),
        ({"labels": [0]}, "above 0"),
        ({"set": {"steps": 5}}, "--set pretrain.steps=500"),
        ({"set": {"pretrain.stepps": 5}}, "did you mean 'steps'"),
        ({"data": "nowhere.h5"}, "nowhere.h5"),
        ({"track": "tensorbord"}, "did you mean 'tensorboard'"),
        ({"out": __file__}, "is a file"),
        ({"out": 3}, "--out 3: give a text or a path"),
        ({"data": 3}, "--data 3: give a text or a path"),
        ({"ood": ["a.h5", 3]}, "--ood 3: give a text or a path"),
        ({"init": 3}, "--init 3: give a text or a path"),
        ({"config": 3}, "--config 3: give a text or a path"),
        ({"save_config": 3}, "--save-config 3: give a text or a path"),
        ({"shifts": 3}, "--shifts 3: give a text or a path"),
        ({"track": 3}, "--track 3: give a text or a path"),
        ({"set": 3}, "--set 3: give a text or a path"),
        ({"labels": True}, "--labels True: give numbers"),
        ({"labels": None, "seeds": True}, "--seeds True: give numbers"),
        ({"allow_leaks": "no"}, "--allow-leaks 'no': it is True or False"),
        ({"workers": 0}, "workers=0: give how many"),
    ],
)
def test_bad_input_is_a_sentence(asked: dict[str, Any], tmp_path: Path, wrong: dict[str, Any], words: str) -> None:
    given = {**asked, "out": tmp_path / "runs", **wrong}
    with pytest.raises(UsbenchError, match=re.escape(words)):
        usbench.run(**given)
    assert not (tmp_path / "runs").exists()


def test_an_interrupt_saves_and_the_same_call_goes_on(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**asked, "out": tmp_path / "runs"}
    real = engines.do

    def interrupted(stage: Stage, *rest: Any) -> bool:
        if stage.kind == "finetune":
            signal.raise_signal(signal.SIGINT)
        return real(stage, *rest)

    monkeypatch.setattr(engines, "do", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="run the same command again"):
        usbench.run(**given)
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.setattr(engines, "do", real)
    assert 0 < usbench.run(**given).computed < len(usbench.run(**given, dry_run=True).titles)


def test_it_runs_in_a_thread_too(asked: dict[str, Any], store: Path, finished: Result) -> None:
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(usbench.run(**asked, out=store)))
    thread.start()
    thread.join()
    assert results[0].keys == finished.keys


def test_a_run_says_beforehand_what_it_will_do(
    installed: Registry, asked: dict[str, Any], finished: Result, store: Path, tmp_path: Path
) -> None:
    assert finished.spec is not None
    plan = make_plan(installed, finished.spec, lambda *_: None)
    said = outlook(plan, Store(tmp_path / "runs"))
    assert f"{len(plan.stages)} stages to do; results in {tmp_path / 'runs'}, data in" in said
    assert outlook(plan, Store(store)) == ""
    quick = resolve({"loss": "simclr"})
    plan.spec = quick
    assert "about a minute and a half" in outlook(plan, Store(tmp_path / "runs"))
    plan.spec = quick.model_copy(update={"size": 128})
    assert "about" not in outlook(plan, Store(tmp_path / "runs"))
