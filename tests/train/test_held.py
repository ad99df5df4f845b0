"""What a plugin says of itself is held to the contract before anything is computed, in a sentence that names it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from usbench import Clip, Loss, Protocol
from usbench.errors import Refused, RunFailed
from usbench.train.held import check_loss, check_protocol
from usbench.train.loop import Training, adamw
from usbench.train.schedule import Schedule


class Plain(Loss):
    """A loss that needs no network."""

    def __init__(self, **said: Any) -> None:
        nn.Module.__init__(self)
        for name, value in said.items():
            setattr(self, name, value)


class Scored(Protocol):
    """A protocol that says what it is told to."""

    metrics, primary = ("dice", "iou"), "iou"

    def __init__(self, **said: Any) -> None:
        vars(self).update(said)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("views", [2, (2,), (0, 0), (-1, 3), (2.0, 0), "20"]), ("item", [Clip, "image", None]),
        ("teacher", [0.99, (0.99,), (0.99, 1.5), (-0.1, 1), ("0.9", "1"), True]), ("min_batch", [0, "4", 2.5, True]),
        ("transfer", ["decoder", None]), ("pretrain_labels", ["some", True]), ("joint", ["no", 1]),
        ("distributed", ["no", None]), ("wants_sector", ["yes", 0]),
    ],
)  # fmt: skip
def test_what_a_loss_says_of_itself_is_of_the_contract(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(Refused, match=f"loss 'mine' has {name} .*: it is "):
            check_loss(Plain(**{name: value}), "mine")


def test_a_loss_within_the_contract_is_taken() -> None:
    check_loss(Plain(), "mine")
    check_loss(Plain(views=[2, 6], item=Clip(roles=("a",)), teacher=(0.99, 1), joint=False, min_batch=1), "mine")


def test_the_roles_of_a_clip_are_no_text() -> None:
    with pytest.raises(ValueError, match=r"write \('frame',\) for one role"):
        Clip(roles="frame")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"primary": "dice2"}, "has primary 'dice2': it is one of its metrics, dice or iou"),
        ({"primary": ""}, "has primary ''"), ({"metrics": "dice"}, "has metrics 'dice'"), ({"metrics": ()}, "metrics"),
        ({"masks": "no"}, "has masks 'no': it is True or False"),
    ],
)  # fmt: skip
def test_what_a_protocol_says_of_itself_is_of_the_contract(said: dict[str, Any], words: str) -> None:
    assert check_protocol(Scored(), "mine").primary == "iou"
    with pytest.raises(Refused, match=words):
        check_protocol(Scored(**said), "mine")
    with pytest.raises(Refused, match="protocol 'mine' built a str"):
        check_protocol("no protocol", "mine")


def trained(module: nn.Module, do: Any, folder: Path) -> None:
    schedule = Schedule(steps=2, batch=2, lr=1e-3, weight_decay=0, warmup=0)
    optimizer = adamw(schedule, [(module, 1.0)])
    watcher = SimpleNamespace(stopping=False, step=lambda *_: None)
    Training("a training", folder, schedule, {"loss": module}, optimizer).run(lambda step: do(module), watcher)


def test_what_is_made_when_the_training_has_begun_is_refused(tmp_path: Path) -> None:
    def late(module: nn.Module) -> dict[str, Tensor]:
        module.scale = nn.Parameter(torch.ones(()))
        return {"loss": module(torch.ones(1, 2)).sum()}

    with pytest.raises(Refused, match=r"'scale' of Linear was made when the training had begun.*make it in __init__"):
        trained(nn.Linear(2, 1), late, tmp_path)


@pytest.mark.parametrize("given", [None, torch.ones(()), {"loss": 0.5}, {"loss": torch.ones(2)}])
def test_a_step_gives_named_scalars(given: Any, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="a step of a training gave no named scalars"):
        trained(nn.Linear(2, 1), lambda module: given, tmp_path)
