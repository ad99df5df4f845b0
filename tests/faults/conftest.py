"""Good files of every kind; and a small run, with what it comes to when nothing disturbs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kinds import World, make_world
from watching import Watcher, table_of

from usbench.hooks import registry
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan
from usbench.runs.store import Store
from usbench.spec import resolve


@pytest.fixture(scope="session")
def plan(tiny_settings: dict[str, Any]) -> Plan:
    steps = {"pretrain": {"steps": 12, "batch": 8}, "finetune": {"steps": 4, "batch": 4}}
    given = {**tiny_settings, **steps, "loss": "moco", "labels": [100], "seeds": [3]}
    return make_plan(registry(), resolve(given), lambda *_: None)


@pytest.fixture(scope="session")
def undisturbed(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    store = Store(tmp_path_factory.mktemp("undisturbed")).open()
    assert run_plan(plan, store, registry(), Watcher()) == len(plan.stages)
    return store, table_of(plan, store)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, data_home: Path) -> Iterator[World]:
    """A release, its pack, a run on it and its export, made by the commands themselves."""
    yield make_world(tmp_path_factory.mktemp("good"))
