"""Workers of one machine are spread over its GPUs, and each keeps to its part of what it shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from usbench.data import room
from usbench.data.place import SHARERS, data_home
from usbench.hooks import registry
from usbench.runs import engines, shares
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.records import write_json
from usbench.runs.shares import fitting, free_mib, pins
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.spec import resolve


def stage(number: int = 0, *, kind: str = "finetune", devices: int = 1, device: str = "cuda", **row: Any) -> Stage:
    """A made-up stage."""
    told = {
        "loss": "simclr", "aug": "spatial", "protocol": "segment", "backbone": "unet", "device": device, "threads": 0,
        "precision": "bf16", "size": 64, "test_data": "x", **row,
    }  # fmt: skip
    schedule = {"schedule": {"steps": 10, "batch": 4}, "device": device, "devices": devices}
    own = schedule if kind != "evaluate" else {}
    return Stage(kind, "", {"kind": kind, "number": number, "told": repr(sorted(told.items())), **own}, told)


def plan_of(*stages: Stage) -> Plan:
    return Plan(resolve({"loss": "none"}), list(stages), [], workers=1)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs").open()


def recorded(store: Store, done: Stage, peak_mib: int) -> None:
    folder = store.folder(done.id)
    folder.mkdir(parents=True)
    facts = {"peak_mib": peak_mib}
    write_json(folder / "record.json", {"identity": done.identity, "row": done.row, "facts": facts, "seconds": 1.0})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """`machine(gpus=2, free=…, cores=16)`: what it says of itself; `free` are lines of the driver's tool."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(*, gpus: int = 1, free: str = "", cores: int = 16) -> None:
        monkeypatch.setattr(shares, "cuda_devices", lambda: gpus)
        monkeypatch.setattr(shares, "available_cores", lambda: cores)
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/asked'\nprintf '{free}'\n", "utf-8")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")

    return make


def gpus_of(found: list[dict[str, str]]) -> list[str]:
    return [pin["CUDA_VISIBLE_DEVICES"] for pin in found]


def test_each_worker_has_a_gpu_of_its_own_or_as_many_as_a_pretraining_shares(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(gpus=4)
    assert gpus_of(pins([stage()], None, 1)) == ["0", "1", "2", "3"]
    assert gpus_of(pins([stage(devices=2)], None, 1)) == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert gpus_of(pins([stage()], None, 1)) == ["5", "7"]


def test_workers_are_spread_evenly_and_know_how_many_share_a_gpu_and_the_cores(machine: Callable[..., None]) -> None:
    machine(gpus=2, cores=16)
    found = pins([stage(), stage(kind="evaluate")], 5, 5)
    assert gpus_of(found) == ["0", "1", "0", "1", "0"]
    assert [pin[SHARERS] for pin in found] == ["3", "2", "3", "2", "3"]
    assert {pin["OMP_NUM_THREADS"] for pin in found} == {"3"}
    assert gpus_of(pins([stage(kind="evaluate")], 2, 2)) == ["0", "1"]  # tests alone are done on GPUs too


def test_on_the_cpu_workers_are_left_as_they_are(machine: Callable[..., None], store: Store) -> None:
    machine(gpus=2)
    assert pins([stage(device="cpu")], None, 3) == [{}, {}, {}] and pins([stage(device="cpu")], 2, 3) == [{}, {}]
    assert fitting(plan_of(stage(device="cpu")), store) == (1, "")


@pytest.mark.parametrize(
    ("free", "cores", "gpus", "fit"),
    [
        ("10000\\n", 16, 1, 4),  # 0.8 of 10000 by 1000 and what a process takes beside it
        ("80000\\n", 8, 1, 8),  # no more than cores
        ("80000\\n", 64, 1, 16),  # nor than torches
        ("80000\\n10000\\n", 16, 2, 8),  # four on each, by the fuller one
        ("1000\\n", 16, 1, 1),
    ],
)
def test_as_many_stages_at_once_as_memory_and_cores_carry(
    free: str, cores: int, gpus: int, fit: int, machine: Callable[..., None], store: Store
) -> None:
    machine(gpus=gpus, free=free, cores=cores)
    recorded(store, stage(1), 700)
    recorded(store, stage(2), 1200)
    count, said = fitting(plan_of(stage(1), stage(3), stage(4, kind="evaluate")), store)
    assert count == fit and "--workers" in said and "1750" in said  # the median of its like, and a context


@pytest.mark.parametrize("free", ["", "[N/A]\\n", "80000\\n"])
def test_where_nobody_knows_what_fits_it_is_one_stage_a_gpu(
    free: str, machine: Callable[..., None], store: Store
) -> None:
    machine(gpus=2, free=free)
    assert fitting(plan_of(stage()), store)[0] == 2
    recorded(store, stage(1, device="cpu"), 100)  # of another device
    assert fitting(plan_of(stage()), store)[0] == 2


def test_where_nothing_is_left_to_do_the_driver_is_not_asked(machine: Callable[..., None], store: Store) -> None:
    recorded(store, stage(), 100)
    assert fitting(plan_of(stage()), store) == (1, "")


def test_only_the_visible_gpus_are_asked_of(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(free="70\\n60\\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert free_mib() == 60 and "--id=5,7" in (tmp_path / "asked").read_text("utf-8")


def test_feeds_of_those_who_share_a_gpu_have_their_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(room.SETTING, raising=False)
    monkeypatch.setattr(room, "torch", SimpleNamespace(cuda=SimpleNamespace(mem_get_info=lambda device: (8000, 9000))))
    assert room.room(torch.device("cuda")) == 4000
    monkeypatch.setenv(SHARERS, "8")
    assert room.room(torch.device("cuda")) == 500


def test_a_worker_lives_in_the_environment_that_it_is_given(
    tiny_settings: dict[str, Any], store: Store, quiet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = {"USBENCH_DATA": str(tmp_path / "home"), room.SETTING: "0"}  # feeds leave files in it
    monkeypatch.setattr(engines, "pins", lambda stages, wanted, fitting: [home] * wanted)
    known, before = registry(), sorted((data_home() / "planes").glob("*"))
    plan = make_plan(known, resolve({**tiny_settings, "loss": "none", "labels": [100]}), lambda *_: None)
    assert run_plan(plan, store, known, quiet, workers=2) == len(plan.stages)
    assert list((tmp_path / "home" / "planes").iterdir())
    assert sorted((data_home() / "planes").glob("*")) == before
