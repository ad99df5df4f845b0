"""A loss on two ranks beside one process, step by step from the same state: rounding does not add up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from usbench.conformance import toy
from usbench.conformance.lockstep import Apart, Lockstep
from usbench.conformance.promise import Broken, listed, require
from usbench.contracts import Loss
from usbench.hooks import Entry
from usbench.train import checkpoint
from usbench.train.ranks import Ranks

RANKS = 2
LEAST, GRADIENT = 1e-4, 0.05  # what rounding may change: a loss, and all of its gradients together


@dataclass
class Step:
    """What a step began with and came to."""

    before: dict[str, Tensor]
    value: float
    gradients: dict[str, Tensor]


def taken(loss: Loss, optimizer: torch.optim.Optimizer, step: int) -> Step:
    """Take a step of the toy's training."""
    before = _copied(checkpoint.tensors_of(loss))
    (value,) = toy.train(loss, optimizer, range(step, step + 1))
    return Step(before, value, _copied({n: p.grad for n, p in loss.named_parameters() if p.grad is not None}))


def on_ranks(entry: Entry) -> list[tuple[list[Step], dict[str, Tensor]]]:
    """The steps of each rank, and what it ends with."""

    def do(ranks: Ranks) -> tuple[list[Step], dict[str, Tensor]]:
        loss = toy.build(entry)
        optimizer = toy.optimizer_of(loss)
        with ranks.sharing(loss):
            return [taken(loss, optimizer, step) for step in range(toy.STEPS)], _copied(checkpoint.tensors_of(loss))

    try:
        return Lockstep(RANKS).run(do)
    except Apart as error:
        raise Broken(f"the ranks lose each other: {error}") from error


def compare(entry: Entry) -> None:
    """Raise Broken where two ranks come to something else than one process, or than each other."""
    (steps, end), (_, other_end) = on_ranks(entry)
    # What no step changes is no memory: lightly leaves the pointer of an empty bank as the memory happened to be.
    moved = [n for n in end if n not in steps[0].before or not _equal(end[n], steps[0].before[n])]
    unequal = [name for name in moved if name not in other_end or not _equal(end[name], other_end[name])]
    require(not unequal, f"{listed(unequal)} is not the same on both ranks after {toy.STEPS} steps")
    alone = toy.build(entry)
    for place, step in enumerate(steps):
        checkpoint.restore(alone, step.before)
        expected = taken(alone, toy.optimizer_of(alone), place)
        near = abs(step.value - expected.value) <= LEAST * max(1.0, abs(expected.value))
        require(near, f"at step {place} the loss is {expected.value:.6g} on one device and {step.value:.6g} on two")
        only = step.gradients.keys() ^ expected.gradients.keys()
        require(not only, f"at step {place} {listed(only)} has a gradient on one device or on two, not on both")
        apart = _norm({n: g - expected.gradients[n] for n, g in step.gradients.items()})
        require(
            apart <= GRADIENT * _norm(expected.gradients),
            f"at step {place} the gradient on two devices is {apart / _norm(expected.gradients):.1%} off that on one",
        )


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _norm(tensors: dict[str, Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in tensors.values()) ** 0.5


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
