"""How far all of it is: counted as stages begin and end, with the time that their like took."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from usbench.api import progress, tally
from usbench.api.progress import Display
from usbench.api.tally import Tally
from usbench.hooks import Registry
from usbench.runs.plan import make_plan
from usbench.runs.stage import Stage
from usbench.runs.store import Store
from usbench.spec import resolve


@pytest.fixture
def stages(installed: Registry, tiny_settings: dict[str, Any]) -> list[Stage]:
    given = {**tiny_settings, "loss": "simclr", "seeds": [0, 1]}
    return make_plan(installed, resolve(given), lambda *_: None).stages


def test_what_is_left_takes_as_long_as_its_like_took(
    stages: list[Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(tally.time, "monotonic", lambda: clock[0])
    of = {kind: [stage for stage in stages if stage.kind == kind] for kind in ("pretrain", "finetune", "evaluate")}
    asked = [*of["pretrain"], of["evaluate"][0]]
    store = Store(tmp_path).open()
    with store.work(of["evaluate"][0].id):
        store.finish(of["evaluate"][0].id, {"identity": {}})
    monkeypatch.setattr(Store, "records", lambda *_: iter(()))
    told = Tally(asked, store, workers=2)
    assert str(told) == "1 of 3 stages done (1 were there)"
    told.begin(of["pretrain"][0])
    assert told.left() is None and str(told).endswith(", 1 running")
    clock[0] += 8
    told.end(of["pretrain"][0])
    assert told.left() == pytest.approx(4)  # another one of 8 s, for two workers
    told.begin(of["pretrain"][1])
    told.step(of["pretrain"][1], 3, 4)
    assert told.left() == pytest.approx(1)
    assert str(told) == "2 of 3 stages done (1 were there), 1 running, about 1 s left"
    told.fail(of["pretrain"][1])
    assert str(told) == "2 of 3 stages done (1 were there), 1 failed"


def test_a_set_that_is_made_a_second_time_with_other_options_is_shown_again() -> None:
    with Display(Console(file=io.StringIO(), force_terminal=True, width=160)) as display:
        for total in (5, 6):
            for done in range(1, total + 1):
                display.making("phantom-l7", done, total)
        display.making("phantom-l7", 7, 6)  # of which there were more than it said


@pytest.mark.parametrize("terminal", [False, True])
def test_the_display_says_how_far_all_of_it_is(
    stages: list[Stage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    said = io.StringIO()
    with Display(Console(file=said, force_terminal=terminal, width=160)) as display:
        display.expect(Tally(stages, Store(tmp_path)))
        for place, stage in enumerate(stages[:2], 1):
            display.begin(stage, place, len(stages))
            display.step(stage, 1, 4, 0.5, 10.0)
            display.end(stage)
        display.progress.refresh()
    assert f"2 of {len(stages)} stages done" in said.getvalue()
