"""The pack: one checked HDF5 file a data set.

Images are letter-boxed grey squares, stored contiguous and uncompressed so that they can be memory-mapped; masks and
sectors are compressed; everything known about an image stands beside it. A pack is written to a temporary file and
renamed, and validated when it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from PIL import Image as PILImage

from usbench.data.sink import Sink
from usbench.data.soundness import unsound_file, unsound_table
from usbench.errors import UsbenchError
from usbench.items import Item

SCHEMA = 1
TEXT = h5py.string_dtype()
FIELDS: dict[str, Any] = {  # one value an image
    "has_mask": np.bool_,
    "label": np.int16,
    "tag": TEXT,
    "patient": TEXT,
    "video": TEXT,
    "frame": np.int32,
    "time": np.float32,
    "fps": np.float32,
    "device": TEXT,
    "fold": np.int16,
    "group": np.int32,
    "name": TEXT,
    "native_height": np.int32,
    "native_width": np.int32,
    "scale": np.float64,  # pack pixels per native pixel
    "offset_y": np.int32,
    "offset_x": np.int32,
    "pixel_mm": np.float32,
}
PLANES = ("images", "mask", "sector")
ATTRIBUTES = ("schema", "dataset", "source", "licence", "citation", "importer", "version", "classes", "digest")
OPTIONAL = ("skipped", "people")  # attributes that a pack may lack
SKIPPED_BYTES = 32_000  # HDF5 holds no longer attribute than 64 KiB


@dataclass(frozen=True)
class Box:
    """Where a native image lies in its letter-boxed square."""

    scale: float
    top: int
    left: int
    height: int
    width: int


def letterbox(height: int, width: int, size: int) -> Box:
    """The largest centred place for a height × width image in a size × size square."""
    scale = size / max(height, width)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    return Box(scale, (size - inner[0]) // 2, (size - inner[1]) // 2, *inner)


def place(plane: np.ndarray, box: Box, size: int) -> np.ndarray:
    """A uint8 or bool plane resampled into its box (antialiased; a mask is cut at one half)."""
    is_mask = plane.dtype == np.bool_
    grey = plane.astype(np.uint8) * 255 if is_mask else plane
    if grey.shape != (box.height, box.width):
        filter_ = PILImage.Resampling.BOX if is_mask else PILImage.Resampling.BILINEAR
        grey = np.asarray(PILImage.fromarray(grey).resize((box.width, box.height), filter_))
    square = np.zeros((size, size), np.uint8)
    square[box.top : box.top + box.height, box.left : box.left + box.width] = grey
    return square >= 128 if is_mask else square


def link_groups(patient: list[str], video: list[str], pairs: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """Connected components of same patient, same video, and any further pairs (near-duplicates)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(patient)
    edges: list[tuple[int, int]] = list(pairs)
    for values in (patient, video):
        first: dict[str, int] = {}
        edges += [(i, first.setdefault(value, i)) for i, value in enumerate(values) if value]
    rows, columns = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int32)


def _digest(file: h5py.File) -> str:
    """A digest of the content: every plane and every field, not of HDF5's own bytes."""
    digest = hashlib.sha256(f"usbench pack {file.attrs['schema']}".encode())
    for name in (*PLANES, *FIELDS):
        data = file[name]
        digest.update(f"{name} {data.shape}".encode())
        if FIELDS.get(name) is TEXT:
            digest.update("\0".join(data.asstr()[:]).encode())
            continue
        for start in range(0, len(data), 256):
            digest.update(np.ascontiguousarray(data[start : start + 256]).tobytes())
    return digest.hexdigest()[:32]


def _text(data: h5py.Dataset) -> np.ndarray:
    """The strings of a field; equal ones are one, since most images share a patient, a video, a device."""
    one: dict[str, str] = {}
    return np.array([one.setdefault(value, value) for value in data.asstr()[:]], object)


