"""The feed: packs' images on the device as uint8, or streamed where they do not fit, and batches by step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from usbench.contracts import Batch, Clip, Image, Video
from usbench.data.known import describe
from usbench.data.pack import Pack, side_of
from usbench.data.planes import chunks, mapped, read_plane, shrink
from usbench.data.room import room
from usbench.data.stream import Read, Streamed
from usbench.draws import generator
from usbench.errors import UsbenchError
from usbench.views import Views, to_device

Plane = Tensor | Streamed  # of all images: held on the device, or gathered as they are taken


class Feed:
    """Images of one or several packs, with what is known about each, gathered by index.

    Where there is no room for them, batches are read from files as they are taken: the same bytes, and little memory.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Pack, np.ndarray]],
        size: int,
        device: torch.device,
        *,
        masks: bool = False,
        sectors: bool = False,
        unlabelled: Collection[Pack] = (),  # packs whose labels are not to be known
        classes: Sequence[str] = (),  # the first of them is label 0, and so on; others follow as they come
        read: Callable[[Pack, np.ndarray], np.ndarray] | None = None,  # instead of the images: what is shown of them
    ) -> None:
        self.parts, self.device, self.size = parts, device, size
        self.side = side_of(size, max(pack.size for pack, _ in parts))
        self.count = sum(len(indices) for _, indices in parts)
        self.streams = self.count * self.side**2 * (1 + masks + sectors) > room(device)
        self._thread = ThreadPoolExecutor(1, "feed") if self.streams else None
        self.images = self._plane("images", read)
        self.sector = self._plane("sector") if sectors else None
        self.mask = self._plane("mask") if masks else None
        known = describe(parts, unlabelled, classes)
        self.label, self.tag = (torch.from_numpy(codes).to(device) for codes in (known.label, known.tag))
        self.video, self.frame, self.time = known.video, known.frame, known.time

    def _plane(self, name: str, read: Callable[[Pack, np.ndarray], np.ndarray] | None = None) -> Plane:
        if self._thread is not None:
            made = [(self._reader(pack, name, read), indices) for pack, indices in self.parts]
            return Streamed(made, self.side, self.device, self._thread)
        plane = torch.empty((self.count, 1, self.side, self.side), dtype=torch.uint8, device=self.device)
        start = 0
        for chunk in self._shrunk(name, read):
            plane[start : start + len(chunk)] = chunk.to(self.device)
            start += len(chunk)
        return plane

    def _reader(self, pack: Pack, name: str, read: Callable[[Pack, np.ndarray], np.ndarray] | None) -> Read:
        side = self.side
        if read is not None:
            return lambda rows: shrink(read(pack, rows), side)[:, 0].numpy()
        return mapped(pack, name, side).__getitem__

    def _shrunk(self, name: str, read: Callable[[Pack, np.ndarray], np.ndarray] | None = None) -> Iterator[Tensor]:
        """A plane of all images, some at a time, on the host."""
        for pack, indices in self.parts:
            for rows in chunks(indices):
                yield shrink(read_plane(pack, name, rows) if read is None else read(pack, rows), self.side)

    @functools.cached_property
    def boxes(self) -> np.ndarray:
        """(count, 4) where each image's sector lies: see `sector_boxes`. Read when they are first asked for."""
        sector = self.sector
        if sector is None:
            found = self._shrunk("sector")
        else:
            found = (self.take(sector, rows).cpu() for rows in chunks(np.arange(self.count)))
        # Small results kept between large buffers would keep the C library from using those again: it would grow.
        boxes, start = np.empty((self.count, 4), np.float32), 0
        for planes in found:
            boxes[start : start + len(planes)] = sector_boxes(planes[:, 0].numpy().astype(np.bool_))
            start += len(planes)
        return boxes

    def take(self, plane: Plane, rows: np.ndarray) -> Tensor:
        """The rows of a plane, on the device."""
        if isinstance(plane, Streamed):
            return plane.take(rows)
        return plane.index_select(0, to_device(rows, self.device))

    def ahead(self, rows: np.ndarray, *planes: Plane | None) -> None:
        """Say which rows of which planes are taken next, so that those that are read from files are read meanwhile."""
        for plane in planes:
            if isinstance(plane, Streamed):
                plane.ahead(rows)

    def in_turn(self, rows: np.ndarray, batch: int, *planes: Plane | None) -> Iterator[np.ndarray]:
        """The rows, a batch at a time, for somebody who takes of these planes."""
        every = list(chunks(rows, batch))
        for now, following in zip_longest(every, every[1:]):
            if following is not None:
                self.ahead(following, *planes)
            yield now


def sector_boxes(sector: np.ndarray) -> np.ndarray:
    """(n, 4) left, top, right, bottom of each sector in [-1, 1]; crops start from here, not from the padding."""
    n, height, width = sector.shape
    boxes = np.tile(np.array([-1, -1, 1, 1], np.float32), (n, 1))
    for axis, size, low in ((1, width, 0), (2, height, 1)):
        covered: np.ndarray = np.any(sector, axis=axis)
        some = covered.any(axis=1)
        first, last = covered.argmax(axis=1), size - covered[:, ::-1].argmax(axis=1)
        boxes[some, low] = (2 * first / size - 1)[some]
        boxes[some, low + 2] = (2 * last / size - 1)[some]
    return boxes


