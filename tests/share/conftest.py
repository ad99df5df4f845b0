"""Two small stores: a U-Net of smp's with ResNet-18, and a tiny one with several fractions and seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from usbench.hooks import registry
from usbench.report.summary import summarise
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.store import Store
from usbench.spec import resolve


def done(root: Path, settings: dict[str, Any], quiet: Any) -> Path:
    """Do a run; returns its folder."""
    store = Store(root).open()
    plan = make_plan(registry(), resolve(settings), lambda *_: None)
    run_plan(plan, store, registry(), quiet)
    return summarise(plan, store).folder


@pytest.fixture(scope="session")
def resnet_run(tiny_settings: dict[str, Any], quiet: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained and a plain row on one fraction."""
    chosen = {"loss": "simclr", "backbone": "unet:resnet18,width=32", "labels": [100], "seeds": [0]}
    return done(tmp_path_factory.mktemp("share") / "resnet", {**tiny_settings, **chosen}, quiet)


@pytest.fixture(scope="session")
def tiny_run(tiny_settings: dict[str, Any], quiet: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fractions, two seeds."""
    steps = {"pretrain": {"steps": 2, "batch": 8}, "finetune": {"steps": 2, "batch": 4}}
    return done(
        tmp_path_factory.mktemp("share") / "tiny", {**tiny_settings, **steps, "loss": "simclr", "seeds": [0, 1]}, quiet
    )