def write_pack(
    path: Path,
    items: Iterable[Item],
    *,
    size: int,
    attributes: dict[str, str],
    classes: tuple[str, ...] = (),
    generated: bool = False,
    progress: Callable[[int], None] | None = None,
    skipped: Callable[[], Mapping[str, str]] = dict,
) -> str:
    """Write the items as a pack, in constant memory; returns its digest. Nothing half-written stays behind.

    Near-duplicates join one group, but in a generated set, whose patients are known exactly. `skipped` is asked after
    the last item for what was left out, and why.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    spool = temporary.with_suffix(".spool")
    columns: dict[str, list[Any]] = {name: [] for name in FIELDS if name != "group"}
    try:
        with Sink(temporary) as sink, spool.open("wb") as raw, h5py.File(sink, "w") as file:
            planes = {
                name: file.create_dataset(
                    name, (0, size, size), np.bool_, maxshape=(None, size, size), chunks=(1, size, size),
                    compression="gzip", compression_opts=1,
                )
                for name in ("mask", "sector")
            }  # fmt: skip
            for count, item in enumerate(items, start=1):
                _add(item, size, raw, planes, columns)
                sink.check()
                if progress is not None:
                    progress(count)
            if not columns["name"]:
                raise UsbenchError(f"there is no image to write into {path}.")
            raw.flush()
            _finish(file, spool, size, columns, {**attributes, "generated": generated}, classes)
            if left_out := skipped():
                file.attrs["skipped"] = _shortened(left_out)
            digest = str(file.attrs["digest"])
            file.close()
            sink.check()
        temporary.replace(path)
        return digest
    finally:
        temporary.unlink(missing_ok=True)
        spool.unlink(missing_ok=True)


def _shortened(skipped: Mapping[str, str]) -> str:
    """JSON of how many were left out, and of as many names with reasons as an attribute can hold."""
    kept: dict[str, str] = {}
    room = SKIPPED_BYTES
    for name, reason in skipped.items():
        room -= len(json.dumps({name: reason}))
        if room < 0:
            break
        kept[name] = reason
    return json.dumps({"count": len(skipped), "reasons": kept})


def _add(item: Item, size: int, raw: Any, planes: dict[str, h5py.Dataset], columns: dict[str, list[Any]]) -> None:
    image = item.image
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise UsbenchError(f"item '{item.name}' is {image.dtype} {image.shape}: an image is (height, width) uint8.")
    for what in ("mask", "sector"):
        plane = getattr(item, what)
        if plane is not None and plane.shape != image.shape:
            raise UsbenchError(f"item '{item.name}' has a {what} of {plane.shape} for an image of {image.shape}.")
    height, width = image.shape
    box = letterbox(height, width, size)
    raw.write(place(image, box, size).tobytes())
    mask = np.zeros(image.shape, np.bool_) if item.mask is None else item.mask.astype(np.bool_)
    sector = np.ones(image.shape, np.bool_) if item.sector is None else item.sector.astype(np.bool_)
    for name, plane in (("mask", mask), ("sector", sector)):
        planes[name].resize(len(columns["name"]) + 1, axis=0)
        planes[name][-1] = place(plane, box, size)
    values = {
        **{k: getattr(item, k) for k in ("label", "tag", "patient", "video", "frame", "time", "fps", "device")},
        **{"fold": item.fold, "name": item.name, "pixel_mm": item.pixel_mm, "has_mask": item.mask is not None},
        **{"native_height": image.shape[0], "native_width": image.shape[1]},
        **{"scale": box.scale, "offset_y": box.top, "offset_x": box.left},
    }
    for key, value in values.items():
        columns[key].append(value)


def _finish(
    file: h5py.File,
    spool: Path,
    size: int,
    columns: dict[str, list[Any]],
    attributes: dict[str, Any],
    classes: tuple[str, ...],
) -> None:
    names = columns["name"]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsbenchError(f"two images have the name '{twice}': give each image its own.")
    images = file.create_dataset("images", (len(names), size, size), np.uint8)
    pixels = np.memmap(spool, np.uint8, "r", shape=images.shape)
    for start in range(0, len(names), 256):
        images[start : start + 256] = pixels[start : start + 256]
    del pixels
    pairs = [] if attributes["generated"] else _near_duplicates(file, spool.parent, columns["video"])
    columns["group"] = list(link_groups(columns["patient"], columns["video"], pairs))
    for key, dtype in FIELDS.items():
        file.create_dataset(key, data=np.array(columns[key], dtype=object if dtype is TEXT else dtype), dtype=dtype)
    file.attrs.update({"schema": SCHEMA, "classes": list(classes) or [""], **attributes})
    file.attrs["digest"] = _digest(file)


def _near_duplicates(file: h5py.File, folder: Path, videos: list[str]) -> list[tuple[int, int]]:
    from usbench.data.likeness import SIDE, near_duplicates, thumbnails

    with tempfile.TemporaryFile(dir=folder) as raw:
        thumbs = np.memmap(raw, np.uint8, "w+", shape=(len(videos), SIDE, SIDE))
        thumbnails(file["images"], file["sector"], thumbs)
        return [(int(i), int(j)) for i, j in near_duplicates(thumbs, videos=videos)]


class Pack:
    """A pack opened for reading. Metadata is in memory; images are memory-mapped; masks are read when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a name is too long
            raise UsbenchError(f"there is no pack at {path}: import one with 'usbench data import' or name a data set.")
        try:
            with h5py.File(path, "r", locking=False) as file:
                self._read(file)
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:  # what h5py raises on odd files
            raise UsbenchError(f"{path} is not a complete pack ({error}): make or import it again.") from error

    def _read(self, file: h5py.File) -> None:
        schema = file.attrs.get("schema")
        missing = [name for name in (*PLANES, *FIELDS) if name not in file]
        missing += [name for name in ATTRIBUTES if name not in file.attrs]
        if schema is not None and int(schema) > SCHEMA:
            raise UsbenchError(
                f"{self.path} has pack schema {int(schema)}, newer than the {SCHEMA} known here: update usbench."
            )
        if schema is None or missing:
            raise UsbenchError(f"{self.path} is an HDF5 file but no usbench pack (no {missing[0]}).")
        shape = file["images"].shape
        if not all(shape):
            raise UsbenchError(f"{self.path} holds no image: make or import it again.")
        if len(shape) != 3 or shape[1] != shape[2] or file["images"].dtype != np.uint8:
            raise UsbenchError(f"{self.path} holds images of shape {shape}: a pack has (N, size, size) uint8.")
        if trouble := unsound_file(file, PLANES, FIELDS, TEXT):
            raise UsbenchError(f"{self.path} is no sound pack ({trouble}): make or import it again.")
        wrong = [n for n in (*PLANES, *FIELDS) if file[n].shape[0] != shape[0]]
        if wrong:
            raise UsbenchError(f"{self.path} is damaged: '{wrong[0]}' has not one entry for each of {shape[0]} images.")
        self.count, self.size = int(shape[0]), int(shape[1])
        self.attributes = {k: file.attrs[k] for k in (*ATTRIBUTES, *OPTIONAL) if k in file.attrs}
        self.digest = str(file.attrs["digest"])
        self.generated = bool(file.attrs.get("generated", False))
        self.classes = tuple(str(c) for c in file.attrs["classes"] if c)
        self._offset = file["images"].id.get_offset()
        if self._offset is None:
            raise UsbenchError(f"{self.path} stores its images in chunks: make or import it again.")
        self.table = pd.DataFrame({k: _text(file[k]) if dtype is TEXT else file[k][:] for k, dtype in FIELDS.items()})
        if trouble := unsound_table(self.table):
            raise UsbenchError(f"{self.path} is no sound pack ({trouble}): make or import it again.")

    @property
    def name(self) -> str:
        """The data set's name, as it stands in tables."""
        return str(self.attributes["dataset"])

    @property
    def people(self) -> str:
        """Packs that say the same have the same patients under the same names; empty where that is not known."""
        return str(self.attributes.get("people", ""))

    @property
    def skipped(self) -> tuple[int, dict[str, str]]:
        """How many files the importer left out, and why: the first of them by name."""
        try:
            said = json.loads(str(self.attributes.get("skipped", "{}")))
            reasons = {str(name): str(reason) for name, reason in said.get("reasons", {}).items()}
            return int(said.get("count", 0)), reasons
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UsbenchError(f"{self.path} says in no way what was left out ({error}): import it again.") from None

    @property
    def images(self) -> np.ndarray:
        """(N, size, size) uint8, memory-mapped."""
        try:
            return np.memmap(self.path, np.uint8, "r", offset=self._offset, shape=(self.count, self.size, self.size))
        except (OSError, ValueError) as error:  # it was cut short since
            raise UsbenchError(f"{self.path} is not a complete pack ({error}): make or import it again.") from error

    def plane(self, name: str, indices: np.ndarray) -> np.ndarray:
        """Masks or sectors of the given images, as bool."""
        out = np.empty((len(indices), self.size, self.size), np.bool_)
        with self._reading() as file:
            for run in np.split(np.arange(len(indices)), np.flatnonzero(np.diff(indices) != 1) + 1):
                if len(run):  # neighbours in one call, which costs more than what it reads
                    first, row = int(indices[run[0]]), int(run[0])
                    file[name].read_direct(out, np.s_[first : first + len(run)], np.s_[row : row + len(run)])
        return out

    @contextlib.contextmanager
    def _reading(self) -> Iterator[h5py.File]:
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                yield file
        except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:  # a chunk that is damaged, say
            raise UsbenchError(f"{self.path} is not a complete pack ({error}): make or import it again.") from error

    def capabilities(self) -> set[str]:
        """What a plugin's `needs` can ask of this pack."""
        table = self.table
        known = {"image"}
        known |= {"mask"} if bool(table.has_mask.any()) else set()
        known |= {"label"} if bool((table.label >= 0).any()) else set()
        known |= {"time"} if bool(table.time.notna().any()) else set()
        known |= {field for field in ("tag", "patient", "device") if bool((table[field] != "").any())}
        known |= {"video"} if bool(table.video[table.video != ""].duplicated().any()) else set()
        return known

    def check(self) -> None:
        """Read everything and compare with the digest in the file."""
        with self._reading() as file:
            found = _digest(file)
        if found != self.digest:
            raise UsbenchError(f"{self.path} was changed after it was written (digest {found}, not {self.digest}).")
