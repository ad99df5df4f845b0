"""How a pack is made: each image letter-boxed into a square, its groups linked, the file renamed when it is whole."""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image as PILImage

from usbench.data.pack import FIELDS, SCHEMA, TEXT, digest_of
from usbench.data.sink import Sink
from usbench.errors import UsbenchError
from usbench.items import Item

POSITIVE = ("pixel_mm", "fps")  # −1 or 0 in a table says that nobody knows
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
                if not isinstance(item, Item):
                    raise UsbenchError(f"a data set gave a {type(item).__name__}: items() yields usbench.Item.")
                _check_facts(item, len(classes))
                _check_planes(item)
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


def _check_facts(item: Item, classes: int) -> None:
    """Refuse what is said of an image where a pack cannot hold it, or where it would mean another thing."""
    label = item.label
    if isinstance(label, str):
        raise UsbenchError(f"the label of '{item.name}' is the text {label!r}: use self.label(text).")
    if not isinstance(label, int | np.integer) or not -1 <= label < classes:
        raise UsbenchError(
            f"the label of '{item.name}' is {label!r}, and there are {classes} classes: the place of one, or -1."
        )
    for name in ("name", "patient", "video", "tag", "device"):
        value = getattr(item, name)
        if not isinstance(value, str):
            raise UsbenchError(f"the {name} of '{item.name}' is {value!r} ({type(value).__name__}): give a text.")


def _check_planes(item: Item) -> None:
    """Refuse pixels of another form than an item's: what is no bool plane would be lesion wherever it is not 0."""
    image = item.image
    if not isinstance(image, np.ndarray) or image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        said = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
        raise UsbenchError(f"item '{item.name}' is {said}: an image is (height, width) uint8.")
    for what in ("mask", "sector"):
        plane = getattr(item, what)
        if plane is None:
            continue
        if not isinstance(plane, np.ndarray) or plane.shape != image.shape:
            said = plane.shape if isinstance(plane, np.ndarray) else f"type {type(plane).__name__}"
            raise UsbenchError(f"item '{item.name}' has a {what} of {said} for an image of {image.shape}.")
        if plane.dtype != np.bool_ and len(np.setdiff1d(plane, [0])) > 1:
            raise UsbenchError(
                f"item '{item.name}' has a {what} of {plane.dtype} with several values: give bool, as {what} > 0.5 is."
            )


def _add(item: Item, size: int, raw: Any, planes: dict[str, h5py.Dataset], columns: dict[str, list[Any]]) -> None:
    image = item.image
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
        if isinstance(value, int | np.integer) and (kept := np.dtype(FIELDS[key])).kind == "i":
            least, most = np.iinfo(kept).min, np.iinfo(kept).max
            if not least <= value <= most:
                raise UsbenchError(f"item '{item.name}' has {key} {value}: a pack keeps whole numbers up to {most}.")
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
        values = np.array(columns[key], dtype=object if dtype is TEXT else dtype)
        if key in POSITIVE:
            values[(values <= 0) | np.isinf(values)] = np.nan
        file.create_dataset(key, data=values, dtype=dtype)
    file.attrs.update({"schema": SCHEMA, "classes": list(classes) or [""], **attributes})
    file.attrs["digest"] = digest_of(file)


def _near_duplicates(file: h5py.File, folder: Path, videos: list[str]) -> list[tuple[int, int]]:
    from usbench.data.likeness import SIDE, near_duplicates, thumbnails

    with tempfile.TemporaryFile(dir=folder) as raw:
        thumbs = np.memmap(raw, np.uint8, "w+", shape=(len(videos), SIDE, SIDE))
        thumbnails(file["images"], file["sector"], thumbs)
        return [(int(i), int(j)) for i, j in near_duplicates(thumbs, videos=videos)]
