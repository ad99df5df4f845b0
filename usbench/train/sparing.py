"""The same training in less memory.

What the blocks of a network make is not kept for the backward pass but made again there. The statistics of batch norms
are those of the whole batch, as before; running statistics move once, and dropout draws what it drew. Where that is not
enough, a fine-tune takes its gradient in parts, if a batch is to it nothing but the mean over its images.
"""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.utils.checkpoint import checkpoint

from usbench.contracts import Labelled, Protocol
from usbench.errors import NotSparing
from usbench.train.loop import Compute
from usbench.train.pooled_norm import PooledNorm
from usbench.train.ranks import Ranks, become

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
SAID_BY_ALLOCATORS = (
    "out of memory", "can't allocate memory", "not enough memory", "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
)  # fmt: skip


def ran_out(error: BaseException) -> bool:
    """Whether an error says that the memory of the device is used up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in SAID_BY_ALLOCATORS)


@dataclass(frozen=True)
class Sparing:
    """How a training gets along with less memory; none of it changes what is trained."""

    recompute: bool = False  # what blocks make is made again in the backward pass
    parts: int = 1  # that the gradient of a batch is taken in

    def __str__(self) -> str:
        parts = [f"the gradient in {self.parts} parts"] if self.parts > 1 else []
        return " and ".join([*(["activations recomputed"] if self.recompute else []), *parts])


PLAIN = Sparing()


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of a network that are worth making twice: each made of layers, and holding no row of such parts."""
    for child in module.children():
        made_of = list(child.children()), list(child.parameters())
        if not all(made_of) or isinstance(child, torch.jit.ScriptModule):
            continue
        rows = [part for part in child.modules() if isinstance(part, CONTAINERS)]
        holds = any(list(item.children()) for row in rows for item in row.children())
        if holds or isinstance(child, nn.ModuleList | nn.ModuleDict):
            yield from blocks(child)
        else:
            yield child


@contextlib.contextmanager
def recomputing(network: nn.Module, ranks: Ranks | None = None) -> Iterator[None]:
    """Meanwhile no block of a network keeps what it makes inside, but makes it again in the backward pass."""
    kinds = [(block, type(block)) for block in blocks(network)]
    try:
        for block, kind in kinds:
            become(block, {"forward": _recomputed(kind.forward, ranks)})
        yield
    finally:
        for block, kind in kinds:
            block.__class__ = kind


def _recomputed(forward: Callable[..., Any], ranks: Ranks | None) -> Callable[..., Any]:
    @functools.wraps(forward)
    def recomputed(block: nn.Module, *args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(block, *args, **options)
        together = ranks if ranks is not None and ranks.inside else None
        versions = _versions(block)

        def contexts() -> tuple[Any, Any]:
            return contextlib.nullcontext(), _again(block, versions, together)

        again = functools.partial(forward, block)
        # A list of maps may be longer by then, as that of a DenseNet.
        args = tuple(list(arg) if isinstance(arg, list) else arg for arg in args)
        return checkpoint(again, *args, use_reentrant=False, context_fn=contexts, **options)

    return recomputed


def _versions(block: nn.Module) -> list[tuple[Tensor, int]]:
    """What a block's outcome hangs on, as it is now; running statistics have no part in it in training."""
    norms = {id(b) for part in block.modules() if isinstance(part, _NormBase) for b in part.buffers(recurse=False)}
    tensors = [*block.parameters(), *(b for b in block.buffers() if id(b) not in norms)]
    return [(tensor, tensor._version) for tensor in tensors]


@contextlib.contextmanager
def _again(block: nn.Module, before: list[tuple[Tensor, int]], ranks: Ranks | None) -> Iterator[None]:
    """While a block makes again what it made: running statistics stay, and ranks pool theirs as they did."""
    now = _versions(block)
    if len(now) != len(before) or any(a is not b or i != j for (a, i), (b, j) in zip(now, before, strict=True)):
        raise NotSparing("its weights are others in the backward pass, so that nothing can be made again there")
    norms = [part for part in block.modules() if isinstance(part, _NormBase) and part.training]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    try:
        for norm in norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None
        with PooledNorm(ranks) if ranks is not None else contextlib.nullcontext():
            yield
    finally:
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


def check_parts(model: nn.Module) -> None:
    """Refuse to take a batch in parts where a layer knows the whole of it."""
    for name, part in model.named_modules():
        pools = isinstance(part, _BatchNorm) or (isinstance(part, _NormBase) and part.track_running_stats)
        if pools and part.training:
            raise NotSparing(f"'{name}' takes its statistics from the whole batch, which parts of it do not have")


def in_parts(model: nn.Module, protocol: Protocol, batch: Labelled, parts: int, compute: Compute) -> Tensor:
    """Add up the gradient of a batch over parts of it; returns the loss of the whole.

    That this is the gradient of the whole is not taken on trust: a forward that draws is refused, as it would draw
    otherwise for the whole, and so is an objective whose value is not the mean over the parts.
    """
    outputs, mean = [], torch.zeros((), device=compute.device)
    for images, mask, label in zip(
        *(each.chunk(parts) for each in (batch.images, batch.mask, batch.label)), strict=True
    ):
        before = _random(compute.device)
        with compute.autocast():
            output = model(images).float()
        if any(not torch.equal(a, b) for a, b in zip(before, _random(compute.device), strict=True)):
            raise NotSparing("the network draws at random, and would draw otherwise for parts of a batch")
        share = protocol.objective(output, Labelled(images, mask, label)) * (len(images) / len(batch.images))
        share.backward()
        outputs.append(output.detach())
        mean += share.detach()
    whole = protocol.objective(torch.cat(outputs), batch)
    if not torch.allclose(whole, mean, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise NotSparing("the protocol's objective of a batch is not the mean over its images")
    return whole


def _random(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
