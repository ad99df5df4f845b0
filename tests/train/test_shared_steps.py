"""Networks on several ranks: values and gradients are those of one process, and every loss comes out the same."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from usbench.conformance import toy
from usbench.conformance.lockstep import Apart, Lockstep
from usbench.contracts import Levels, Loss
from usbench.hooks import registry
from usbench.train.ranks import Ranks

pytestmark = pytest.mark.usefixtures("one_thread")


class Encoder(nn.Module):
    """Two maps, through a batch norm and a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3))

    def forward(self, images: Tensor) -> list[Tensor]:
        deep = self.layers(images)
        return [deep[:, :, ::2, ::2] * 2, deep]

    def tokens(self, images: Tensor, *, mask: Tensor, mask_token: Tensor) -> Tensor:
        """Masked pixels give way to one learned value."""
        return self.layers(torch.where(mask, mask_token, images)).flatten(2)


class Whole(nn.Module):
    """A network of nothing but an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()


class OfEncoder(Loss):
    """As much of a loss as ranks ask for: an encoder, and a head outside of it."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        torch.manual_seed(0)
        self.network = Whole()
        self.token = nn.Parameter(torch.tensor(0.3))
        self.head = nn.BatchNorm1d(2)


def loss_of(count: int) -> tuple[OfEncoder, Tensor]:
    return OfEncoder().train(), torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def gradients(loss: OfEncoder, images: Tensor) -> dict[str, Tensor]:
    """Of something that reads a map, a head on it, and tokens with a shared mask token."""
    maps = loss.network.encoder(images)
    z = loss.head(maps[1].mean((2, 3)))
    mask = images > 1
    tokens = loss.network.encoder.tokens(images * loss.token, mask=mask, mask_token=loss.token.view(1, 1, 1, 1))
    value = (z @ z.T).softmax(1).diagonal().log().sum() + tokens.square().mean()
    value.backward()
    loss.after_backward(None)
    buffers = {name: buffer.clone() for name, buffer in loss.named_buffers()}
    return {"value": value.detach(), **buffers, **{name: p.grad for name, p in loss.named_parameters()}}


@pytest.mark.parametrize(("ranks", "count"), [(2, 6), (2, 5), (3, 7)])
def test_values_gradients_and_running_statistics_are_those_of_one_process(ranks: int, count: int) -> None:
    expected = gradients(*loss_of(count))

    def do(group: Ranks) -> dict[str, Tensor]:
        loss, images = loss_of(count)
        with group.sharing(loss):
            return gradients(loss, images)

    for found in Lockstep(ranks).run(do):
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.allclose(found[name], tensor, atol=1e-5, rtol=1e-4), name


def test_each_rank_runs_its_rows_alone_and_a_map_that_nobody_reads_is_not_gathered() -> None:
    def do(group: Ranks) -> tuple[list[int], int, type, int]:
        loss, images = loss_of(6)
        seen: list[int] = []
        loss.network.encoder.layers.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
        asked: list[int] = []
        gather = group.gather
        group.gather = lambda mine: asked.append(mine.ndim) or gather(mine)  # type: ignore[method-assign,func-returns-value]
        with group.sharing(loss):
            maps = loss.network.encoder(images)
            assert len(maps[-1]) == 6
        return seen, asked.count(4), type(maps), len(loss.network.encoder(images)[0])

    for rows, gathered, kind, afterwards in Lockstep(2).run(do):
        assert rows[0] == 3 and gathered == 1 and kind is Levels
        assert afterwards == 6


def test_a_copy_of_a_network_made_meanwhile_runs_its_own_weights() -> None:
    def do(group: Ranks) -> bool:
        loss, images = loss_of(6)
        with group.sharing(loss):
            other = copy.deepcopy(loss.network.encoder)
            with torch.no_grad():
                for p in other.parameters():
                    p.zero_()
            return bool((other(images)[-1] == 0).all()) and bool((loss.network.encoder(images)[-1] != 0).any())

    assert Lockstep(2).run(do) == [True, True]


def test_dropout_draws_otherwise_on_each_rank_and_at_a_step_always_the_same() -> None:
    def do(group: Ranks) -> list[Tensor]:
        loss, _ = loss_of(6)
        loss.network.encoder.layers = nn.Sequential(nn.Dropout(0.5))
        found = []
        with group.sharing(loss):
            for seed in (1, 2, 1):
                torch.manual_seed(seed)
                found.append(loss.network.encoder(torch.ones(6, 1, 8, 8))[-1])
                found.append(torch.rand(3))
        return found

    one, other = Lockstep(2).run(do)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(one[0], one[4]) and not torch.equal(one[0], one[2])
    assert not torch.equal(one[0][:3], one[0][3:])
    torch.manual_seed(1)
    assert torch.equal(one[1], torch.rand(3)), "outside of the networks nothing was drawn"


def test_ranks_that_part_are_told_and_do_not_hang() -> None:
    def do(group: Ranks) -> None:
        if group.rank == 0:
            group.gather(torch.zeros(1))

    with pytest.raises(Apart, match="rank 1 ended before rank 0"):
        Lockstep(2).run(do)


# Losses of every kind on two processes that talk over gloo; all others are checked in one process, on two threads.

REAL = ("simclr", "moco", "byol", "dino", "barlow-twins", "swav", "rcl", "usfm")
PAIR = """
import hashlib, json, sys
from pathlib import Path
import torch
from usbench.conformance import toy
from usbench.hooks import registry
from usbench.train import checkpoint
from usbench.train.processes import Processes
torch.set_num_threads(1)
rank, meeting, out, names = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
found = {}
with Processes(rank, 2, meeting, "cpu") as ranks:
    for name in names:
        loss = toy.build(registry().get("loss", name))
        optimizer = toy.optimizer_of(loss)
        with ranks.sharing(loss):
            values = toy.train(loss, optimizer, range(3))
        tensors = checkpoint.tensors_of(loss)
        kept = {k: v for k, v in tensors.items() if not k.endswith("bank_ptr")}
        found[name] = values, {k: hashlib.sha256(v.detach().numpy().tobytes()).hexdigest() for k, v in kept.items()}
    rough = torch.full((2,), float(rank), dtype=torch.bfloat16)
    found["bf16"] = [each.tolist() for each in ranks.gather(rough)]
out.write_text(json.dumps(found))
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("pair")
    for rank in (0, 1):
        (folder / f"{rank}.py").write_text(PAIR)
    words = [[sys.executable, folder / f"{r}.py", r, folder / "meeting", folder / f"{r}.json", *REAL] for r in (0, 1)]
    processes = [subprocess.Popen([str(word) for word in line], stderr=subprocess.PIPE, text=True) for line in words]
    for process in processes:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", REAL)
def test_two_processes_come_to_the_loss_of_one_and_to_equal_weights_and_queues(
    name: str, pair: list[dict[str, Any]]
) -> None:
    (values, tensors), (other_values, other_tensors) = (found[name] for found in pair)
    assert values == other_values and tensors == other_tensors
    loss = toy.build(registry().get("loss", name))
    alone = toy.train(loss, toy.optimizer_of(loss), range(3))
    assert values == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_bf16_is_exchanged_too(pair: list[dict[str, Any]]) -> None:
    assert pair[0]["bf16"] == pair[1]["bf16"] == [[0.0, 0.0], [1.0, 1.0]]
