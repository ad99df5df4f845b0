"""Batch norms over the rows of all ranks, on any device: torch's own SyncBatchNorm wants CUDA."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from usbench.train.ranks import Ranks


class PooledNorm(TorchFunctionMode):
    """Meanwhile every batch norm that takes its statistics from the batch takes them from that of all ranks.

    The function is replaced and no module, so that layers that do more than normalise keep doing it.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        """Every function of torch comes by here."""
        if function is functional.batch_norm:
            return self.batch_norm(*args, **options or {})
        return function(*args, **options or {})

    def batch_norm(
        self, x: Tensor, mean: Tensor | None, variance: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        """As torch's; `mean` and `variance` are the running ones."""
        if not training:
            return functional.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
        over = [0, *range(2, x.ndim)]
        own_variance, own_mean = torch.var_mean(x.float(), over, correction=0)
        size = torch.full_like(own_mean, x.numel() / x.shape[1])
        sizes, means, variances = _Pooled.apply(torch.stack([size, own_mean, own_variance]), self.ranks).unbind(1)
        total = sizes.sum(0)
        share = sizes / total
        middle = (share * means).sum(0)
        spread = (share * (variances + (means - middle).square())).sum(0)
        if mean is not None and variance is not None:
            with torch.no_grad():
                mean.lerp_(middle.to(mean.dtype), momentum)
                variance.lerp_((spread * total / (total - 1)).to(variance.dtype), momentum)
        scale = (spread + eps).rsqrt()
        scale = scale if weight is None else scale * weight
        shape = [1, -1] + [1] * (x.ndim - 2)
        made = (x.float() - middle.view(shape)) * scale.view(shape)
        return (made if bias is None else made + bias.view(shape)).to(x.dtype)


class _Pooled(torch.autograd.Function):
    """A tensor of each rank, stacked: a rank's own part in every rank's value comes back to it."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return torch.stack(ranks.gather(mine))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.total(gradient.contiguous())[ctx.ranks.rank], None
