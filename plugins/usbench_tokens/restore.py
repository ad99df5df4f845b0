"""Masked tokens restored: as pixels (MAE, SimMIM) or as a teacher's features (I-JEPA)."""

from __future__ import annotations

import torch
from lightly.models.utils import get_at_index, normalize_mean_var
from torch import Tensor, nn
from torch.nn import functional

from usbench import Batch, Network
from usbench_tokens.base import TokenBlocks, TokenLoss, at_least, ratio
from usbench_tokens.masks import at, keep, multiblock, random_scores, share


def mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen values; 0 where none is chosen."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)


class MAE(TokenLoss):
    """The encoder sees a quarter of the patches; a small decoder restores the others.

    The target is each patch's pixels at mean 0 and variance 1; the error is squared, and counts on masked patches
    inside the sector only. The same share is masked inside and outside the sector.

    Args:
        mask_ratio: share of the patches that the encoder does not see.
        width: channels of the decoder, a multiple of 32.
        depth: blocks of the decoder.
    """

    def __init__(self, network: Network, mask_ratio: float = 0.75, width: int = 128, depth: int = 2) -> None:
        ratio(mask_ratio=mask_ratio)
        at_least(1, width=width, depth=depth)
        super().__init__(network)
        self.mask_ratio = mask_ratio
        self.decoder = TokenBlocks(network.dim, width, depth, self.patch**2)

    def draw(self, batch: Batch) -> Tensor:
        """(N, K) the places that are seen."""
        view = batch.views[0]
        scores = random_scores(batch.rng, len(view), self.side(view), view.device)
        return keep(scores, self.inside(batch, 0), 1 - self.mask_ratio)

    def restored(self, view: Tensor, seen: Tensor) -> Tensor:
        """(N, L, patch²) every patch, from those that are seen."""
        tokens = self.decoder.entry(self.network.encoder.tokens(view, keep=seen))
        places = self.decoder.places(self.side(view), view.device)
        blank = self.decoder.mask_token.expand(*tokens.shape[:1], places.shape[1], -1).to(tokens.dtype)
        patches = blank.scatter(1, seen[..., None].expand(-1, -1, self.decoder.width), tokens[:, 1:]) + places
        return self.decoder(torch.cat([tokens[:, :1], patches], 1))[:, 1:].float()

    def forward(self, batch: Batch) -> Tensor:
        """Mean squared error on the normalised pixels of masked patches."""
        view, seen = batch.views[0], self.draw(batch)
        with self.autocast():
            restored = self.restored(view, seen)
        target = normalize_mean_var(self.patches(view))
        masked = self.inside(batch, 0) & ~at(seen, target.shape[1])
        return mean_over((restored - target).square().mean(2), masked)


class SimMIM(TokenLoss):
    """Masked patches give way to a learned token; one linear layer restores their pixels.

    The encoder sees all places. The error is absolute, on the network's input values, and counts on masked patches
    only; all of them lie in the sector.

    Args:
        mask_ratio: share of the sector that is masked.
        block: side in tokens of the squares that are masked together.
    """

    def __init__(self, network: Network, mask_ratio: float = 0.6, block: int = 2) -> None:
        ratio(mask_ratio=mask_ratio)
        at_least(1, block=block)
        super().__init__(network)
        self.mask_ratio, self.block = mask_ratio, block
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, network.dim))
        self.out = nn.Linear(network.dim, self.patch**2)

    def draw(self, batch: Batch) -> Tensor:
        """(N, L) bool: the masked patches."""
        view = batch.views[0]
        scores = random_scores(batch.rng, len(view), self.side(view), view.device, self.block)
        return share(scores, self.inside(batch, 0), self.mask_ratio)

    def forward(self, batch: Batch) -> Tensor:
        """Mean absolute error on masked pixels."""
        view, masked = batch.views[0], self.draw(batch)
        with self.autocast():
            tokens = self.network.encoder.tokens(view, mask=masked, mask_token=self.mask_token)
            restored = self.out(tokens[:, 1:]).float()
        return mean_over((restored - self.patches(view)).abs().mean(2), masked)


class IJEPA(TokenLoss):
    """From the tokens of a context block, a narrow predictor guesses a teacher's features of other blocks.

    The teacher sees the whole view; its tokens are normalised to mean 0 and variance 1. The blocks lie anywhere, and
    their tokens inside the sector count, by a smooth absolute error.

    Args:
        targets: blocks to predict in each image.
        width: channels of the predictor, a multiple of 32.
        depth: blocks of the predictor.
    """

    teacher = (0.99, 1.0)

    def __init__(self, network: Network, targets: int = 4, width: int = 96, depth: int = 3) -> None:
        at_least(1, targets=targets, width=width, depth=depth)
        super().__init__(network)
        self.targets = targets
        self.guess = TokenBlocks(network.dim, width, depth, network.dim)

    def guessed(self, view: Tensor, context: Tensor, blocks: Tensor) -> Tensor:
        """(N, targets, T, dim) what the predictor makes of each block, given the context alone."""
        n, targets, size = blocks.shape
        places = self.guess.places(self.side(view), view.device).expand(n, -1, -1)
        tokens = self.guess.entry(self.network.encoder.tokens(view, keep=context)[:, 1:])
        known = (tokens + get_at_index(places, context)).repeat_interleave(targets, 0)
        asked = get_at_index(places, blocks.flatten(1)).view(n * targets, size, -1) + self.guess.mask_token
        return self.guess(torch.cat([known, asked.to(known.dtype)], 1))[:, -size:].view(n, targets, size, -1)

    def forward(self, batch: Batch) -> Tensor:
        """Smooth L1 between guess and teacher."""
        view = batch.views[0]
        drawn = multiblock(batch.rng, len(view), self.side(view), self.targets)
        context, blocks = (torch.from_numpy(places).to(view.device, non_blocking=True) for places in drawn)
        with self.autocast():
            guess = self.guessed(view, context, blocks).float()
            with torch.no_grad():
                tokens = self.teacher_encoder.tokens(view)[:, 1:].float()
        truth = functional.layer_norm(get_at_index(tokens, blocks.flatten(1)), tokens.shape[-1:]).view_as(guess)
        counts = self.inside(batch, 0).gather(1, blocks.flatten(1)).view(blocks.shape)
        return mean_over(functional.smooth_l1_loss(guess, truth, reduction="none").mean(3), counts)
