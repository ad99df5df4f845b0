"""Trackers are told what a run does, and never stop it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import usbench
from usbench import Result, UsbenchError
from usbench.api import trackers
from usbench.api.trackers import Trackers, tracker_names
from usbench.runs.stage import Stage
from usbench.runs.store import Store


@pytest.fixture(scope="module")
def tracked(asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Result:
    return usbench.run(**asked, out=tmp_path_factory.mktemp("tracked"), track=["tensorboard", "mlflow"])


def curves(store: Store) -> dict[str, pd.DataFrame]:
    """The curve of every training, by its title as a tag."""
    kinds = [record for kind in ("pretrain", "finetune") for record in store.records(kind)]
    titles = {folder.name: folder / "curve.csv" for folder, _ in kinds}
    return {name: pd.read_csv(path) for name, path in titles.items()}


def test_tensorboard_reads_settings_points_scores_and_pictures(tracked: Result) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tracked.path / "track" / "tensorboard"))
    board.Reload()
    for stage, curve in curves(tracked.store).items():
        tag = trackers._tag(tracked.titles[stage])
        for name in ("loss", "lr"):
            points = board.Scalars(f"{tag}/{name}")
            assert [point.step for point in points] == curve.step.to_list()
            assert [point.value for point in points] == pytest.approx(curve[name].to_list(), rel=1e-4)
    row = tracked.leaderboard.iloc[0]
    score = board.Scalars(f"dice/simclr spatial 100 percent on {row.test_data} {row['shift']}")[0].value
    assert score == pytest.approx(row.score_mean)
    assert set(board.Tags()["images"]) == set(tracked.figures)
    assert "loss: simclr" in (tracked.path / "track" / "tensorboard" / "hparams.yaml").read_text()


def test_mlflow_reads_the_same(tracked: Result) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tracked.path / "track" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("usbench")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (tracked.path.name, "FINISHED")
    assert (run.data.params["loss"], run.data.params["pretrain/steps"]) == ("simclr", "10")
    for stage, curve in curves(tracked.store).items():
        history = client.get_metric_history(run.info.run_id, f"{trackers._tag(tracked.titles[stage])}/loss")
        assert [point.value for point in history] == pytest.approx(curve.loss.to_list(), rel=1e-4)
    row = tracked.leaderboard.iloc[-1]
    name = f"dice/{row.loss} {'' if row.aug == 'none' else 'spatial '}100 percent on {row.test_data} {row['shift']}"
    assert run.data.metrics[name] == pytest.approx(row.score_mean)
    assert {Path(f.path).stem for f in client.list_artifacts(run.info.run_id, "pictures")} == set(tracked.figures)


def test_being_tracked_changes_no_key_and_no_number(tracked: Result, finished: Result) -> None:
    assert tracked.keys == finished.keys
    assert tracked.leaderboard.score_mean.equals(finished.leaderboard.score_mean)


class Fake:
    """A logger of Lightning's kind that remembers, and fails when told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.told, self.experiment = fails, [], self
        self.metrics: dict[str, float] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*given: Any, **named: Any) -> None:
            self.told.append(name)
            if name == self.fails:
                raise RuntimeError("the line is\ndead.")
            if name == "log_metrics":
                self.metrics |= given[0]

        return tell


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Fake]:
    """`fake(fails)` → what stands for Weights & Biases."""

    def make(fails: str = "") -> Fake:
        made = Fake(fails)
        monkeypatch.setitem(trackers.MAKERS, "wandb", lambda folder, run: made)
        return made

    return make


def test_a_run_that_was_computed_before_tells_its_scores(
    fake: Callable[..., Fake], asked: dict[str, Any], finished: Result, store: Path
) -> None:
    logger = fake()
    usbench.run(**asked, out=store, track="wandb")
    scores = [value for name, value in logger.metrics.items() if name.startswith("dice/")]
    assert sorted(scores) == pytest.approx(sorted(finished.leaderboard.score_mean))
    assert logger.told.count("log_image") == len(finished.figures)
    assert logger.told[-2:] == ["finalize", "finish"]


def test_a_tracker_that_fails_in_a_run_is_warned_of_once_and_the_run_ends_well(
    fake: Callable[..., Fake], asked: dict[str, Any], finished: Result, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    logger = fake("log_metrics")
    result = usbench.run(**{**asked, "progress": True}, out=tmp_path / "runs", track="wandb")
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("warning: wandb is tracked no further (the line is dead); the run goes on.") == 1
    assert logger.told.count("log_metrics") == 1
    assert result.leaderboard.score_mean.equals(finished.leaderboard.score_mean)


def test_a_tracker_that_cannot_begin_is_one_sentence_before_anything_runs(
    fake: Callable[..., Fake], usbench: Callable[..., Any], tiny: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fake("log_hyperparams")
    said = usbench("run", "--loss", "simclr", *tiny, "--out", tmp_path / "runs", "--track", "wandb")
    assert said.code == 2 and "--track wandb cannot be used (the line is dead)" in said.one_sentence()
    assert not list((tmp_path / "runs" / "stages").iterdir())
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    said = usbench("run", "--loss", "simclr", *tiny, "--out", tmp_path / "runs", "--track", "mlflow")
    assert said.code == 2 and "pip install 'mlflow'" in said.one_sentence()


def test_names_come_by_comma_or_as_a_list_and_unknown_ones_are_refused() -> None:
    assert tracker_names("mlflow, tensorboard,mlflow") == tracker_names(["mlflow", "tensorboard"])
    assert tracker_names("") == tracker_names(()) == []
    with pytest.raises(UsbenchError, match="did you mean 'wandb'"):
        tracker_names("wanb")


def test_stages_of_one_title_are_told_apart_by_their_keys(fake: Callable[..., Fake], tmp_path: Path) -> None:
    logger = fake()
    schedule = {"steps": 10, "batch": 4, "lr": 0.1, "weight_decay": 0.0, "warmup": 0.5}
    stages = [Stage("pretrain", "pretrain a, seed 0", {"schedule": schedule, "size": size}, {}) for size in (32, 64)]
    with Trackers(["wandb"], tmp_path, {}, Console(file=io.StringIO())) as watching:
        watching.expect(stages)
        for stage in stages:
            watching.step(stage, 10, 10, 1.0, 2.0)
    assert {name for name in logger.metrics if name.endswith("/loss")} == {
        f"pretrain a seed 0 {stage.key[:8]}/loss" for stage in stages
    }


def test_a_suite_is_tracked_too(
    fake: Callable[..., Fake], usbench: Callable[..., Any], asked: dict[str, Any], finished: Result, store: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    from usbench.spec import config_text

    logger = fake()
    assert finished.spec is not None
    base = config_text(finished.spec).replace("[run]", "[base]").replace("[run.", "[base.")
    file = tmp_path / "suite.toml"
    file.write_text(f'name = "mine"\n{base}\n[[runs]]\nover = {{ loss = ["simclr"] }}\n')
    said = usbench("suite", "run", file, "--out", store, "--track", "wandb")
    assert said.code == 0, said.err
    scores = [value for name, value in logger.metrics.items() if name.startswith("dice/")]
    assert sorted(scores) == pytest.approx(sorted(finished.leaderboard.score_mean))
