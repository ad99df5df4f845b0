"""Whatever is killed, cut short or misdated, the same command ends in the same table, or says in a sentence why not."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from watching import Watcher, table_of

from usbench.errors import Interrupted
from usbench.hooks import registry
from usbench.runs import lease
from usbench.runs.engines import run_plan
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.spec import config_text
from usbench.train.loop import STATE

KILLS = 2  # benchmarks/faults.py does many more
DAY = 86_400


def records(store: Store) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in store.stages.glob("*/record.json")}


@pytest.mark.parametrize("command", [pytest.param("run", marks=pytest.mark.slow), "suite"])
def test_killed_at_random_moments_it_ends_as_if_left_alone_and_computes_nothing_again(
    plan: Plan, undisturbed: tuple[Store, str], tmp_path: Path, command: str
) -> None:
    config, out, moments = tmp_path / "c.toml", tmp_path / "store", random.Random(command)
    text = config_text(plan.spec)
    config.write_text(text if command == "run" else text.replace("[run", "[base") + "\n[[runs]]\n")
    words = ["run", "--config", config] if command == "run" else ["suite", "run", config]
    store = Store(out)
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-m", "usbench", *words, "--out", out, "--workers", "2"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not any(store.stages.glob("*.part")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 2))
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while any(store.holder(part.stem) for part in store.stages.glob("*.part")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(store.holder(part.stem) for part in store.stages.glob("*.part")), "workers outlived it"
    before = records(store)
    run_plan(plan, store.open(), registry(), Watcher())
    assert before.items() <= records(store).items()
    assert table_of(plan, store) == undisturbed[1]
    assert not list(store.stages.glob("*.part"))


def begun(plan: Plan, store: Store) -> None:
    """Stop in the first pretraining, which is saved."""
    watcher = Watcher()

    def stop(stage: Stage) -> None:
        watcher.stopping = True

    watcher.at_step = stop
    with pytest.raises(Interrupted):
        run_plan(plan, store, registry(), watcher)
    assert len(list(store.stages.glob(f"*.part/{STATE}"))) == 1


@pytest.mark.parametrize("jump", [-400 * DAY, 400 * DAY])
def test_clocks_that_jump_change_nothing(
    plan: Plan, undisturbed: tuple[Store, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    store, now = Store(tmp_path).open(), time.time
    begun(plan, store)
    for path in tmp_path.rglob("*"):
        os.utime(path, (now() + jump, now() + jump))
    monkeypatch.setattr(time, "time", lambda: now() - jump)
    run_plan(plan, store, registry(), Watcher(end=lambda stage: monkeypatch.setattr(time, "time", now)))
    assert table_of(plan, store) == undisturbed[1]


def test_a_dead_machine_whose_clock_was_ahead_is_not_waited_for_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.1)
    store = Store(tmp_path).open()
    held = lease.take(store.part("pretrain-a"), "pretrain-a")
    held._done.set()
    owner = held.link / lease.OWNER
    owner.write_text(owner.read_text().replace(held.me.host, "elsewhere").replace(held.me.token, "theirs"))
    os.utime(owner, (time.time() + 400 * DAY,) * 2)
    assert store.holder("pretrain-a") is not None
    time.sleep(0.2)
    assert store.holder("pretrain-a") is None


@pytest.mark.parametrize("name", ["record.json", "scores.csv", "masks.safetensors", "weights.safetensors", STATE])
@pytest.mark.parametrize("kept", [0.0, 0.6])
def test_a_file_that_is_cut_short_is_named_and_what_is_said_of_it_helps(
    usbench: Callable[..., Any], plan: Plan, undisturbed: tuple[Store, str], tmp_path: Path, name: str, kept: float
) -> None:
    store, config = Store(tmp_path / "store"), tmp_path / "c.toml"
    config.write_text(config_text(plan.spec))
    if name == STATE:
        begun(plan, store.open())
    else:
        shutil.copytree(undisturbed[0].root, store.root)
    damaged = min(store.stages.glob(f"*/{name}"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: int(kept * len(whole))])
    said = usbench("run", "--config", config, "--out", store.root)
    if said.code:
        assert damaged.parent.name in said.one_sentence() and "run" in said.err
    else:  # no number of the table hangs on it
        assert table_of(plan, store) == undisturbed[1]
    if name != STATE:
        checked = usbench("store", "check", store.root)
        assert checked.code == 1 and f"wrong: {damaged}: " in checked.out
    shutil.rmtree(damaged.parent)
    assert usbench("run", "--config", config, "--out", store.root).code == 0
    assert table_of(plan, store) == undisturbed[1] and usbench("store", "check", store.root).code == 0
