"""Networks, and what they make of views."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Head = Callable[[int], nn.Module]


class Network(nn.Module):
    """A segmentation network: an encoder that gives maps at growing strides, a decoder and a head.

    A backbone plugin returns one of these (or a subclass). `stride` is what the image size must be divisible by;
    `timm_name` is the timm model whose published weights fit the encoder, for `--init imagenet`.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, head: nn.Module, *, dim: int, stride: int, timm_name: str = ""
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.dim, self.stride, self.timm_name = dim, stride, timm_name

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) → logits (N, 1, H, W)."""
        return self.head(self.decoder(self.encoder(images)))


class Levels(Sequence[Tensor]):
    """The maps of an encoder, each of which is made when it is first read: on several devices, gathered."""

    def __init__(self, count: int, make: Callable[[int], Tensor]) -> None:
        self.length, self.make = count, functools.cache(make)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, level: Any) -> Any:
        places = range(self.length)[level]
        return self.make(places) if isinstance(places, int) else [self.make(place) for place in places]

    def chunk(self, parts: int) -> list[Levels]:
        """The maps of consecutive parts of the rows."""

        def of(part: int) -> Levels:
            return Levels(self.length, lambda level: self[level].chunk(parts)[part])

        return [of(part) for part in range(parts)]


def pooled(maps: Sequence[Tensor]) -> Tensor:
    """The feature vector of an image: its deepest map, averaged."""
    return maps[-1].mean(dim=(2, 3))


@dataclass
class Out:
    """What the networks made of the views; each list has one entry a view."""

    maps: list[Sequence[Tensor]]
    teacher_maps: list[Sequence[Tensor]] = field(default_factory=list)
    z: list[Tensor] = field(default_factory=list)  # projected
    p: list[Tensor] = field(default_factory=list)  # predicted
    t: list[Tensor] = field(default_factory=list)  # projected by the teacher, without gradient

    _features: list[Tensor] = field(default_factory=list, init=False, repr=False)

    @property
    def features(self) -> list[Tensor]:
        """Pooled encoder features, float32."""
        # No cached_property, whose lock before Python 3.12 is one for all threads.
        self._features = self._features or [pooled(maps).float() for maps in self.maps]
        return self._features
