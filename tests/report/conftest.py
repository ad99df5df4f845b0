"""Stores to look at: an empty one, and one with a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from made_up import STEPS

from usbench.hooks import Registry
from usbench.report.summary import summarise
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.store import Store
from usbench.spec import resolve


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store").open()


@pytest.fixture(scope="session")
def finished(tiny_settings: dict[str, Any], quiet: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished run."""
    registry = Registry()
    registry.load_entry_points()
    settings = {**tiny_settings, **STEPS, "loss": "simclr", "labels": [100], "seeds": [0]}
    plan = make_plan(registry, resolve(settings), lambda *_: None)
    store = Store(tmp_path_factory.mktemp("finished")).open()
    run_plan(plan, store, registry, quiet)
    summarise(plan, store)
    return store.root


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "runs"))
