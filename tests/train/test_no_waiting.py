"""No step waits for the device: nothing asks it for a value, and all that goes there is copied ahead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from usbench.bench.setting import make_setting
from usbench.bench.subject import Subject, finetuning, pretraining
from usbench.data import room
from usbench.data.feed import Feed
from usbench.data.pack import Pack
from usbench.train.loop import WINDOW
from usbench.views import between

pytestmark = pytest.mark.usefixtures("one_thread")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
METHODS = [("byol", "freq"), ("barlow-twins", "spatial"), ("dino", "spatial"), ("pixpro", "freq")]
ASKS = {"_local_scalar_dense", "nonzero", "masked_select", "_linalg_check_errors", "equal", "is_nonzero", "_unique2"}


class Asked(TorchDispatchMode):
    """Notes what would make the host wait for a GPU, since it asks for values or for how many there are.

    Copies between a host and a device cannot be seen where there is no device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(at, Tensor) and at.dtype in (torch.bool, torch.uint8)
            for given in args
            if isinstance(given, list | tuple)
            for at in given
        )
        if name in ASKS or by_mask:
            self.said.append(name)
        return function(*args, **(kwargs or {}))


def test_what_asks_for_a_value_is_noted() -> None:
    values = torch.arange(6.0)
    for ask in (
        lambda: values.sum().item(), lambda: bool(values.any()), lambda: values[values > 2], lambda: values.nonzero(),
        lambda: torch.where(values > 2), lambda: torch.linalg.solve(torch.eye(3), torch.eye(3)),
    ):  # fmt: skip
        with Asked() as asked:
            ask()
        assert asked.said
    with Asked() as asked:
        values[torch.tensor([1, 2])], values.index_select(0, torch.tensor([1])), torch.where(values > 2, values, 0)
    assert not asked.said


def subject_of(what: str, pack: Path, folder: Path, device: str, loss: str = "byol", aug: str = "spatial") -> Subject:
    setting = make_setting({"data": str(pack), "device": device, "loss": loss, "aug": aug}, quick=True)
    return {"pretrain": pretraining, "finetune": finetuning}[what](setting, setting.backbones[0], 32, folder)


CASES = [("finetune", "byol", "spatial"), *(("pretrain", loss, aug) for loss, aug in METHODS)]


@pytest.mark.parametrize(("what", "loss", "aug"), CASES)
@pytest.mark.parametrize("mib", ["1000", "0"])
def test_a_step_asks_the_device_for_nothing(
    what: str, loss: str, aug: str, mib: str, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(room.SETTING, mib)
    subject = subject_of(what, tiny_pack, tmp_path, "cpu", loss, aug)
    subject.steps(0)
    with Asked() as asked:
        subject.steps(1)
    assert not asked.said


def test_a_training_asks_once_in_a_while(tiny_pack: Path, tmp_path: Path) -> None:
    subject = subject_of("finetune", tiny_pack, tmp_path, "cpu")
    with Asked() as asked:
        subject.go_on(2 * WINDOW)
    assert len(asked.said) <= 2  # whether a window's losses are finite


def test_the_way_from_view_to_view_is_found_without_asking() -> None:
    one, other = torch.eye(2, 3).expand(5, 2, 3), 2 * torch.eye(2, 3).expand(5, 2, 3)
    with Asked() as asked:
        between(one, other)
    assert not asked.said


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize(("what", "loss", "aug"), CASES)
@pytest.mark.parametrize("mib", ["1000", "0"])
def test_steps_on_a_gpu_never_wait_for_it(
    what: str, loss: str, aug: str, mib: str, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(room.SETTING, mib)
    subject = subject_of(what, tiny_pack, tmp_path, "cuda", loss, aug)
    for step in range(3):  # what is made at a first step may wait
        subject.steps(step)
    with waiting_is_an_error():
        for step in range(3, 6):
            subject.steps(step)


@pytest.mark.gpu
@on_a_gpu
def test_rows_read_ahead_are_there_before_anything_is_computed_of_them(
    tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, device = Pack(tiny_pack), torch.device("cuda")
    rows = np.random.default_rng(0).integers(0, pack.count, (40, 32))
    monkeypatch.setenv(room.SETTING, "0")
    feed = Feed([(pack, np.arange(pack.count))], 64, device)
    busy = torch.randn(2048, 2048, device=device)
    found = []
    for now, following in zip(rows, [*rows[1:], rows[0]], strict=True):
        taken = feed.take(feed.images, now)
        feed.ahead(following, feed.images)
        for _ in range(4):
            busy = busy @ busy.T / 2048  # copies get far ahead of what is computed
        found.append(taken.clone())
        del taken
    for now, taken in zip(rows, found, strict=True):
        assert torch.equal(taken.cpu()[:, 0], torch.from_numpy(np.asarray(pack.images[np.arange(pack.count)])[now]))
