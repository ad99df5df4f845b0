"""What a plugin built, held to its contract before anything is computed with it: a wrong word would be silent later."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from usbench.contracts import Clip, Image, Loss, Protocol
from usbench.errors import Refused


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _pair(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(fits, value))


def _momentum(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _texts(value: Any) -> bool:
    return isinstance(value, tuple | list) and bool(value) and all(isinstance(each, str) and each for each in value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


FLAG = (_flag, "True or False")
OF_LOSS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "views": (
        lambda value: _pair(value, lambda count: _whole(count, 0)) and sum(value) > 0,
        "how many global and local views, as in (2, 0)",
    ),
    "item": (lambda value: isinstance(value, Image | Clip), 'Image() or a Clip, as in Clip(roles=("a", "b"))'),
    "teacher": (
        lambda value: value is None or _pair(value, _momentum),
        "None, or the momentum at the first and at the last step, from 0 to 1, as in (0.99, 1.0)",
    ),
    "transfer": (lambda value: value in ("encoder", "network"), "encoder or network"),
    "pretrain_labels": (lambda value: value in ("none", "all"), "none or all"),
    "min_batch": (lambda value: _whole(value, 1), "a whole number from 1"),
    "distributed": FLAG, "joint": FLAG, "wants_sector": FLAG,
}  # fmt: skip
OF_PROTOCOL: dict[str, tuple[Callable[[Any], bool], str]] = {
    "masks": FLAG, "keeps_choices": FLAG,
    "metrics": (_texts, 'names, as in ("dice", "iou")'),
}  # fmt: skip


def check_loss(loss: Loss, name: str) -> None:
    """Refuse a loss that says something of itself that the contract does not know."""
    _check(loss, f"loss '{name}'", OF_LOSS)


def check_protocol(protocol: Any, name: str) -> Protocol:
    """Refuse what is no protocol, or one that says something of itself that the contract does not know."""
    if not isinstance(protocol, Protocol):
        raise Refused(f"protocol '{name}' built a {type(protocol).__name__}: it must build a usbench.Protocol.")
    _check(protocol, f"protocol '{name}'", OF_PROTOCOL)
    if protocol.primary not in protocol.metrics:
        known = " or ".join(protocol.metrics)
        raise Refused(f"protocol '{name}' has primary {protocol.primary!r}: it is one of its metrics, {known}.")
    return protocol


def _check(made: object, called: str, known: dict[str, tuple[Callable[[Any], bool], str]]) -> None:
    for name, (fits, what) in known.items():
        if not fits(value := getattr(made, name)):
            raise Refused(f"{called} has {name} {value!r}: it is {what}.")


def check_optimised(modules: Iterable[nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Refuse parameters that the optimiser does not know: they would never be trained."""
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for module in modules:
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and id(parameter) not in known:
                raise Refused(
                    f"'{name}' of {type(module).__name__} was made when the training had begun, so that no optimiser "
                    "knows it and it would never be trained: make it in __init__."
                )
