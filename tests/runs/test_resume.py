"""A run that was killed, stopped or repeated ends in the same table as one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from usbench.errors import Interrupted
from usbench.hooks import Registry
from usbench.report.columns import NOT_MEASURED
from usbench.report.summary import summarise
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.spec import resolve
from usbench.train import loop

# A process that runs a plan with a checkpoint after every step and kills itself at one of them, without a farewell.
KILLED = """
import json, os, signal, sys
from pathlib import Path
from usbench.hooks import registry
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.store import Store
from usbench.spec import resolve
from usbench.train import loop
settings, out, kind, steps = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
loop.SAVE_SECONDS, loop.WINDOW = 0.0, 2
class Killer:
    stopping = False
    def begin(self, stage, place, total): pass
    def end(self, stage): pass
    def step(self, stage, done, total, loss, rate):
        if stage.kind == kind and done >= steps:
            os.kill(os.getpid(), signal.SIGKILL)
run_plan(make_plan(registry(), resolve(settings), lambda *_: None), Store(out).open(), registry(), Killer())
"""


class Quiet:
    """Watches, and asks to stop after some steps of a kind of stage."""

    def __init__(self, stop: tuple[str, int] | None = None) -> None:
        self.stop, self.stopping = stop, False
        self.begun: list[str] = []

    def begin(self, stage: Stage, place: int, total: int) -> None:
        self.begun.append(stage.id)

    def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
        if self.stop and stage.kind == self.stop[0] and done >= self.stop[1]:
            self.stopping = True

    def end(self, stage: Stage) -> None:
        pass


def table_of(plan: Plan, store: Store) -> str:
    """The run's CSV without the columns that are measured of the machine."""
    summary = summarise(plan, store)
    return pd.read_csv(summary.folder / "leaderboard.csv").drop(columns=list(NOT_MEASURED)).to_csv()


