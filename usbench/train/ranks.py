"""One training on several ranks: the networks see a share of the rows each, and everything else the whole batch.

What a loss is given, draws and remembers is that of the whole batch and the same on every rank, so a loss need not
know that there are several. Inside the networks each rank has its rows; batch norms pool their statistics, and what
comes out is gathered, a map when somebody reads it.

Outside of the networks a gradient is that of the whole batch, on every rank. Inside, each rank has the part that goes
through its rows, times the number of ranks: averaged over the ranks, all gradients are those of one process.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from usbench.contracts import Batch, Levels, Loss
from usbench.draws import seed_of
from usbench.train.pooled_norm import PooledNorm

ROW_BY_ROW = ("forward", "tokens")  # methods of a network whose arguments and results have a row an image


class Ranks:
    """Who trains together. A subclass says how tensors are exchanged."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count
        self.inside = False  # a network, on this rank's rows
        self.calls = (0, 0)  # the seed of the step, and how many networks ran since it was set

    def gather(self, mine: Tensor) -> list[Tensor]:
        """The tensor of each rank; all have one shape."""
        raise NotImplementedError

    def total(self, mine: Tensor) -> Tensor:
        """The sum over the ranks, the same bytes on each."""
        raise NotImplementedError

    def rows(self, count: int, rank: int) -> slice:
        """Which of so many rows are a rank's: consecutive ones, as even as can be."""
        few, more = divmod(count, self.count)
        start = rank * few + min(rank, more)
        return slice(start, start + few + (rank < more))

    @torch.no_grad()
    def whole(self, mine: Tensor, count: int) -> Tensor:
        """All rows, of which each rank has its own."""
        most = -(-count // self.count)
        padded = torch.cat([mine, mine.new_zeros(most - len(mine), *mine.shape[1:])]) if len(mine) < most else mine
        sizes = (self.rows(count, rank) for rank in range(self.count))
        parts = self.gather(padded.contiguous())
        return torch.cat([part[: rows.stop - rows.start] for part, rows in zip(parts, sizes, strict=True)])

    @torch.no_grad()
    def average(self, module: nn.Module) -> None:
        """Average the gradients that there are over the ranks."""
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        if gradients:
            flat = self.total(torch.cat([g.reshape(-1) for g in gradients])) / self.count
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view(gradient.shape))

    @contextlib.contextmanager
    def sharing(self, loss: Loss) -> Iterator[None]:
        """Meanwhile the networks of the loss are run by all ranks, and its gradients averaged after backward."""
        networks = [loss.network, loss.network.encoder]
        if loss.teacher is not None:
            networks.append(loss.teacher_encoder)
        kinds = [(module, type(module)) for module in (loss, *networks)]
        try:
            # A class of its own and not an attribute, which a copy of the network would share with the original.
            for network in networks:
                methods = {name: self._shared(getattr(network, name)) for name in ROW_BY_ROW if hasattr(network, name)}
                become(network, methods)
            become(loss, {"after_backward": self._averaged(type(loss).after_backward)})
            yield
        finally:
            for module, kind in kinds:
                module.__class__ = kind

    def _averaged(self, after_backward: Callable[[Any, Batch], None]) -> Callable[[Any, Batch], None]:
        @functools.wraps(after_backward)
        def averaged(loss: Loss, batch: Batch) -> None:
            self.average(loss)
            after_backward(loss, batch)

        return averaged

    def _shared(self, bound: Any) -> Callable[..., Any]:
        method = bound.__func__

        @functools.wraps(method)
        def shared(network: nn.Module, images: Tensor, *args: Any, **options: Any) -> Any:
            count = len(images)
            if self.inside or count < self.count:
                return method(network, images, *args, **options)

            def enter(value: Any) -> Any:
                if not isinstance(value, Tensor):
                    return value
                return _Share.apply(value, self) if value.shape[:1] == (count,) else _Common.apply(value, self)

            with self._network(images.device):
                made = method(network, enter(images), *map(enter, args), **{k: enter(v) for k, v in options.items()})
            if isinstance(made, Tensor):
                return self._leave(made, count)
            return Levels(len(made), lambda level: self._leave(made[level], count))

        return shared

    def _leave(self, mine: Tensor, count: int) -> Tensor:
        # A map may be read first where no gradient is wanted, and again where one is.
        with torch.set_grad_enabled(mine.requires_grad):
            return cast(Tensor, _Whole.apply(mine, self, count))

    @contextlib.contextmanager
    def _network(self, device: torch.device) -> Iterator[None]:
        """On this rank's rows: batch norms are pooled, and dropout draws otherwise than on the other ranks."""
        seed, calls = torch.initial_seed(), 0
        if self.calls[0] == seed:
            calls = self.calls[1] + 1
        self.inside, self.calls = True, (seed, calls)
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []), PooledNorm(self):
                torch.manual_seed(seed_of(seed, calls, self.rank))
                yield
        finally:
            self.inside = False


def become(module: nn.Module, methods: dict[str, Callable[..., Any]]) -> None:
    """Give a module other methods, by a class of its own: its tensors and what it is stay."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})


class _Share(torch.autograd.Function):
    """All rows → this rank's."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.count = ranks, len(whole)
        return whole[ranks.rows(len(whole), ranks.rank)]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.whole(gradient, ctx.count) / ctx.ranks.count, None


class _Common(torch.autograd.Function):
    """What all rows share, such as a mask token."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.total(gradient.contiguous()) / ctx.ranks.count, None


class _Whole(torch.autograd.Function):
    """This rank's rows → all of them."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, ranks: Ranks, count: int) -> Tensor:
        ctx.ranks, ctx.count = ranks, count
        return ranks.whole(mine, count)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.ranks.rows(ctx.count, ctx.ranks.rank)] * ctx.ranks.count, None, None
