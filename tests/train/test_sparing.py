"""Training in less memory is the same training: loss, gradients, running statistics and draws are those of a plain
step; and what would be another one is refused."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from usbench_segment.protocol import Segment

from usbench.conformance import toy
from usbench.conformance.lockstep import Lockstep
from usbench.contracts import Labelled, Loss
from usbench.errors import NotSparing
from usbench.hooks import registry
from usbench.train import sparing
from usbench.train.loop import Compute
from usbench.train.networks import build_network
from usbench.train.ranks import Ranks
from usbench.train.sparing import blocks, check_parts, in_parts, ran_out, recomputing

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = Compute(torch.device("cpu"), "float32")
BACKBONES = (("unet-tiny", {}), ("unet-resnet18", {}), ("unet", {"encoder": "densenet121"}), ("vit-tiny", {}))


class Unit(nn.Module):
    """Everything that must not happen twice: running statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.norm(self.conv(x)).relu())


class Row(nn.Module):
    """Some units in a row; `slow` has no momentum, so that its statistics are averages."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.units = nn.Sequential(*(Unit() for _ in range(3)))
        self.units[1].norm.momentum = None

    def forward(self, x: Tensor) -> Tensor:
        return self.units(x)


def outcome(network: nn.Module, images: Tensor, context: Any) -> dict[str, Tensor]:
    """All that a step leaves behind, and what is drawn after it."""
    network.train()
    torch.manual_seed(1)
    with context:
        made = network(images)
        value = (made.sigmoid() * torch.linspace(0, 1, made.numel()).view_as(made)).mean()
        value.backward()
    found = {"value": value.detach(), "drawn next": torch.rand(4)}
    found |= {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return found | {name: buffer.clone() for name, buffer in network.named_buffers()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name].float(), tensor.float(), atol=1e-5, rtol=1e-5), name


def kept_by(context: Any, network: nn.Module, images: Tensor) -> int:
    """Bytes that a forward keeps for the backward, but for weights."""
    seen: dict[int, int] = {}
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with context, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = network.train()(images)
    del made
    return sum(size for place, size in seen.items() if place not in own)


def test_a_step_with_batch_norms_and_dropout_is_that_of_a_plain_one() -> None:
    images = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = outcome(Row(), images, contextlib.nullcontext())
    row = Row()
    assert_same(outcome(row, images, recomputing(row)), expected)
    assert row.units[0].norm.num_batches_tracked == 1 and type(row.units[0]) is Unit


@pytest.mark.parametrize(("name", "options"), BACKBONES)
def test_backbones_keep_far_less_and_come_to_the_same(name: str, options: dict[str, Any]) -> None:
    entry = registry().get("backbone", name)
    images = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(2))

    def built() -> nn.Module:
        return build_network(entry, {**entry.options, **options}, 64, 0)

    expected, network = outcome(built(), images, contextlib.nullcontext()), built()
    assert_same(outcome(network, images, recomputing(network)), expected)
    plain, lean = (kept_by(how, network, images) for how in (contextlib.nullcontext(), recomputing(network)))
    assert lean < plain / 2.5


@pytest.mark.parametrize("name", [e.name for e in registry().entries("loss") if e.factory is not None])
def test_every_loss_is_trained_alike_or_refused(name: str) -> None:
    def trained(lean: bool) -> tuple[list[float], dict[str, Tensor]]:
        loss = toy.build(registry().get("loss", name))
        with recomputing(loss.network) if lean else contextlib.nullcontext():
            values = toy.train(loss, toy.optimizer_of(loss), range(2))
        return values, {n: t.detach() for n, t in loss.named_buffers() if "running" in n}

    expected = trained(False)
    own_step = type(toy.build(registry().get("loss", name))).step is not Loss.step
    with pytest.raises(NotSparing) if own_step else contextlib.nullcontext():
        found = trained(True)
        assert found[0] == pytest.approx(expected[0], abs=1e-5, rel=1e-5)
        assert_same(found[1], expected[1])


def test_bf16_too() -> None:
    losses = []
    for lean in (False, True):
        loss = toy.build(registry().get("loss", "simclr"), precision="bf16")
        with recomputing(loss.network) if lean else contextlib.nullcontext():
            losses.append(toy.train(loss, toy.optimizer_of(loss), range(2)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_ranks_that_share_a_batch_pool_statistics_there_too() -> None:
    def do(group: Ranks | None) -> dict[str, Tensor]:
        loss = toy.build(registry().get("loss", "simclr"))
        with contextlib.ExitStack() as stack:
            stack.enter_context(recomputing(loss.network, group))
            if group is not None:
                stack.enter_context(group.sharing(loss))
            batch = toy.batch_of(loss)
            torch.manual_seed(0)
            value = loss(batch)
            value.backward()
            loss.after_backward(batch)
        found = {name: p.grad for name, p in loss.named_parameters() if p.grad is not None}
        return found | {"value": value.detach(), **{n: b.clone() for n, b in loss.network.named_buffers()}}

    expected = do(None)
    for found in Lockstep(2).run(do):
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.allclose(found[name].float(), tensor.float(), atol=1e-4, rtol=1e-3), name


def test_weights_that_move_between_forward_and_backward_are_noticed() -> None:
    row = Row().train()
    with recomputing(row):
        value = row(torch.randn(4, 4, 8, 8)).sum()
        with torch.no_grad():
            row.units[0].conv.weight.mul_(1.01)
        with pytest.raises(NotSparing, match="weights are others"):
            value.backward()


def test_where_no_gradient_is_wanted_nothing_is_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparing, "checkpoint", None)
    row = Row()
    with recomputing(row), torch.no_grad():
        row(torch.randn(4, 4, 8, 8))


def test_blocks_are_no_part_of_each_other() -> None:
    for name, options in BACKBONES:
        entry = registry().get("backbone", name)
        found = list(blocks(build_network(entry, {**entry.options, **options}, 64, 0)))
        inner = {id(part) for block in found for part in block.modules() if part is not block}
        assert len(found) > 3 and not inner & {id(block) for block in found}


# In parts.


def batch_of(count: int = 6) -> Labelled:
    rng = torch.Generator().manual_seed(3)
    mask = (torch.rand(count, 1, 32, 32, generator=rng) > 0.7).float()
    return Labelled(torch.randn(count, 1, 32, 32, generator=rng), mask, torch.arange(count) % 2)


@pytest.fixture
def token_network() -> Iterator[nn.Module]:
    entry = registry().get("backbone", "vit-tiny")
    yield build_network(entry, dict(entry.options), 32, 0).train()


@pytest.mark.parametrize("parts", [2, 3, 4, 6])
def test_a_gradient_in_parts_is_that_of_the_batch(token_network: nn.Module, parts: int) -> None:
    batch, protocol = batch_of(), Segment()
    value = protocol.objective(token_network(batch.images), batch)
    value.backward()
    expected = [p.grad.clone() for p in token_network.parameters()]
    token_network.zero_grad()
    check_parts(token_network)
    found = in_parts(token_network, protocol, batch, parts, CPU)
    assert found.item() == pytest.approx(value.item(), abs=1e-5)
    for p, gradient in zip(token_network.parameters(), expected, strict=True):
        assert torch.allclose(p.grad, gradient, atol=1e-5)


def test_a_batch_norm_is_not_taken_in_parts_but_a_frozen_one_may_be() -> None:
    row = Row().train()
    with pytest.raises(NotSparing, match=r"'units\.0\.norm' takes its statistics from the whole batch"):
        check_parts(row)
    check_parts(row.eval())


def test_a_network_that_draws_is_not_taken_in_parts(token_network: nn.Module) -> None:
    network = nn.Sequential(token_network, nn.Dropout(0.1)).train()
    with pytest.raises(NotSparing, match="draws at random"):
        in_parts(network, Segment(), batch_of(), 2, CPU)


def test_an_objective_that_is_no_mean_over_images_is_not_taken_in_parts(token_network: nn.Module) -> None:
    class Weighted(Segment):
        def objective(self, output: Tensor, batch: Labelled) -> Tensor:
            weight = 1 + 8 * batch.label.float()  # as cross-entropy with class weights
            each = functional.binary_cross_entropy_with_logits(output, batch.mask, reduction="none").mean((1, 2, 3))
            return (weight * each).sum() / weight.sum()

    batch = batch_of()
    batch.label = torch.tensor([1, 0, 0, 0, 0, 0])
    with pytest.raises(NotSparing, match="not the mean over its images"):
        in_parts(token_network, Weighted(), batch, 2, CPU)


# What says that memory is used up.


@pytest.mark.parametrize(
    ("error", "whether"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_it_is_told_from_other_errors(error: Exception, whether: bool) -> None:
    assert ran_out(error) is whether


def test_what_numpy_cannot_allocate_counts_too() -> None:
    with pytest.raises(MemoryError) as error:
        np.empty((1 << 45,), np.float64)
    assert ran_out(error.value)
