"""The pack: one checked HDF5 file a data set.

Images are letter-boxed grey squares, stored contiguous and uncompressed so that they can be memory-mapped; masks and
sectors are compressed; everything known about an image stands beside it. A pack is validated when it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from usbench.data.soundness import unsound_file, unsound_table
from usbench.errors import UsbenchError

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
HEADROOM = 1.25  # what a run reads is at most this much larger than its own size: a resample from far above aliases


def side_of(size: int, pack_size: int) -> int:
    """The side at which a run of one size reads the images of a pack of another."""
    return min(round(HEADROOM * size), pack_size)


def digest_of(file: h5py.File) -> str:
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
        """How many files, or parts of a table, the importer left out, and why: the first of them by name."""
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
        numbered = (table.frame >= 0) | (table.video != "")  # of a rate, `known.describe` then makes times
        known |= {"time"} if bool((table.time.notna() | (numbered & (table.fps > 0))).any()) else set()
        known |= {field for field in ("tag", "patient", "device") if bool((table[field] != "").any())}
        known |= {"video"} if bool(table.video[table.video != ""].duplicated().any()) else set()
        return known

    def check(self) -> None:
        """Read everything and compare with the digest in the file."""
        with self._reading() as file:
            found = digest_of(file)
        if found != self.digest:
            raise UsbenchError(
                f"{self.path} was changed after it was written (digest {found}, not {self.digest}): "
                "make or import it again, and see that 'usbench data check' finds it right."
            )
