"""A run that was killed, stopped or repeated ends in the same table as one that was left alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from usbench import made
from usbench.errors import Interrupted, RunFailed, UsbenchError
from usbench.hooks import Registry
from usbench.report.columns import NOT_MEASURED
from usbench.report.summary import summarise
from usbench.runs.doing import do
from usbench.runs.engines import StagesFailed, run_plan
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan, Stage
from usbench.runs.stages import Stages
from usbench.runs.store import Store
from usbench.spec import config_text, resolve
from usbench.train import loop

# A process that runs a plan with a checkpoint after every step and kills itself at one of them, without a farewell.
KILLED = """
import json, os, signal, sys
from pathlib import Path
from usbench.hooks import registry
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.store import Store
from usbench.spec import config_text, resolve
from usbench.train import loop
settings, out, kind, steps = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
loop.SAVE_SECONDS, loop.WINDOW = 0.0, 2
class Killer:
    stopping = False
    def begin(self, stage, place, total): pass
    def end(self, stage): pass
    def fail(self, stage, why): pass
    def wait(self, stage, who): pass
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
        self.failed: dict[str, str] = {}
        self.waited: list[str] = []

    def begin(self, stage: Stage, place: int, total: int) -> None:
        self.begun.append(stage.id)

    def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
        if self.stop and stage.kind == self.stop[0] and done >= self.stop[1]:
            self.stopping = True

    def end(self, stage: Stage) -> None:
        pass

    def fail(self, stage: Stage, why: str) -> None:
        self.failed[stage.title] = why

    def wait(self, stage: Stage, who: str) -> None:
        self.waited.append(stage.id)


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


@pytest.mark.parametrize("kind", ["pretrain", pytest.param("finetune", marks=pytest.mark.slow)])
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


class Assassin(Quiet):
    """Kills the process that does a stage whose title begins so, some times."""

    def __init__(self, store: Store, victim: str, times: int) -> None:
        super().__init__()
        self.store, self.victim, self.times = store, victim, times

    def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
        owner = self.store.holder(stage.id)
        if stage.title.startswith(self.victim) and self.times and owner is not None:
            self.times -= 1
            os.kill(owner.pid, signal.SIGKILL)


def test_the_stage_of_a_worker_that_is_killed_is_done_by_another(
    undisturbed: tuple[Plan, Store, str], tmp_path: Path
) -> None:
    from usbench.hooks import registry

    store = Store(tmp_path / "store").open()
    plan = undisturbed[0]
    assassin = Assassin(store, "pretrain", 1)
    assert run_plan(plan, store, registry(), assassin, workers=2) == len(plan.stages)
    assert assassin.times == 0 and not assassin.failed
    assert table_of(plan, store) == undisturbed[2]


