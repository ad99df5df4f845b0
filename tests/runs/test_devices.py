"""A pretraining on two devices: the result of one, whether it was stopped or killed; and who cannot share."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from usbench.errors import Halt, Interrupted, RunFailed, UsbenchError
from usbench.hooks import Registry
from usbench.runs import devices, plan
from usbench.runs.plan import make_plan
from usbench.runs.stage import Stage
from usbench.runs.stages import Stages
from usbench.runs.store import Store
from usbench.spec import resolve
from usbench.train import checkpoint
from usbench.train.loop import STATE, WINDOW

STEPS = 2 * WINDOW + 4


class Watch:
    """Stops after the first window, or kills one of the processes then."""

    def __init__(self, stops: bool = False, kills: list[int] | None = None) -> None:
        self.stops, self.kills = stops, kills
        self.stopping, self.seen = False, []

    def step(self, done: int, total: int, loss: float, rate: float) -> None:
        self.seen.append(done)
        self.stopping |= self.stops
        if self.kills:
            os.kill(self.kills[1], signal.SIGKILL)


def stage_of(registry: Registry, settings: dict[str, Any], **changes: Any) -> Stage:
    given = {"loss": "moco", "seeds": [3], **settings, "pretrain": {"steps": STEPS, "batch": 8}, **changes}
    stages = make_plan(registry, resolve(given), lambda *_: None).stages
    return next(stage for stage in stages if stage.kind == "pretrain")


def do(registry: Registry, stage: Stage, folder: Path, watch: Watch) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return Stages(Store(folder.parent), registry).do(stage, folder, watch)


def test_two_devices_come_to_the_result_of_one_also_when_stopped_and_gone_on_with_by_another_number(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    one, two = (stage_of(installed, tiny_settings, devices=count) for count in (1, 2))
    alone = do(installed, one, tmp_path / "one", Watch())
    stopped, watch = tmp_path / "two", Watch(stops=True)
    with pytest.raises(Interrupted, match=rf"saved at step 1\d of {STEPS}"):
        do(installed, two, stopped, watch)
    assert watch.seen[0] == WINDOW
    state = (stopped / STATE).read_bytes()
    together = do(installed, two, stopped, Watch())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / STATE).write_bytes(state)
    do(installed, one, elsewhere, Watch())
    curves = [pd.read_csv(tmp_path / name / "curve.csv") for name in ("one", "two", "elsewhere")]
    assert list(curves[0].step) == list(curves[1].step) == [10, 20, 24]
    for curve in curves[1:]:
        assert curve.loss.to_numpy() == pytest.approx(curves[0].loss.to_numpy(), rel=1e-3)
    weights = [checkpoint.read(tmp_path / name / "weights.safetensors")[0] for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    assert sorted(f.name for f in stopped.iterdir()) == ["curve.csv", STATE, "weights.safetensors"]
    measured = ("device_seconds", "peak_mib", "spread", "rankme")
    assert {k: v for k, v in together.items() if k not in measured} == {
        k: v for k, v in alone.items() if k not in measured
    }


def test_a_killed_process_ends_the_stage_in_a_sentence_and_the_others_with_it(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int] = []

    class Known(devices._Member):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            pids.append(self.process.pid)

    monkeypatch.setattr(devices, "_Member", Known)
    stage = stage_of(installed, tiny_settings, devices=2)
    with pytest.raises(RunFailed, match=r"process of device 1 died in pretrain moco, seed 3 \(exit code -9; .*again"):
        do(installed, stage, tmp_path / "work", Watch(kills=pids))
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_a_full_disk_in_a_process_is_known_as_one(
    installed: Registry, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "stages").mkdir()
    store, stage = Store(tmp_path), stage_of(installed, tiny_settings, devices=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with pytest.raises(Halt, match=r"the disk of .* is full: make room"), store.work(stage.id) as folder:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))  # handed on to the processes
        try:
            Stages(store, installed).do(stage, folder, Watch())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)


def test_one_device_has_the_keys_it_always_had_and_several_move_the_pretraining_alone(
    installed: Registry, tiny_settings: dict[str, Any]
) -> None:
    given = {"loss": "simclr", "seeds": [0], **tiny_settings}
    plans = [make_plan(installed, resolve({**given, **more}), lambda *_: None) for more in ({}, {"devices": 2})]
    assert "devices" not in next(stage for stage in plans[0].stages if stage.kind == "pretrain").identity
    keys = [{(s.kind, s.row["loss"]): s.key for s in each.stages} for each in plans]
    assert keys[0]["pretrain", "simclr"] != keys[1]["pretrain", "simclr"]
    assert keys[0]["finetune", "none"] == keys[1]["finetune", "none"]
    arenas = [{s.row["arena"] for s in each.stages if s.kind == "evaluate"} for each in plans]
    assert arenas[0] == arenas[1], "rows of one device and of two are compared"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": 3}, r"--devices 3 cannot share pretrain\.batch=8 evenly: use --devices 2, or --set .*batch=6"),
        ({"devices": 2, "loss": "selfish"}, r"loss 'selfish' cannot be trained on several devices .*--devices 1"),
        ({"devices": 0}, r"devices: .*greater than or equal to 1"),
        ({"devices": 2, "device": "cuda"}, r"--devices 2: 1 CUDA devices are visible here; use --devices 1"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_runs(
    changes: dict[str, Any], words: str, installed: Registry, tiny_settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    class Selfish:
        distributed = False

    class Plugin:
        @staticmethod
        def usbench_losses(register: Any) -> None:
            register("selfish", Selfish, summary="keeps to itself")

    from usbench import hookimpl

    Plugin.usbench_losses = staticmethod(hookimpl(Plugin.usbench_losses))  # type: ignore[method-assign]
    installed.add(Plugin(), "selfish")
    monkeypatch.setattr(plan, "cuda_devices", lambda: 1)
    monkeypatch.setattr(plan, "resolve_device", lambda device: device)
    with pytest.raises(UsbenchError, match=words):
        stage_of(installed, tiny_settings, **changes)