@pytest.fixture(scope="module")
def settings(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    steps = {"pretrain": {"steps": 6, "batch": 8}, "finetune": {"steps": 6, "batch": 4}}
    return {**tiny_settings, **steps, "loss": "moco", "labels": [100], "seeds": [3]}


@pytest.fixture(scope="module")
def undisturbed(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store, str]:
    registry = Registry()
    registry.load_entry_points()
    plan = make_plan(registry, resolve(settings), lambda *_: None)
    store = Store(tmp_path_factory.mktemp("store")).open()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "WINDOW", 2)
        assert run_plan(plan, store, registry, Quiet()) == len(plan.stages)
    return plan, store, table_of(plan, store)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_a_run_killed_in_training_ends_as_one_that_was_left_alone(
    kind: str, settings: dict[str, Any], undisturbed: tuple[Plan, Store, str], installed: Registry, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "store"
    command = [sys.executable, "-c", KILLED, json.dumps(settings), str(out), kind, "4"]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    parts = list((out / "stages").glob(f"{kind}-*.part"))
    assert [part.joinpath(loop.STATE).is_file() for part in parts] == [True]
    monkeypatch.setattr(loop, "WINDOW", 2)
    plan, store = undisturbed[0], Store(out).open()
    run_plan(plan, store, installed, Quiet())
    assert table_of(plan, store) == undisturbed[2]
    assert not list((out / "stages").glob("*.part"))


def test_a_run_stopped_by_the_user_saves_and_goes_on_to_the_same_bytes(
    undisturbed: tuple[Plan, Store, str], installed: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "WINDOW", 2)
    plan, whole, table = undisturbed
    store = Store(tmp_path / "store").open()
    for stop in (("pretrain", 2), ("finetune", 4)):
        with pytest.raises(Interrupted):
            run_plan(plan, store, installed, Quiet(stop))
    run_plan(plan, store, installed, Quiet())
    assert table_of(plan, store) == table
    for stage in plan.stages:
        for name in ("weights.safetensors", "scores.csv", "masks.safetensors", "curve.csv"):
            made = store.folder(stage.id) / name
            assert not made.exists() or made.read_bytes() == (whole.folder(stage.id) / name).read_bytes()


def test_running_again_computes_nothing_and_writes_the_same_csv(
    undisturbed: tuple[Plan, Store, str], installed: Registry
) -> None:
    plan, store, _ = undisturbed
    csv = summarise(plan, store).folder / "leaderboard.csv"
    before = csv.read_bytes()
    watcher = Quiet()
    assert run_plan(plan, store, installed, watcher) == 0
    assert watcher.begun == []
    summarise(plan, store)
    assert csv.read_bytes() == before


def test_another_seed_is_another_result(
    settings: dict[str, Any], undisturbed: tuple[Plan, Store, str], installed: Registry, tmp_path: Path
) -> None:
    plan = make_plan(installed, resolve({**settings, "seeds": [4]}), lambda *_: None)
    assert not {stage.key for stage in plan.stages} & {stage.key for stage in undisturbed[0].stages}
    store = Store(tmp_path / "store").open()
    run_plan(plan, store, installed, Quiet())
    assert table_of(plan, store) != undisturbed[2]


def test_workers_give_the_same_table_as_one_process(
    settings: dict[str, Any], undisturbed: tuple[Plan, Store, str], tmp_path: Path
) -> None:
    from usbench.hooks import registry

    store = Store(tmp_path / "store").open()
    plan = undisturbed[0]
    assert run_plan(plan, store, registry(), Quiet(), workers=2) == len(plan.stages)
    # The curve's window is a setting of this process, not of the workers; nothing else depends on it.
    assert table_of(plan, store) == undisturbed[2]


def test_a_worker_that_is_killed_ends_the_run_in_a_sentence_and_the_next_run_goes_on(
    settings: dict[str, Any], undisturbed: tuple[Plan, Store, str], tmp_path: Path
) -> None:
    from usbench.errors import RunFailed
    from usbench.hooks import registry

    class Assassin(Quiet):
        def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
            part = store.stages / f"{stage.id}.part" / "lease.json"
            if not self.stopping and part.is_file():
                os.kill(json.loads(part.read_text())["pid"], signal.SIGKILL)

    store = Store(tmp_path / "store").open()
    plan = undisturbed[0]
    with pytest.raises(RunFailed, match=r"died \(exit code -9"):
        run_plan(plan, store, registry(), Assassin(), workers=2)
    run_plan(plan, store, registry(), Quiet())
    assert table_of(plan, store) == undisturbed[2]


BROKEN = """
from usbench import Loss, hookimpl

class Broken(Loss):
    def objective(self, out, batch):
        return out.features[0].mean() * (float("nan") if batch.step > 1 else 1.0)

@hookimpl
def usbench_losses(register):
    register("broken", Broken, summary="turns NaN")
"""


def test_a_failure_in_a_worker_is_told_though_the_others_stop_too(settings: dict[str, Any], tmp_path: Path) -> None:
    from usbench.errors import RunFailed

    (tmp_path / "broken.py").write_text(BROKEN)
    registry = Registry()
    registry.load_entry_points()
    registry.load_folder(tmp_path)
    plan = make_plan(registry, resolve({**settings, "loss": "broken"}), lambda *_: None)
    with pytest.raises(RunFailed, match=r"pretrain broken, seed 3 became nan at step 2 .*learning rate"):
        run_plan(plan, Store(tmp_path / "store").open(), registry, Quiet(), workers=2)


def test_an_option_out_of_range_is_refused_by_a_worker_before_anything_is_written(
    settings: dict[str, Any], installed: Registry, tmp_path: Path
) -> None:
    from usbench.errors import UsbenchError

    plan = make_plan(installed, resolve({**settings, "loss": "rcl:temperature=-1"}), lambda *_: None)
    store = Store(tmp_path / "store").open()
    with pytest.raises(UsbenchError, match=r"'rcl' refuses temperature=-1\.0") as refused:
        run_plan(plan, store, installed, Quiet(), workers=2)
    assert refused.value.exit_code == 2
    assert list(store.stages.iterdir()) == []
