"""A finished run of a few seconds, as `usbench.run` returns it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import usbench
from usbench import Result


@pytest.fixture(scope="session")
def asked(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    """Keywords of `usbench.run` for a run of a few seconds; add `out`."""
    rest = {key: value for key, value in tiny_settings.items() if key not in ("pretrain", "finetune")}
    steps = {"pretrain": {"steps": 10, "batch": 8}, "finetune": {"steps": 10, "batch": 4}}
    return {**rest, "loss": "simclr", "labels": [100], "set": steps, "progress": False, "workers": 1}


@pytest.fixture(scope="session")
def finished(asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The run."""
    return usbench.run(**asked, out=tmp_path_factory.mktemp("api"))


@pytest.fixture
def store(finished: Result) -> Path:
    """The store that holds it."""
    return finished.store.root