def test_a_stage_whose_workers_die_twice_has_failed_and_the_rest_goes_on(
    undisturbed: tuple[Plan, Store, str], tmp_path: Path
) -> None:
    from usbench.hooks import registry

    store = Store(tmp_path / "store").open()
    plan = undisturbed[0]
    with pytest.raises(StagesFailed, match=r"moco, seed 3 died \(exit code -9.*; 3 stages that need it") as failed:
        run_plan(plan, store, registry(), Assassin(store, "pretrain", 2), workers=2)
    assert failed.value.computed == len(plan.stages) - 4
    assert run_plan(plan, store, registry(), Quiet()) == 4
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


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_stage_that_fails_leaves_out_what_needs_it_and_nothing_else(
    settings: dict[str, Any], tmp_path: Path, workers: int
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    registry = Registry()
    registry.load_entry_points()
    registry.load_folder(tmp_path)
    plan = make_plan(registry, resolve({**settings, "loss": "broken"}), lambda *_: None)
    store, watcher = Store(tmp_path / "store").open(), Quiet()
    with pytest.raises(StagesFailed, match=r"broken, seed 3 became nan at step 2 .*; 3 stages .* left out\.") as failed:
        run_plan(plan, store, registry, watcher, workers=workers)
    (line,) = failed.value.lines
    assert line.startswith("failed: the loss of pretrain broken, seed 3") and list(watcher.failed) == [
        "pretrain broken, seed 3"
    ]
    done = {stage.id for stage in plan.stages if store.has(stage.id)}
    assert {s.row["loss"] for s in plan.stages if s.id in done} == {"none", "none-long"}
    assert failed.value.computed == len(done) == len(plan.stages) - 4
    (note,) = store.failed.iterdir()
    assert store.failure(note.stem) == next(iter(watcher.failed.values()))


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_fail_fast_stops_at_the_first_failure(settings: dict[str, Any], tmp_path: Path, workers: int) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    registry = Registry()
    registry.load_entry_points()
    registry.load_folder(tmp_path)
    plan = make_plan(registry, resolve({**settings, "loss": "broken"}), lambda *_: None)
    store = Store(tmp_path / "store").open()
    with pytest.raises(RunFailed, match="became nan at step 2"):
        run_plan(plan, store, registry, Quiet(), workers=workers, fail_fast=True)
    assert not any(store.has(stage.id) for stage in plan.stages if stage.kind == "evaluate")


def test_an_option_out_of_range_is_refused_by_a_worker_before_anything_is_written(
    settings: dict[str, Any], installed: Registry, tmp_path: Path
) -> None:
    plan = make_plan(installed, resolve({**settings, "loss": "rcl:temperature=-1"}), lambda *_: None)
    store = Store(tmp_path / "store").open()
    with pytest.raises(UsbenchError, match=r"'rcl' refuses temperature=-1\.0") as refused:
        run_plan(plan, store, installed, Quiet(), workers=2)
    assert refused.value.exit_code == 2
    assert list(store.stages.iterdir()) == []


SHARER = """
import json, os, sys, time
from pathlib import Path
from usbench.hooks import registry
from usbench.runs import agenda, doing
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.store import Store
from usbench.spec import resolve
settings, out = json.loads(sys.argv[1]), Path(sys.argv[2])
agenda.LOOK_SECONDS = 0.1
do = doing.Stages.do
def logged(self, stage, folder, watcher):
    with (out / "log").open("a") as log:
        log.write(stage.id + "\\n")
    return do(self, stage, folder, watcher)
doing.Stages.do = logged
class Quiet:
    stopping = False
    def __getattr__(self, name): return lambda *_: None
plan = make_plan(registry(), resolve(settings), lambda *_: None)
print(run_plan(plan, Store(out).open(), registry(), Quiet()))
"""


def test_processes_that_share_a_store_compute_nothing_twice(
    settings: dict[str, Any], undisturbed: tuple[Plan, Store, str], tmp_path: Path
) -> None:
    out, plan = tmp_path / "store", undisturbed[0]
    command = [sys.executable, "-c", SHARER, json.dumps(settings), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    several = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    counts = [int(process.communicate(timeout=120)[0]) for process in several]
    assert [process.returncode for process in several] == [0, 0, 0]
    logged = (out / "log").read_text().split()
    assert sorted(logged) == sorted(stage.id for stage in plan.stages)
    assert sum(counts) == len(plan.stages)
    store = Store(out)
    for stage in plan.stages:
        for name in ("weights.safetensors", "scores.csv", "masks.safetensors"):
            assert (store.folder(stage.id) / name).exists() == (undisturbed[1].folder(stage.id) / name).exists()


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("run", signal.SIGINT), ("suite", signal.SIGTERM),
        pytest.param("run", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("suite", signal.SIGINT, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_signal_saves_and_leaves(
    settings: dict[str, Any], tmp_path: Path, number: int, command: str, installed: Registry
) -> None:
    longer = {**settings, "pretrain": {**settings["pretrain"], "steps": 100_000}}
    config, out = tmp_path / "run.toml", tmp_path / "store"
    config.write_text(config_text(resolve(longer)).replace("[run", "[base"))
    if command == "run":
        config.write_text(config.read_text().replace("[base", "[run"))
        words = ["run", "--config", str(config)]
    else:
        config.write_text(config.read_text() + "\n[[runs]]\n")
        words = ["suite", "run", str(config)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "usbench", *words, "--out", str(out)], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    stage = next(s for s in make_plan(installed, resolve(longer), lambda *_: None).stages if s.kind == "pretrain")
    state = Store(out).part(stage.id) / loop.STATE
    assert process.stdout is not None
    assert any(": step " in line for line in process.stdout), "it ended before it was asked to"
    asked = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - asked < 20  # 3 where nothing else runs; 10 are promised of such a machine
    assert process.returncode == 128 + number, said
    assert len(said.splitlines()) == 1 and "run the same command again" in said
    assert Store(out).holder(stage.id) is None
    assert state.is_file()


@pytest.mark.parametrize(("kind", "gone"), [("pretrain", ("finetune", "evaluate")), ("finetune", ("evaluate",))])
def test_weights_that_were_changed_are_not_built_upon_and_what_is_said_helps(
    undisturbed: tuple[Plan, Store, str], tmp_path: Path, kind: str, gone: tuple[str, ...]
) -> None:
    plan, whole, table = undisturbed
    store = Store(tmp_path / "store")
    shutil.copytree(whole.root, store.root)
    for folder in store.stages.iterdir():
        if folder.name.startswith(gone):
            shutil.rmtree(folder)
    weights = min(store.stages.glob(f"{kind}-*/weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1  # a file that opens, with another number in it
    weights.write_bytes(bytes(content))
    registry = Registry()
    registry.load_entry_points()
    with pytest.raises(UsbenchError) as error:
        run_plan(plan, store, registry, Quiet())
    said = "\n".join([str(error.value), *getattr(error.value, "lines", [])])  # several tests may need it
    assert f"{weights} is not what was recorded: delete the folder {weights.parent}" in said
    assert f"'usbench store check {store.root}'" in said
    shutil.rmtree(weights.parent)
    run_plan(plan, store, registry, Quiet())
    assert table_of(plan, store) == table


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_damaged_weights_leave_out_what_builds_on_them_and_nothing_else(
    undisturbed: tuple[Plan, Store, str], tmp_path: Path, installed: Registry, workers: int
) -> None:
    plan, whole, table = undisturbed
    store = Store(tmp_path / "store")
    shutil.copytree(whole.root, store.root)
    for folder in store.stages.iterdir():
        if not folder.name.startswith("pretrain"):
            shutil.rmtree(folder)
    weights = min(store.stages.glob("pretrain-*/weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(StagesFailed, match=r"weights\.safetensors is not what was recorded") as failed:
        run_plan(plan, store, installed, Quiet(), workers=workers)
    tested = [stage for stage in plan.stages if stage.kind == "evaluate"]
    done = [stage for stage in tested if store.has(stage.id)]
    assert failed.value.exit_code == 1 and {stage.row["loss"] for stage in done} >= {"none", "none-long"}
    shutil.rmtree(weights.parent)
    run_plan(plan, store, installed, Quiet())
    assert table_of(plan, store) == table


def test_a_training_that_was_gone_on_with_elsewhere_is_recorded_with_the_versions_of_both(
    settings: dict[str, Any], installed: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops:
        """Asks to stop at the third step."""

        looks = 0

        @property
        def stopping(self) -> bool:
            self.looks += 1
            return self.looks == 3

        def step(self, *_: object) -> None: ...

    stage = make_plan(installed, resolve(settings), lambda *_: None).stages[0]
    store = Store(tmp_path / "store").open()
    stages, watch = Stages(store, installed), Stops()
    for version in ("1.0", "1.1"):
        with monkeypatch.context() as elsewhere, contextlib.suppress(Interrupted):
            elsewhere.setattr("usbench.__version__", version)
            elsewhere.setattr(made, "processor", lambda name=version: f"processor {name}")
            assert do(stage, store, stages, watch, lambda: None) == (version == "1.1")  # type: ignore[arg-type]
    record = store.record(stage.id)
    assert record["versions"]["usbench"] == "1.0/1.1" and "/" not in record["versions"]["torch"]
    assert record["processor"] == "processor 1.0 / processor 1.1"
    assert made.EARLIER not in record["facts"]


def test_a_record_has_the_versions_of_all_that_numbers_come_from(undisturbed: tuple[Plan, Store, str]) -> None:
    plan, store, _ = undisturbed
    said = store.record(plan.stages[0].id)["versions"]
    assert {"torch", "numpy", "scipy", "scikit-learn", "pandas", "lightly", "timm"} <= said.keys()
