"""What a batch of pretraining holds: items, their views and what is known about them; and the steps that make views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn


@dataclass(frozen=True)
class Image:
    """An item of the batch is one image."""

    roles: ClassVar[tuple[str, ...]] = ("image",)


@dataclass(frozen=True)
class Video:
    """One video of the pretraining data as a sampling rule sees it: its frames in order."""

    index: int  # which item it is: `Batch.index` of its items
    frame: np.ndarray  # (n,) their numbers in the video; those of the pack, which may hold every third one, say
    time: np.ndarray  # (n,) seconds, NaN unknown

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True)
class Clip:
    """An item of the batch is one video: a frame for each role. It costs as many images as there are roles.

    As it is, it draws distinct frames, in order of time or, where not `ordered`, at random; a video with fewer frames
    than roles repeats some, in order of time. A method with a rule of its own subclasses it and overrides `frames`.
    """

    roles: tuple[str, ...]
    ordered: bool = True
    least: int = 1  # a video with fewer frames stays out
    stills: bool = False  # an image without a video is a video of one frame; else it stays out

    def __post_init__(self) -> None:
        if isinstance(self.roles, str):
            raise ValueError(f"the roles of a Clip are {self.roles!r}, a text: write ('{self.roles}',) for one role")

    def frames(self, video: Video, progress: float, rng: np.random.Generator) -> np.ndarray:
        """(roles,) places in the video, from 0 to n − 1: a frame for each role, drawn from `rng` and nothing else."""
        n, k = len(video), len(self.roles)
        drawn = rng.permutation(np.resize(np.arange(n), max(k, n)))[:k]
        return np.sort(drawn) if self.ordered or n < k else drawn


@dataclass
class Batch:
    """What a loss is given at one step. Views are role-major: all views of the first role come first."""

    views: list[Tensor]  # each (N, 1, height, width), normalised
    geometry: list[Tensor]  # each (N, 2, 3): view coordinates → image coordinates, both in [-1, 1]
    sectors: list[Tensor]  # each (N, 1, height, width) in {0, 1}; empty unless Loss.wants_sector
    index: Tensor  # (N,) which item of the pretraining list
    label: Tensor  # (N,) −1 unknown
    video: Tensor  # (N,) −1 unknown
    frame: Tensor  # (N, roles) its number in the video, −1 for an image without one
    time: Tensor  # (N, roles) seconds, or the frame's number over the frame rate; NaN unknown
    tag: Tensor  # (N,) −1 unknown
    step: int
    total: int
    rng: np.random.Generator  # for draws of the loss itself; the same on every rank

    @property
    def progress(self) -> float:
        """From 0 at the first step to 1 at the last: schedules hang on this, never on epochs."""
        return self.step / max(1, self.total - 1)


class Augmentation(nn.Module):
    """One batched step of an augmentation. `draw` runs on the host for the whole global batch; `forward` on the device.

    A spatial step puts an "affine" of shape (n, 3, 3), view → image coordinates in [-1, 1], into its draws and writes
    no `forward`: the harness composes all of them into one affine and resamples once. Other steps write `forward`.
    """

    wants_sector = False
    views = 1  # row i of a draw is image i % (rows / views); set by the harness before each draw

    def draw(self, rng: np.random.Generator, boxes: np.ndarray, *, local: bool) -> dict[str, np.ndarray]:
        """One row of parameters a view. `boxes` (n, 4): left, top, right, bottom of the sector, in [-1, 1]."""
        return {}

    def forward(self, images: Tensor, drawn: Mapping[str, Tensor], sector: Tensor | None) -> Tensor:
        """Images (n, 1, H, W) in [0, 1] → the same, changed. `sector` is their insonified region."""
        return images