def order(count: int, batch: int, step: int, *labels: int | str) -> np.ndarray:
    """The items of a step: consecutive places in an endless row of seeded permutations."""
    places = np.arange(step * batch, (step + 1) * batch)
    rows = np.empty(batch, np.int64)
    for lap in range(places[0] // count, places[-1] // count + 1):
        here = places // count == lap
        rows[here] = _lap(count, int(lap), *labels)[places[here] % count]
    return rows


@functools.lru_cache(4)
def _lap(count: int, lap: int, *labels: int | str) -> np.ndarray:
    """One of the permutations; kept, since it takes the longer the more images there are, and many steps share it."""
    drawn = generator(*labels, "order", lap).permutation(count)
    drawn.flags.writeable = False
    return drawn


@dataclass(frozen=True)
class _Plan:
    """What a step begins with: its items and their frames, and the generator from which the frames were drawn."""

    step: int
    items: np.ndarray
    frames: np.ndarray  # (N, roles)
    rng: np.random.Generator

    @property
    def rows(self) -> np.ndarray:
        """Role-major."""
        return self.frames.T.reshape(-1)


class Batches:
    """The batches of a pretraining: step → Batch, from nothing but the seed and the step."""

    def __init__(self, feed: Feed, views: Views, item: Image | Clip, *, batch: int, total: int, seed: int) -> None:
        self.feed, self.views, self.item = feed, views, item
        self.batch, self.total, self.seed = batch, total, seed
        self.rows: list[np.ndarray] = []  # of each clip
        self.clips: list[Video] = []
        if isinstance(item, Clip):
            self.rows = self._clips(item)
            self.clips = [Video(i, feed.frame[rows], feed.time[rows]) for i, rows in enumerate(self.rows)]
        self.items = len(self.clips) or feed.count
        self._next: _Plan | None = None  # whose rows are gathered meanwhile

    def _clips(self, item: Clip) -> list[np.ndarray]:
        """The rows of each video that is long enough, in order of time; then, where they are wanted, the stills."""
        video = self.feed.video
        if not (video >= 0).any():
            raise UsbenchError("the loss wants clips and no image of the pretraining data belongs to a video.")
        by_time = np.lexsort((self.feed.frame, video))
        videos = np.split(by_time, np.flatnonzero(np.diff(video[by_time])) + 1)
        videos = [rows for rows in videos if video[rows[0]] >= 0]
        stills = [np.array([row]) for row in np.flatnonzero(video < 0)] if item.stills else []
        found = [rows for rows in (*videos, *stills) if len(rows) >= item.least]
        if not found:
            longest = max(map(len, videos))
            raise UsbenchError(
                f"the loss wants videos of at least {item.least} frames, and 0 of the {len(videos)} videos of the "
                f"pretraining data are that long (the longest has {longest}): choose data with longer ones."
            )
        return found

    def frames(self, items: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        """(N, roles) the frames of each item, drawn by the rule of the loss's item."""
        if not isinstance(self.item, Clip):
            return items[:, None]
        progress, k = step / max(1, self.total - 1), len(self.item.roles)
        drawn = np.empty((len(items), k), np.int64)
        for row, item in enumerate(items):
            clip = self.clips[item]
            places = np.asarray(self.item.frames(clip, progress, rng))
            if places.shape != (k,) or places.min() < 0 or places.max() >= len(clip):
                raise UsbenchError(
                    f"{type(self.item).__name__}.frames drew {places.tolist()} from a video of {len(clip)} frames: "
                    f"it must give {k} places from 0 to {len(clip) - 1}."
                )
            drawn[row] = self.rows[item][places]
        return drawn

    def _plan(self, step: int) -> _Plan:
        rng = generator(self.seed, "pretrain", "views", step)
        items = order(self.items, self.batch // len(self.item.roles), step, self.seed, "pretrain")
        return _Plan(step, items, self.frames(items, step, rng), rng)

    def __call__(self, step: int) -> Batch:
        """The batch of a step: the same for whoever asks, and however often."""
        feed = self.feed
        plan, self._next = self._next, None
        if plan is None or plan.step != step:
            plan = self._plan(step)
        items, frames, rows, k = plan.items, plan.frames, plan.rows, len(self.item.roles)
        images = feed.take(feed.images, rows)
        sector = feed.take(feed.sector, rows) if feed.sector is not None else None
        if feed.streams and step + 1 < self.total:
            self._next = self._plan(step + 1)
            feed.ahead(self._next.rows, feed.images, feed.sector)
        drawn = self.views.draw(plan.rng, feed.boxes[rows], feed.device)
        views, geometry, sectors = self.views(images, sector, drawn)
        if k > 1:  # (view, role · n) → role-major views of n items each
            views, geometry, sectors = (_by_role(x, k) for x in (views, geometry, sectors))
        first = to_device(frames[:, 0], feed.device)
        return Batch(
            views, geometry, sectors,
            index=to_device(items, feed.device),
            label=feed.label[first],
            video=to_device(feed.video[frames[:, 0]], feed.device),
            frame=to_device(feed.frame[frames], feed.device),
            time=to_device(feed.time[frames], feed.device),
            tag=feed.tag[first],
            step=step, total=self.total, rng=generator(self.seed, "pretrain", "loss", step),
        )  # fmt: skip


def _by_role(views: list[Tensor], roles: int) -> list[Tensor]:
    chunks = [view.chunk(roles) for view in views]
    return [parts[role] for role in range(roles) for parts in chunks]
