"""What the checks of one loss share, and the yardstick of its cost."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from usbench.conformance import promise, toy
from usbench.conformance.promise import generators_of
from usbench.contracts import Batch, Loss, Out
from usbench.hooks import Entry


class Bench(promise.Bench):
    """A loss as it was built, and a second one that was trained for a few steps."""

    @functools.cached_property
    def loss(self) -> Loss:
        """The loss as it was built: a check puts back what it changes."""
        return toy.build(self.entry)

    @functools.cached_property
    def history(self) -> toy.History:
        """The training of a second one."""
        return toy.history(toy.build(self.entry))

    @functools.cached_property
    def private(self) -> list[str]:
        """Generators that hang on the loss."""
        return list(generators_of([self.loss]))

    @functools.cached_property
    def repeats(self) -> bool:
        """Whether the same batch, seeding and memory give the same value."""
        return self.value() == self.value()

    def value(self, change: toy.Change = lambda batch: batch, **of: Any) -> float:
        """The loss of a batch, changed or as it is."""
        return toy.value(self.loss, change, **of)

    @contextlib.contextmanager
    def still_norms(self) -> Iterator[None]:
        """Batch norms keep to the statistics of one batch, through which each view would show in every other."""
        norms = [module for module in self.loss.modules() if isinstance(module, _BatchNorm)]
        before, momenta = toy.Snapshot(self.loss), [norm.momentum for norm in norms]
        try:
            for norm in norms:
                norm.momentum = 1.0
            self.loss(toy.batch_of(self.loss))
            for norm in norms:
                norm.eval()
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.train().momentum = momentum
            before.restore()

    def trial(self, run: Callable[[torch.optim.Optimizer], Any]) -> Any:
        """Train the built loss, and put everything back."""
        before = toy.Snapshot(self.loss)
        try:
            return run(toy.optimizer_of(self.loss))
        finally:
            before.restore()


class PlainContrast(Loss):
    """The yardstick of costs: two views, cosine similarities, cross-entropy; no head."""

    def objective(self, out: Out, batch: Batch) -> Tensor:
        """The other view among all of the batch."""
        u, v = (functional.normalize(feature) for feature in out.features)
        return functional.cross_entropy(u @ v.T / 0.1, torch.arange(len(u)))


@functools.cache
def plain_contrast(needs: tuple[str, ...]) -> toy.History:
    """A short training of the yardstick, on a backbone that gives what is needed."""
    return toy.history(toy.build(Entry("loss", "plain", PlainContrast, "", "", "", __file__, needs)))
