"""Dask's workers come to the same table as this process, whoever of them dies, and the scheduler too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from watching import Watcher, table_of

from usbench.errors import Interrupted, RunFailed
from usbench.hooks import registry
from usbench.runs import cluster as clusters
from usbench.runs import lease
from usbench.runs.cluster import Cluster
from usbench.runs.engines import run_plan
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.train.loop import STATE

pytest.importorskip("distributed")
psutil = pytest.importorskip("psutil")  # dask's own


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    """Two workers of this machine, whom several tests use."""
    with Cluster(2) as cluster:
        yield cluster


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").open()


@pytest.mark.slow
def test_a_stop_saves_what_workers_do_and_a_killed_worker_costs_nothing(
    two: Cluster, plan: Plan, undisturbed: tuple[Store, str], store: Store
) -> None:
    watcher, killed = Watcher(), []

    def stop(stage: Stage) -> None:
        watcher.stopping = True

    watcher.at_step = stop
    with pytest.raises(Interrupted):
        run_plan(plan, store, registry(), watcher, workers=2, cluster=two)
    assert [path.parent.suffix for path in store.stages.glob(f"*/{STATE}")] == [".part"]
    assert all(store.holder(part.stem) is None for part in store.stages.glob("*.part"))

    def kill(stage: Stage) -> None:
        owner = store.holder(stage.id)
        if not killed and owner is not None:
            killed.append(owner.pid)
            os.kill(owner.pid, signal.SIGKILL)

    there = sum(store.has(stage.id) for stage in plan.stages)
    watcher = Watcher(kill)
    assert run_plan(plan, store, registry(), watcher, workers=2, cluster=two) == len(plan.stages) - there
    assert len(killed) == 1 and killed[0] != os.getpid() and not watcher.failed
    assert table_of(plan, store) == undisturbed[1]


def test_the_end_of_a_stage_is_heard_at_once(two: Cluster, plan: Plan, undisturbed: tuple[Store, str]) -> None:
    stage, patience = plan.stages[0], 120.0
    hands = two.crew(plan, undisturbed[0], registry(), 2)
    hands.give(stage, {"stage": asdict(stage), "watched": lease.seen()})
    began = time.monotonic()
    assert hands.hear(patience) == [(stage.id, {"what": "there"})]
    assert time.monotonic() - began < patience / 2


def test_nobody_reaches_the_workers_from_outside_this_machine(two: Cluster, plan: Plan, store: Store) -> None:
    two.crew(plan, store, registry(), 2)
    two.client.wait_for_workers(2)
    ours = psutil.Process()
    every = [c for process in (ours, *ours.children(recursive=True)) for c in process.net_connections("inet")]
    listening = [c.laddr.ip for c in every if c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 3 and set(listening) == {"127.0.0.1"}


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A scheduler that is not ours, with one worker."""
    file = tmp_path / "scheduler.json"
    words = [[sys.executable, "-m", "dask", *line.split()] for line in (
        f"scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file {file}",
        f"worker --scheduler-file {file} --host 127.0.0.1 --nthreads 1 --no-dashboard --no-nanny --death-timeout 20 "
        f"--preload usbench.runs.hand --local-directory {tmp_path}",
    )]  # fmt: skip
    begun = [subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for line in words]
    deadline = time.monotonic() + 60
    while not file.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield file, begun[0]
    for process in begun:
        process.kill()
        process.wait()


def test_when_the_scheduler_dies_nothing_is_lost_and_the_same_command_goes_on(
    scheduler: tuple[Path, subprocess.Popen[bytes]], plan: Plan, undisturbed: tuple[Store, str], store: Store
) -> None:
    watcher = Watcher(end=lambda stage: scheduler[1].kill())
    with Cluster(file=scheduler[0]) as cluster, pytest.raises(RunFailed, match=r"scheduler is gone: .*same command"):
        run_plan(plan, store, registry(), watcher, cluster=cluster)
    assert watcher.ended
    after = Watcher()
    run_plan(plan, store, registry(), after)
    assert not set(after.ended) & set(watcher.ended)
    assert table_of(plan, store) == undisturbed[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "dask", "--scheduler", "tcp://127.0.0.1:1"], "no dask scheduler answers at tcp://127.0.0.1:1"),
        (["--engine", "dask", "--scheduler", "nonsense://x"], "no dask scheduler answers at nonsense://x"),
        (["--engine", "dask", "--scheduler-file", "nowhere.json"], "nowhere.json cannot be read"),
        (["--engine", "dask", "--scheduler-file", "pyproject.toml"], "was not written by a dask scheduler"),
        (["--engine", "dask", "--scheduler", "a", "--scheduler-file", "b"], "exclude each other"),
        (["--scheduler", "tcp://127.0.0.1:1"], "--scheduler names dask's workers: give --engine dask too"),
        (["--engine", "dusk"], "unknown engine 'dusk': did you mean 'dask'"),
    ],
)
def test_who_cannot_be_reached_is_said_in_a_sentence_and_soon(
    usbench: Callable[..., Any], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str],
    said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 0.5)
    monkeypatch.chdir(Path(__file__).parent.parent.parent)
    ended = usbench("run", "--loss", "none", *tiny, "--out", tmp_path / "o", *words)
    assert ended.code == 2 and said in ended.one_sentence()


def test_without_dask_the_extra_is_named(
    usbench: Callable[..., Any], tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "find_spec", lambda name: None)
    ended = usbench("run", "--loss", "none", *tiny, "--out", tmp_path / "o", "--engine", "dask")
    assert ended.code == 2 and "pip install 'usbench[cluster]'" in ended.one_sentence()


def test_the_slurm_example_renders_a_job_of_one_gpu_that_saves_before_it_ends(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    example = Path(__file__).parent.parent.parent / "benchmarks" / "slurm" / "suite.py"
    words = f"s.toml --out {tmp_path} --show --partition gpu --cpus 3 --interface lo --time 01:00:00"
    shown = subprocess.run(
        [sys.executable, example, *words.split(), "--prologue", "module load cuda"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    for line in ("-p gpu", "--cpus-per-task=3", "-t 01:00:00", "--gres=gpu:1", "--signal=TERM@30", "--requeue"):
        assert f"#SBATCH {line}" in shown or f"#SBATCH {line.replace('=', ' ')}" in shown, shown
    assert shown.index("export OMP_NUM_THREADS=3") < shown.index("module load cuda") < shown.index("srun ")
    assert shown.index("srun --ntasks=1 --cpus-per-task=3") < shown.index("dask_worker")  # else nobody hears the signal
    assert "--nthreads 1" in shown and "--preload usbench.runs.hand" in shown and "--memory-limit 0" in shown
