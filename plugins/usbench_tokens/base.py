"""What the token methods share: a network that has tokens, the sector on its grid, a small transformer on top."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightly.models.utils import get_2d_sine_cosine_positional_embedding, patchify
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from usbench import Batch, Loss, Network
from usbench_tokens.masks import inside


def at_least(low: float, **options: float) -> None:
    """Refuse an option that is below its least value."""
    for name, value in options.items():
        if not value >= low:
            raise ValueError(f"{name} is {value}: at least {low}")


def ratio(**options: float) -> None:
    """Refuse an option that is no share between 0 and 1."""
    for name, value in options.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} is {value}: a share, above 0 and below 1")


class TokenLoss(Loss):
    """A method on the tokens of a backbone that gives them."""

    views = (1, 0)
    wants_sector = True

    def __init__(self, network: Network, head: Callable[[int], nn.Module] | None = None) -> None:
        if not hasattr(network.encoder, "tokens"):
            raise ValueError("the backbone's encoder gives no tokens; vit-tiny and vit-small do")
        super().__init__(network, head=head)
        self.patch: int = network.encoder.patch

    def inside(self, batch: Batch, view: int) -> Tensor:
        """(N, L) bool: which tokens of a view lie in the sector."""
        return inside(batch.sectors[view], self.patch)

    def side(self, view: Tensor) -> int:
        """Tokens along a side of a view."""
        return view.shape[-1] // self.patch

    def patches(self, view: Tensor) -> Tensor:
        """(N, L, patch²) the pixels of each token."""
        return patchify(view, self.patch)


class TokenBlocks(nn.Module):
    """A small transformer on tokens of known places: MAE's decoder and I-JEPA's predictor."""

    def __init__(self, dim: int, width: int, depth: int, out: int) -> None:
        super().__init__()
        if width % 32:
            raise ValueError(f"width is {width}: a multiple of 32")
        self.width = width
        self.entry = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.blocks = nn.Sequential(*(Block(width, width // 32, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out)
        self._places: dict[tuple[int, torch.device], Tensor] = {}

    def places(self, side: int, device: torch.device) -> Tensor:
        """(1, side², width) fixed sines and cosines of the places."""
        key = (side, device)
        if key not in self._places:
            embedding = get_2d_sine_cosine_positional_embedding(self.width, side, cls_token=False)
            self._places[key] = torch.from_numpy(embedding).float()[None].to(device)
        return self._places[key]

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens that have entered and know their places → what is predicted of each."""
        return self.out(self.norm(self.blocks(tokens)))
