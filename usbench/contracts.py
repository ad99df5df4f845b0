"""The contracts between the harness and the plugins: loss, augmentation, backbone, protocol. No training code."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

Head = Callable[[int], nn.Module]


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


class Loss(nn.Module):
    """A pretraining method. Most plugins write `objective` and nothing else.

    The loss owns its heads and whatever is learnable in its objective; the harness owns the optimiser, the schedule,
    the precision and the teacher's momentum.
    """

    views: tuple[int, int] = (2, 0)  # global and local views
    item: Image | Clip = Image()
    teacher: tuple[float, float] | None = None  # momentum at the first step and at the last
    transfer = "encoder"  # what the fine-tune inherits, or "network"
    pretrain_labels = "none"  # or "fraction", "all"
    min_batch = 2
    distributed = True
    joint = True  # all views of one size in one forward (they share BatchNorm statistics), or each on its own
    wants_sector = False
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext  # set by the harness

    def __init__(
        self, network: Network, head: Head | None = None, predictor: Callable[[], nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.projector = head(network.dim) if head else None
        self.predictor = predictor() if predictor else None
        if self.teacher is not None:
            # A head is built a second time, not copied: weight-normed heads cannot be deep-copied.
            self.teacher_encoder = copy.deepcopy(network.encoder).requires_grad_(False)
            self.teacher_projector = head(network.dim).requires_grad_(False) if head else None
            if self.teacher_projector is not None and self.projector is not None:
                self.teacher_projector.load_state_dict(self.projector.state_dict())

    def objective(self, out: Out, batch: Batch) -> Tensor | Mapping[str, Tensor]:
        """The loss of this batch: a scalar, or named scalars whose sum is minimised. Runs in float32."""
        raise NotImplementedError(f"{type(self).__name__} must write objective(out, batch)")

    def encode(self, encoder: nn.Module, views: list[Tensor]) -> list[Sequence[Tensor]]:
        """The maps of every view: views of one size together where `joint`, else one by one."""
        if not self.joint:
            return [encoder(view) for view in views]
        maps: dict[int, Sequence[Tensor]] = {}
        for shape in dict.fromkeys(view.shape for view in views):
            places = [i for i, view in enumerate(views) if view.shape == shape]
            together = encoder(torch.cat([views[i] for i in places]))
            if isinstance(together, Levels):
                parts: Iterable[Sequence[Tensor]] = together.chunk(len(places))
            else:
                parts = map(list, zip(*(level.chunk(len(places)) for level in together), strict=True))
            maps |= zip(places, parts, strict=True)
        return [maps[i] for i in range(len(views))]

    def project(self, projector: nn.Module, features: list[Tensor]) -> list[Tensor]:
        """The head on every view's features, joint or per view as the encoder was run."""
        if self.joint:
            parts = projector(torch.cat(features)).chunk(len(features))
        else:
            parts = tuple(projector(feature) for feature in features)
        return [part.float() for part in parts]

    def look(self, batch: Batch) -> Out:
        """Run student and, where there is one, teacher on the views. The teacher sees the global views only."""
        with self.autocast():
            out = Out(self.encode(self.network.encoder, batch.views))
            if self.projector is not None:
                out.z = self.project(self.projector, [pooled(maps) for maps in out.maps])
                if self.predictor is not None:
                    out.p = self.project(self.predictor, out.z)
            if self.teacher is not None:
                with torch.no_grad():
                    # Role-major: each role's global views, then its local ones.
                    seen = [v for i, v in enumerate(batch.views) if i % sum(self.views) < self.views[0]]
                    out.teacher_maps = self.encode(self.teacher_encoder, seen)
                    if self.teacher_projector is not None:
                        out.t = self.project(self.teacher_projector, [pooled(maps) for maps in out.teacher_maps])
        return out

    def forward(self, batch: Batch) -> Tensor | Mapping[str, Tensor]:
        """The objective of this batch; masked models override this."""
        return self.objective(self.look(batch), batch)

    def before_step(self, batch: Batch) -> None:
        """Called before the forward, for example to normalise prototypes."""

    def after_backward(self, batch: Batch) -> None:
        """Called between backward and the optimiser's step, for example to cancel gradients."""

    def step(self, batch: Batch, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        """One optimiser step; bilevel methods override this. Returns the named parts, detached."""
        self.before_step(batch)
        parts = named(self(batch))
        total = torch.stack(list(parts.values())).sum()
        if not total.requires_grad:
            raise ValueError("the loss depends on nothing that is trained, so it has no gradient")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.after_backward(batch)
        optimizer.step()
        return {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def update_teacher(self, progress: float) -> None:
        """Move the teacher towards the student; the momentum follows a cosine between its two values."""
        if self.teacher is None:
            return
        first, last = self.teacher
        momentum = last - (last - first) * (np.cos(np.pi * progress) + 1) / 2
        pairs = [(self.teacher_encoder, self.network.encoder), (self.teacher_projector, self.projector)]
        slow: list[Tensor] = [p for teacher, _ in pairs if teacher is not None for p in teacher.parameters()]
        fast: list[Tensor] = [
            p for teacher, student in pairs if teacher is not None and student for p in student.parameters()
        ]
        torch._foreach_lerp_(slow, fast, 1 - float(momentum))


def named(value: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A loss's parts by name, whether it returned one scalar or several."""
    parts = dict(value) if isinstance(value, Mapping) else {"loss": value}
    if not parts:
        raise ValueError("the loss returned no part at all, so there is nothing to minimise")
    for name, part in parts.items():
        if not isinstance(part, Tensor) or part.ndim != 0:
            shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise ValueError(f"the part '{name}' of the loss is {shape}, not a scalar tensor")
    return parts


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


@dataclass
class Labelled:
    """A supervised batch."""

    images: Tensor  # (N, 1, H, W), normalised
    mask: Tensor  # (N, 1, H, W) in [0, 1]: resampled, so a border pixel may lie between; (N, 0, H, W) if not needed
    label: Tensor  # (N,) the place in `Protocol.classes`; -1 unknown


class Protocol:
    """Turns a network into per-image scores: what is trained, by which objective, and how an image is scored.

    Two forks: a prediction is a mask (`masks`), scored image by image by `score`, or a row of numbers, all of them
    scored together by `tabulate`; and a protocol is trained by steps (`objective`, `inner`), or, registered with
    `frozen=True`, fitted once to pooled features of the network as it is (`fit`).
    """

    needs: ClassVar[tuple[str, ...]] = ()  # as registered: "mask" and "label" say which images count
    metrics: ClassVar[tuple[str, ...]] = ()
    primary: ClassVar[str] = ""
    masks: ClassVar[bool] = True
    keeps_choices: ClassVar[bool] = False  # what inner validation looked at is all tested, for `best_on_test`
    classes: tuple[str, ...] = ()  # of the training data, where "label" is needed; set by the harness
    counts: tuple[int, ...] = ()  # images of each to train on; set by the harness

    def adapt(self, network: Network) -> nn.Module:
        """The module that is trained and tested; the network itself unless the protocol puts something on it.

        What is to stay as it is gets `requires_grad_(False)` here. Modules of which nothing is trained stay in
        evaluation mode, with BatchNorm statistics taken once of the clean training images.
        """
        return network

    def views(self, rng: np.random.Generator, count: int) -> np.ndarray | None:
        """(count, 3, 3) affines of a training batch; None for the usual flips and rotations of up to 15 degrees."""
        return None

    def objective(self, output: Tensor, batch: Labelled) -> Tensor:
        """The supervised loss."""
        raise NotImplementedError(f"{type(self).__name__} must write objective(output, batch)")

    def inner(self, output: Tensor, batch: Labelled) -> Tensor:
        """(N,) the score of each image at run size, by which the step is chosen on inner validation: the mean counts.

        Or (N, parts), NaN where an image is not of a part: the mean over the parts of the mean over each counts. With
        a part for each class and 1 for a right image, 0 for a wrong one, that is the balanced accuracy.
        """
        raise NotImplementedError(f"{type(self).__name__} must write inner(output, batch)")

    def fit(self, model: nn.Module, features: Tensor, label: Tensor) -> float:
        """Fit what `adapt` made to pooled features (N, dim), without gradient; returns its loss.

        What is learnt is put into buffers of the model, of whatever shape. Of a protocol that is `frozen`.
        """
        raise NotImplementedError(f"{type(self).__name__} must write fit(model, features, label)")

    def predict(self, output: Tensor, size: int) -> Tensor:
        """(N, size, size) bool: the predicted masks at the pack's size; without `masks`, (N, …) numbers."""
        raise NotImplementedError(f"{type(self).__name__} must write predict(output, size)")

    def probability(self, output: Tensor, size: int) -> Tensor | None:
        """(N, size, size) how likely each pixel is of the mask, for the calibration error; None where nobody knows."""
        return None

    def score(self, predicted: np.ndarray, truth: np.ndarray, spacing: float) -> dict[str, float]:
        """The metrics of one mask; `spacing` is how many native pixels a mask pixel is."""
        raise NotImplementedError(f"{type(self).__name__} must write score(predicted, truth, spacing)")

    def tabulate(self, predicted: np.ndarray, label: np.ndarray, video: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of one value an image, the metrics among them, for a whole test set: for protocols without masks.

        The mean over the images where a metric is not NaN is what tables show. `video` (N,) is text, "" unknown.
        """
        raise NotImplementedError(f"{type(self).__name__} must write tabulate(predicted, label, video)")
