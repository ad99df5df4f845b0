"""Weights and states are on disk whole or not at all, and come back to the bit."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from usbench.errors import UsbenchError
from usbench.train import checkpoint
from usbench.train.loop import Compute, adamw
from usbench.train.schedule import Schedule


class Remembers(nn.Module):
    """All the places where a third-party loss keeps what it remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)
        self.tied = self.layer.weight
        self.norm = nn.BatchNorm2d(4)
        self.inner = nn.Module()
        self.inner.register_buffer("bank", torch.zeros(2, 3), persistent=False)
        self.inner.matrix = torch.zeros(3, 3)  # a plain attribute
        self.inner.later = None  # made at the first step
        self.register_buffer("made_later", None)

    def fill(self, seed: int) -> Remembers:
        source = torch.Generator().manual_seed(seed)
        for tensor in (*self.parameters(), *self.buffers()):
            with torch.no_grad():
                tensor.copy_(torch.rand(tensor.shape, generator=source))
        self.inner.bank = torch.rand(7, 3, generator=source)  # grew
        self.inner.matrix = torch.rand(3, 3, generator=source)
        self.inner.later = torch.rand(5, generator=source)
        self.made_later = torch.arange(4)
        return self


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_written_is_read_back_with_its_facts(tmp_path: Path) -> None:
    tensors = {
        "float": torch.rand(3, 2), "bf16": torch.rand(4).bfloat16(), "long": torch.arange(5), "bool": torch.ones(2) > 0,
        "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 4), "turned": torch.rand(3, 4).T,
        "channels last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }  # fmt: skip
    shared = torch.rand(6)
    tensors |= {"one": shared, "part": shared[2:4], "grad": torch.rand(2, requires_grad=True)}
    facts = {"step": 3, "rows": [{"loss": 0.1}], "text": "dé", "nan": float("nan")}
    checkpoint.write(tmp_path / "file", tensors, facts)
    got, said = checkpoint.read(tmp_path / "file")
    assert equal(got, {name: tensor.detach() for name, tensor in tensors.items()})
    assert {k: v for k, v in said.items() if k != "nan"} == {k: v for k, v in facts.items() if k != "nan"}
    assert said["nan"] != said["nan"]


def test_without_facts_there_are_none(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "file", {"a": torch.zeros(1)})
    assert checkpoint.read(tmp_path / "file")[1] == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_a_crash_while_writing_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = tmp_path / "state.safetensors"
    checkpoint.write(path, {"a": torch.ones(3)}, {"step": 1})

    def crash(tensors: dict[str, Tensor], file: Path, metadata: Any) -> None:
        Path(file).write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", crash)
    with pytest.raises(error):
        checkpoint.write(path, {"a": torch.zeros(3)}, {"step": 2})
    assert list(tmp_path.iterdir()) == [path]
    tensors, facts = checkpoint.read(path)
    assert torch.equal(tensors["a"], torch.ones(3)) and facts == {"step": 1}


def test_until_the_last_byte_is_written_the_old_file_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "state.safetensors", []
    checkpoint.write(path, {"a": torch.ones(3)})
    real = checkpoint.save_file

    def watch(tensors: dict[str, Tensor], file: Path, metadata: Any) -> None:
        real(tensors, file, metadata=metadata)
        seen.append(checkpoint.read(path)[0]["a"].tolist())

    monkeypatch.setattr(checkpoint, "save_file", watch)
    checkpoint.write(path, {"a": torch.zeros(3)})
    assert seen == [[1, 1, 1]]
    assert checkpoint.read(path)[0]["a"].tolist() == [0, 0, 0]


def test_a_new_file_takes_the_place_of_the_old_one_and_does_not_write_into_it(tmp_path: Path) -> None:
    path, reader = tmp_path / "state.safetensors", tmp_path / "reader"
    checkpoint.write(path, {"a": torch.ones(3)})
    reader.hardlink_to(path)  # as somebody who has it open
    checkpoint.write(path, {"a": torch.zeros(3)})
    assert checkpoint.read(reader)[0]["a"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_others_may_read_it_as_far_as_the_umask_lets_them(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        checkpoint.write(tmp_path / "weights.safetensors", {"w": torch.ones(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == mode


def test_a_folder_that_cannot_be_written_to_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        checkpoint.write(tmp_path / "nowhere" / "file", {"a": torch.zeros(1)})


def no_file(path: Path) -> None:
    pass


def text(path: Path) -> None:
    path.write_text("weights")


def torn(path: Path) -> None:
    checkpoint.write(path, {"a": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:-50])


def pickled(path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_file, "there is no file"),
        (text, "is not a whole safetensors file"),
        (torn, "is not a whole safetensors file"),
        (pickled, "is not a whole safetensors file"),
        (Path.mkdir, "is not a whole safetensors file"),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_sentence(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / "weights")
    with pytest.raises(UsbenchError, match=said):
        checkpoint.read(tmp_path / "weights")


def test_a_safetensors_file_of_somebody_else_is_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "file", metadata={"format": "pt"})
    tensors, facts = checkpoint.read(tmp_path / "file")
    assert tensors["a"].tolist() == [1, 1] and facts == {}


def test_everything_a_module_remembers_is_taken_and_put_back(tmp_path: Path) -> None:
    source, target = Remembers().fill(1), Remembers()
    taken = checkpoint.tensors_of(source)
    assert {
        "layer.weight", "tied", "norm.running_mean", "norm.num_batches_tracked", "inner.bank", "inner.matrix",
        "inner.later", "made_later",
    } <= taken.keys()  # fmt: skip
    checkpoint.write(tmp_path / "file", taken)
    checkpoint.restore(target, checkpoint.read(tmp_path / "file")[0])
    assert equal(checkpoint.tensors_of(target), taken)
    assert target.tied is target.layer.weight
    assert dict(target.named_buffers()).keys() == dict(source.named_buffers()).keys()
    assert all(p.requires_grad and p.is_leaf for p in target.parameters())


def test_putting_back_keeps_the_memory_layout_and_the_very_tensors() -> None:
    target = Compute(torch.device("cpu"), "float32").place(nn.Conv2d(3, 4, 3))
    weight, strides = target.weight, target.weight.stride()
    checkpoint.restore(target, {"weight": torch.rand(4, 3, 3, 3), "bias": torch.rand(4)})
    assert target.weight is weight and weight.stride() == strides != torch.rand(4, 3, 3, 3).stride()


def test_a_missing_parameter_is_refused_by_name() -> None:
    tensors = checkpoint.tensors_of(Remembers().fill(1))
    del tensors["norm.weight"]
    with pytest.raises(UsbenchError, match=r"'norm\.weight' is missing"):
        checkpoint.restore(Remembers(), tensors)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 1))
    net.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))  # of no dimension, as the step count
    return Compute(torch.device("cpu"), "float32").place(net)


def steps(net: nn.Sequential, optimizer: torch.optim.Optimizer, which: range) -> None:
    for step in which:
        images = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (net.scale * net(images)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda net: adamw(Schedule(10, 5, 1e-2, 0.1, 0.0), [(net, 1.0)]),
        lambda net: torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9),
        lambda net: torch.optim.Adam(net.parameters(), lr=0.01, amsgrad=True),
    ],
    ids=["adamw", "sgd", "amsgrad"],
)
def test_an_optimiser_goes_on_as_if_it_had_never_stopped(
    tmp_path: Path, make: Callable[[nn.Module], torch.optim.Optimizer]
) -> None:
    net = model()
    optimizer = make(net)
    steps(net, optimizer, range(3))
    checkpoint.write(tmp_path / "net", checkpoint.tensors_of(net))
    checkpoint.write(tmp_path / "optimizer", checkpoint.optimizer_tensors(optimizer))
    steps(net, optimizer, range(3, 6))

    again = model()
    optimizer_again = make(again)
    checkpoint.restore(again, checkpoint.read(tmp_path / "net")[0])
    checkpoint.restore_optimizer(optimizer_again, checkpoint.read(tmp_path / "optimizer")[0])
    first = next(iter(again.parameters()))
    state = optimizer_again.state[first]
    assert all(v.stride() == first.stride() for v in state.values() if torch.is_tensor(v) and v.shape == first.shape)
    steps(again, optimizer_again, range(3, 6))
    assert equal(checkpoint.tensors_of(net), checkpoint.tensors_of(again))
    assert equal(checkpoint.optimizer_tensors(optimizer), checkpoint.optimizer_tensors(optimizer_again))
