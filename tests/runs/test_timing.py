"""What a suite will take is known of like stages, or measured by some steps of the real thing, or unknown."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from usbench.errors import RunFailed
from usbench.hooks import Registry
from usbench.runs import timing
from usbench.runs.plan import make_plan
from usbench.runs.records import write_json
from usbench.runs.stage import Stage
from usbench.runs.store import Store
from usbench.runs.timing import MEASURED, RECORDED, SCALED, UNKNOWN, Known, estimates, kind_of, measure
from usbench.spec import resolve


def stage(kind: str = "finetune", steps: int = 10, batch: int = 4, **row: Any) -> Stage:
    """A made-up stage."""
    told = {
        "loss": "simclr", "aug": "spatial", "protocol": "segment", "backbone": "unet", "device": "cpu", "threads": 1,
        "precision": "float32", "size": 64, "test_data": "x", **row,
    }  # fmt: skip
    schedule = {"schedule": {"steps": steps, "batch": batch}} if kind != "evaluate" else {}
    return Stage(kind, "", {"kind": kind, "told": repr(sorted(told.items())), **schedule}, told)


def recorded(store: Store, done: Stage, seconds: float) -> None:
    folder = store.folder(done.id)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"device_seconds": seconds}
    write_json(folder / "record.json", {"identity": done.identity, "row": done.row, "facts": facts, "seconds": seconds})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs").open()


def one(wanted: Stage, store: Store) -> tuple[float | None, str]:
    (row,) = estimates([wanted], store, Known.of([store]))
    assert row.kind == kind_of(wanted.identity, wanted.row) and row.stages == 1
    return row.seconds, row.by


def test_a_training_takes_the_median_of_its_kind_by_the_step(store: Store) -> None:
    for steps, seconds in ((10, 1.0), (20, 4.0), (10, 100.0)):
        recorded(store, stage(steps=steps, seed=seconds), seconds)
    assert one(stage(steps=50), store) == (pytest.approx(50 * 0.2), RECORDED)


@pytest.mark.parametrize(
    ("known", "wanted", "factor"),
    [
        (stage(size=64), stage(size=128), 4.0),
        (stage(batch=4), stage(batch=8), 2.0),
        (stage("pretrain"), stage("pretrain", loss="byol", size=128), 4.0),
        (stage(), stage(precision="bf16"), 1.0),
        (stage("evaluate"), stage("evaluate", test_data="y"), 1.0),
    ],
)
def test_what_is_like_is_scaled_by_size_and_batch(store: Store, known: Stage, wanted: Stage, factor: float) -> None:
    recorded(store, known, 10.0)
    assert one(wanted, store) == (pytest.approx(10.0 * factor), SCALED)


def test_another_backbone_is_scaled_by_a_kind_of_training_that_both_are_known_of(store: Store) -> None:
    recorded(store, stage("pretrain"), 10.0)
    assert one(stage("pretrain", backbone="large"), store) == (None, UNKNOWN)
    recorded(store, stage("finetune"), 2.0)
    recorded(store, stage("finetune", backbone="large"), 6.0)
    assert one(stage("pretrain", backbone="large"), store) == (pytest.approx(30.0), SCALED)


def test_nothing_is_known_of_another_device_or_of_nothing(store: Store) -> None:
    assert one(stage(), store) == (None, UNKNOWN)
    recorded(store, stage(), 10.0)
    assert one(stage(device="cuda"), store) == (None, UNKNOWN)


def test_what_is_done_takes_no_time_and_other_stores_tell_too(store: Store, tmp_path: Path) -> None:
    recorded(store, stage(), 10.0)
    assert estimates([stage()], store, Known.of([store])) == []
    other = Store(tmp_path / "other").open()
    (row,) = estimates([stage()], other, Known.of([other, store]))
    assert (row.seconds, row.by) == (pytest.approx(10.0), RECORDED)


def test_a_probe_steps_the_true_training_and_leaves_nothing(
    tiny_settings: dict[str, Any], installed: Registry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "PROBE_STEPS", 3)
    long = {"pretrain": {"steps": 10**6, "batch": 8}, "finetune": {"steps": 10**6, "batch": 4}}
    plan = make_plan(installed, resolve({**tiny_settings, **long, "loss": "byol"}), lambda *_: None)
    told: list[str] = []
    began = time.perf_counter()
    found = measure(plan.stages, store, Known.of([store]), installed, told.append)
    took = time.perf_counter() - began
    assert [kind.kind for kind in found] == ["pretrain", "finetune"] and len(told) == 2
    assert all(0 < seconds < took / 3 for seconds in found.values())
    assert not list(store.stages.iterdir())
    rows = estimates(plan.stages, store, Known.of([store]), found)
    by = {row.kind.kind: row for row in rows}
    assert by["pretrain"].by == MEASURED and by["evaluate"].by == UNKNOWN
    (kind,) = [kind for kind in found if kind.kind == "pretrain"]
    assert by["pretrain"].seconds == pytest.approx(found[kind] * 10**6)


def test_what_fails_while_it_is_measured_is_a_sentence(
    tiny_settings: dict[str, Any], installed: Registry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_probe", lambda stage, registry: [][0])
    plan = make_plan(installed, resolve({**tiny_settings, "loss": "byol"}), lambda *_: None)
    with pytest.raises(RunFailed, match=r"pretrain byol, seed \d failed: IndexError"):
        measure(plan.stages, store, Known.of([store]), installed, lambda kind: None)


def test_of_a_record_without_its_parts_nothing_is_learnt() -> None:
    assert Known.from_records([{}, {"identity": None}, {"identity": {"schedule": 1}}]).seconds == {}


def test_a_record_is_believed_more_than_a_probe(store: Store) -> None:
    recorded(store, stage(), 10.0)
    wanted = replace(stage(steps=20), title="another")
    (row,) = estimates([wanted], store, Known.of([store]), {kind_of(wanted.identity, wanted.row): 99.0})
    assert (row.seconds, row.by) == (pytest.approx(20.0), RECORDED)


def test_a_plan_says_what_it_does_not_know_and_measures_when_asked(
    usbench: Callable[..., Any], tiny: list[str], tmp_path: Path
) -> None:
    config, out = tmp_path / "run.toml", tmp_path / "o"
    assert usbench("run", "--loss", "simclr", *tiny, "--save-config", config, "--dry-run").code == 0
    config.write_text(config.read_text().replace("[run", "[base") + "\n[[runs]]\n")
    said = usbench("suite", "plan", config, "--out", out)
    assert said.code == 0 and "Time left: unknown; suite plan --time measures." in said.out
    said = usbench("suite", "plan", config, "--out", out, "--time")
    assert said.code == 0 and re.search(r"Time left: about \d+ s with one worker", said.out), said.out
    assert len(re.findall("measured", said.out)) == 2 and not out.exists()
