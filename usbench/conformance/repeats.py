"""What of a training repeats: by its seed, from a checkpoint, on two devices. A check's docstring is the promise."""

from __future__ import annotations

import torch
from torch import Tensor

from usbench.conformance import several, toy
from usbench.conformance.loss_bench import Bench
from usbench.conformance.promise import listed, require
from usbench.train import checkpoint


def draws_from_the_harness(bench: Bench) -> None:
    """Equal seeds give equal trainings, other seeds others: no generator of its own."""
    require(not bench.private, f"{listed(bench.private)} is a generator of its own: use batch.rng or torch's")
    again = toy.history(toy.build(bench.entry))
    for step, (one, other) in enumerate(zip(bench.history.values, again.values, strict=True)):
        require(one == other, f"at step {step} the loss is {one} and, trained again with the same seed, {other}")
    # Parameters only: lightly leaves the pointer of an empty bank as the memory happened to be.
    unequal = [name for name, _ in bench.loss.named_parameters() if _differs(bench.history.final, again.final, name)]
    require(not unequal, f"{listed(unequal)} differs when trained again with the same seed")
    require(toy.value(toy.build(bench.entry, seed=1)) != bench.value(), "another seed gives the same loss")


def goes_on_from_a_checkpoint(bench: Bench) -> str:
    """Saved, loaded and continued, it is as if it had never stopped: all it remembers is in the checkpoint."""
    if bench.private:
        return "not judged: it has a generator of its own"
    lost = bench.history.lost
    require(not lost, f"{lost} and is in no checkpoint: make it a buffer, or use batch.step")
    loss = toy.build(bench.entry, seed=1)
    optimizer = toy.optimizer_of(loss)
    checkpoint.restore(loss, bench.history.saved[0])
    checkpoint.restore_optimizer(optimizer, bench.history.saved[1])
    half = toy.STEPS // 2
    for step in range(half, toy.STEPS):
        (found,) = toy.train(loss, optimizer, range(step, step + 1))
        expected = bench.history.values[step]
        require(found == expected, f"at step {step} the loss is {expected}, and {found} when it stopped at step {half}")
    then, now = bench.history.final, toy.state_of(loss, optimizer)
    unequal = [name for name in then.keys() | now.keys() if _differs(then, now, name)]
    require(not unequal, f"{listed(unequal)} is not what it would have been")
    require(bench.repeats, "one batch gives two values though all tensors were put back: it remembers something else")
    return ""


def _differs(one: dict[str, Tensor], other: dict[str, Tensor], name: str) -> bool:
    return name not in one or name not in other or not torch.equal(one[name], other[name])


def is_the_same_on_two_devices(bench: Bench) -> str:
    """Where it is `distributed`, two devices come to the loss and gradient of one, and remember the same."""
    if not bench.loss.distributed:
        return "it is refused on several devices"
    several.compare(bench.entry)
    return ""
