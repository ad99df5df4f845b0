"""What a data set plugin gives: items, one image each, and where they come from. Needs numpy, not torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np


@dataclass
class Item:
    """One B-mode image as it was released: grey, at its native size, with all that is known about it.

    Unknown stays unknown: `mask=None` is an unannotated image, an all-False mask is a normal one; `label=-1`,
    empty strings and NaN say "not known".
    """

    name: str
    image: np.ndarray  # (H, W) uint8
    mask: np.ndarray | None = None  # (H, W) bool
    sector: np.ndarray | None = None  # (H, W) bool, the insonified region; None: all of the image
    label: int = -1  # index into Dataset.classes
    tag: str = ""  # anatomy or view
    patient: str = ""
    video: str = ""
    frame: int = -1  # index of the frame in its video
    time: float = float("nan")  # seconds from the start of its video
    fps: float = float("nan")
    device: str = ""
    fold: int = -1  # official fold, where the set has one
    pixel_mm: float = float("nan")


class Dataset:
    """Turns an official download, or a simulator, into items; the harness turns items into a pack.

    A subclass sets the attributes and writes `items`. Options given at registration arrive in `__init__`.
    """

    source: str = ""
    licence: str = ""
    citation: str = ""
    version: str = "1"
    classes: tuple[str, ...] = ()  # what the labels of the items mean, known before the first item is read
    finds_sector: ClassVar[bool] = True  # the harness finds the sector of an imported item that brings none
    generic: ClassVar[bool] = False  # takes anything of a form, so another importer that fits is the better one
    name: str = ""  # of the pack, where it is not the name that the plugin is registered under
    people: str = ""  # data sets that say the same have the same patients under the same names
    skip_broken: bool = False  # leave out what cannot be read, instead of ending; set by the harness
    skipped: Mapping[str, str] = MappingProxyType({})  # what was left out → why, complete after the last item

    def __init__(self, **options: Any) -> None:
        self.options = options

    def items(self, path: Path | None) -> Iterator[Item]:
        """Yield the items in a fixed order; `path` is what the user pointed at (None for a simulator)."""
        raise NotImplementedError(f"{type(self).__name__} must write items(path)")
        yield  # makes this a generator, as every implementation is

    def count(self, path: Path | None) -> int | None:
        """How many items are to come, for the progress display, where that is cheap to know."""
        return None

    def recognises(self, path: Path) -> bool:
        """Whether `path` looks like a release of this set, so that a user who named another can be told."""
        return False
