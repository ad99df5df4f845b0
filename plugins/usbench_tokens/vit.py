"""Vision transformers behind the Network contract: tokens for the losses that want them, maps for everything else."""

from __future__ import annotations

import torch
from lightly.models.utils import get_2d_sine_cosine_positional_embedding, get_at_index
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from usbench import Network

NATIVE = 224  # pixels that the position embedding is made for, as in the published weights; other sizes resample it
HEAD = 64  # channels of an attention head
SKIP = 16  # channels of the decoder's stem and of its last level


class TokenEncoder(VisionTransformer):
    """timm's vision transformer for one grey channel and any image size; its tensors have timm's names."""

    def __init__(self, patch: int, dim: int, depth: int) -> None:
        super().__init__(
            NATIVE, patch, in_chans=1, num_classes=0, embed_dim=dim, depth=depth, num_heads=max(1, dim // HEAD),
            dynamic_img_size=True,
        )  # fmt: skip
        self.patch = patch
        with torch.no_grad():  # sines and cosines to begin with, since few steps would not learn where a patch lies
            start = get_2d_sine_cosine_positional_embedding(dim, NATIVE // patch, cls_token=True)
            self.pos_embed.copy_(torch.from_numpy(start)[None])

    def tokens(
        self,
        images: Tensor,
        *,
        keep: Tensor | None = None,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
    ) -> Tensor:
        """(N, 1, H, W) → (N, 1 + L, dim): the class token, then the patches row by row.

        `keep` (N, k) are the places of the patches that are run at all; where `mask` (N, L) is true, `mask_token`
        stands in the patch's place.
        """
        grid = self.patch_embed(images)
        if mask is not None:
            assert mask_token is not None
            grid = torch.where(mask.view(*grid.shape[:3], 1), mask_token.to(grid.dtype), grid)
        tokens = self._pos_embed(grid)
        if keep is not None:
            tokens = torch.cat([tokens[:, :1], get_at_index(tokens[:, 1:], keep)], 1)
        return self.norm(self.blocks(tokens))

    def forward(self, images: Tensor) -> list[Tensor]:
        """The image itself, which the decoder's stem reads, and the map of the patches."""
        height, width = (side // self.patch for side in images.shape[-2:])
        return [images, self.tokens(images)[:, 1:].transpose(1, 2).unflatten(2, (height, width))]


def block(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, group norm, GELU."""
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.GroupNorm(8, out), nn.GELU()
    )


class TokenDecoder(nn.Module):
    """Doubles the map of the patches until it is as large as the image, with a thin convolutional stem beside it."""

    def __init__(self, dim: int, patch: int, width: int) -> None:
        super().__init__()
        levels = patch.bit_length() - 1
        widths = [max(SKIP, width >> level) for level in range(levels)] + [SKIP]
        self.stem = nn.ModuleList(block(SKIP if i else 1, SKIP, stride=2 if i else 1) for i in range(levels))
        self.entry = block(dim, widths[0], kernel=1)
        self.merge = nn.ModuleList(block(widths[i] + SKIP, widths[i + 1]) for i in range(levels))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[image, map of the patches] → (N, SKIP, H, W)."""
        skips = [maps[0]]
        for stage in self.stem:
            skips.append(stage(skips[-1]))
        out = self.entry(maps[-1])
        for merge, skip in zip(self.merge, reversed(skips[1:]), strict=True):
            larger = functional.interpolate(out, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            out = merge(torch.cat([larger, skip], 1))
        return out


def vit(patch: int, dim: int, depth: int, width: int, timm_name: str = "") -> Network:
    """A vision transformer with a small dense decoder.

    Args:
        patch: side of a token in pixels: 2, 4, 8, 16 or 32. 8 is for small images; published weights have 16.
        dim: channels of a token.
        depth: transformer blocks.
        width: channels of the decoder's deepest level; they halve from there.
        timm_name: the timm model whose published weights fit at patch 16.
    """
    if patch not in (2, 4, 8, 16, 32):
        raise ValueError(f"patch is {patch}: one of 2, 4, 8, 16, 32")
    if dim < 16 or dim % (HEAD if dim > HEAD else 4):
        raise ValueError(f"dim is {dim}: a multiple of {HEAD}, or a multiple of 4 from 16 to {HEAD}")
    if depth < 1:
        raise ValueError(f"depth is {depth}: at least 1")
    if width < SKIP or width & (width - 1):
        raise ValueError(f"width is {width}: a power of two from {SKIP}")
    head = nn.Conv2d(SKIP, 1, 3, padding=1)
    return Network(
        TokenEncoder(patch, dim, depth), TokenDecoder(dim, patch, width), head,
        dim=dim, stride=patch, timm_name=timm_name,
    )  # fmt: skip
