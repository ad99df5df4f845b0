"""What an importer of a data set is made of: a layout, cases, and everything between a file and an item.

A plugin subclasses `Importer`, says how the images are called and yields one `Case` an image: paths and what is known.
Reading, decoding, joining masks, finding the sector, and saying what was left out is done here, on all cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from PIL import Image as PILImage

from usbench.data.pixels import fill_outline, grey_of, read_colour, read_grey, read_image, read_mask
from usbench.data.release import NotThisSet, Release, Undecodable, open_release
from usbench.data.sector import with_sector
from usbench.errors import UsbenchError
from usbench.items import Dataset, Item
from usbench.machine import available_cores

__all__ = [
    "Case", "Importer", "Item", "NotThisSet", "Release", "Undecodable", "fill_outline", "grey_of", "in_order",
    "number", "read_colour", "read_grey", "read_image", "read_mask", "whole", "with_sector",
]  # fmt: skip

Job = TypeVar("Job")
Done = TypeVar("Done")


class Case:
    """One image to come: where it and its masks lie in the release, and what is known about it (fields of Item).

    `masks=None` says that nobody annotated it, `masks=[]` that it was looked at and is normal. Several are joined.
    """

    def __init__(self, name: str, image: str, masks: Sequence[str] | None = None, **facts: Any) -> None:
        self.name, self.image, self.facts = name, image, facts
        self.masks = None if masks is None else list(masks)


class Importer(Dataset):
    """Turns an official release into items. A subclass sets `layout` and writes `cases`."""

    layout: ClassVar[str] = ""  # a regular expression: the images of the release, by their path from its root
    example: ClassVar[str] = ""  # one of them, for the user who pointed elsewhere
    exact: ClassVar[bool] = False  # the root is where the user points, not a folder nearby
    anatomy: str = ""  # the tag of an item that has none of its own
    resizes_masks: ClassVar[bool] = False  # a set known for masks of another size than their image

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.skipped: dict[str, str] = {}
        self._opened: tuple[Path, Release, list[Case]] | None = None

    def root(self, release: Release) -> Release:
        """The release from its root; for sets whose layout does not tell where that is."""
        return release

    def cases(self, release: Release) -> Iterable[Case]:
        """Yield one case an image, in a fixed order; `self.skip` what does not become one."""
        raise NotImplementedError(f"{type(self).__name__} must write cases(release)")

    def mask(self, data: bytes) -> np.ndarray:
        """Bytes of one mask file to (H, W) bool; for sets that draw theirs in a way of their own."""
        return read_mask(data)

    def item(self, release: Release, case: Case) -> Item:
        """Read one case; for sets whose pixels say more than the mask."""
        image = self._decode(read_grey, release, case.image)
        mask = self.joined(release, case.image, case.masks, (image.shape[0], image.shape[1]))
        return Item(name=case.name, image=image, mask=mask, **{"tag": self.anatomy, **case.facts})

    def joined(
        self, release: Release, image: str, masks: Sequence[str] | None, shape: tuple[int, int]
    ) -> np.ndarray | None:
        """(H, W) bool: all masks of an image of this shape; None where nobody annotated it."""
        if masks is None:
            return None
        mask = np.zeros(shape, np.bool_)
        for name in masks:
            part = self._decode(self.mask, release, name)
            if part.shape != shape and self.resizes_masks:
                part = np.asarray(PILImage.fromarray(part).resize(shape[::-1], PILImage.Resampling.NEAREST))
            if part.shape != shape:
                (mh, mw), (h, w) = part.shape, shape
                raise Undecodable(f"the mask '{name}' has {mw} × {mh} pixels and its image '{image}' {w} × {h}")
            mask |= part
        return mask

    def label(self, text: str) -> int:
        """The index of a class by its name, in any case; unknown where there is none."""
        lower = [name.lower() for name in self.classes]
        if text.strip() and text.strip().lower() not in lower:
            raise UsbenchError(f"the class '{text}' is none of {', '.join(self.classes)}: mend the table.")
        return lower.index(text.strip().lower()) if text.strip() else -1

    def skip(self, name: str, reason: str) -> None:
        """Leave something out, and say so in the pack."""
        self.skipped[name] = reason

    def recognises(self, path: Path) -> bool:
        """Whether `path` looks like a release of this set."""
        try:
            open_release(path, self.layout, example=self.example, exact=self.exact)
        except UsbenchError:
            return False
        return True

    def count(self, path: Path | None) -> int | None:
        """How many images are to come."""
        return len(self._open(path)[1])

    def items(self, path: Path | None) -> Iterator[Item]:
        """Yield the items in order, decoded on all cores; one that cannot be read ends it, or is skipped."""
        release, cases = self._open(path)

        def read(case: Case) -> tuple[Item | None, str]:
            try:
                item = self.item(release, case)
            except Undecodable as error:
                return None, str(error)
            return with_sector(item) if self.finds_sector else item, ""

        for case, (item, trouble) in zip(cases, in_order(read, cases), strict=True):
            if item is not None:
                yield item
            elif self.skip_broken:
                self.skip(case.image, trouble)
            else:
                raise UsbenchError(
                    f"{trouble} (in {release.path}): mend it, or leave such images out with --skip-broken."
                )

    def of_one_file(self, release: Release, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items of one file that holds many, up to where it cannot be read; that ends all, or is said."""
        count = 0
        try:
            for item in items:
                yield item
                count += 1
        except Undecodable as error:
            if not self.skip_broken:
                raise UsbenchError(
                    f"'{name}' cannot be used: {error} (in {release.path}): mend it, or leave such files out with "
                    "--skip-broken."
                ) from error
            self.skip(name, f"{error}; what stands before that is taken" if count else str(error))

    def _decode(self, reader: Callable[[bytes], np.ndarray], release: Release, name: str) -> np.ndarray:
        try:
            return reader(release.read(name))
        except Undecodable as error:
            raise Undecodable(f"'{name}' cannot be used: {error}") from None

    def _open(self, path: Path | None) -> tuple[Release, list[Case]]:
        if path is None:
            raise UsbenchError("name the folder or zip of the official release.")
        if self._opened is None or self._opened[0] != path:
            release = self.root(open_release(path, self.layout, example=self.example, exact=self.exact))
            self.skipped = {}
            cases = list(self.cases(release))
            self._check_names(cases)
            used = {name for case in cases for name in (case.image, *(case.masks or ()))}
            for name in release.images:
                if name not in used:
                    self.skipped.setdefault(name, "it belongs to no image of the set")
            self._opened = path, release, cases
        return self._opened[1:]

    @staticmethod
    def _check_names(cases: list[Case]) -> None:
        first: dict[str, Case] = {}
        for case in cases:
            other = first.setdefault(case.name, case)
            if other is not case:
                raise UsbenchError(
                    f"two images have the name '{case.name}': '{other.image}' and '{case.image}'; rename or remove one."
                )


def in_order(function: Callable[[Job], Done], jobs: Iterable[Job], workers: int | None = None) -> Iterator[Done]:
    """Map over jobs on all cores, in order and in bounded memory; decoding lets other threads run."""
    workers = workers or available_cores()
    waiting: deque[Future[Done]] = deque()
    pool, given_up = ThreadPoolExecutor(workers), False
    trouble: Exception | None = None
    left = iter(jobs)
    try:
        while trouble is None:
            try:
                waiting.append(pool.submit(function, next(left)))
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised below, after what came before it: on all machines alike
                trouble = error
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if trouble is not None:
            raise trouble
    except GeneratorExit:  # not waited for: the last to let go of this may be one of the pool's own threads
        given_up = True
        raise
    finally:
        pool.shutdown(wait=not given_up, cancel_futures=True)


def number(text: str) -> float:
    """A table's cell as a number; NaN where it holds none."""
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("nan")


def whole(text: str) -> int:
    """A table's cell as a whole number; −1 where it holds none that a pack can keep."""
    value = number(text)
    return int(value) if abs(value) < 2**31 else -1
