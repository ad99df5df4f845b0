"""Planes of a pack (images, masks, sectors) as uint8 and of the side that a run wants: read, or mapped from a file.

A pack larger than memory is not shrunk anew for each batch: a file of its shrunk planes is written once, into the data
home, and mapped. It is a cache: who deletes it loses only time.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from usbench.data.pack import Pack
from usbench.data.place import data_home
from usbench.data.room import SETTING
from usbench.errors import UsbenchError

CHUNK = 128  # images that are shrunk together
KEPT_DAYS = 30  # that a file of shrunk planes is kept after its last use


def shrink(planes: np.ndarray, side: int) -> Tensor:
    """(n, H, W) uint8 → (n, 1, side, side) uint8: by area when smaller, since bilinear alone would alias."""
    tensor = torch.from_numpy(np.ascontiguousarray(planes))[:, None]
    if tensor.shape[-1] == side:
        return tensor
    mode = {"mode": "area"} if tensor.shape[-1] > side else {"mode": "bilinear", "align_corners": False}
    return functional.interpolate(tensor.float(), size=(side, side), **mode).round_().clamp_(0, 255).to(torch.uint8)


def read_plane(pack: Pack, name: str, rows: np.ndarray) -> np.ndarray:
    """(n, size, size) uint8: images as they are, masks as 0 or 255, sectors as 0 or 1."""
    if name == "images":
        return pack.images[rows]
    return pack.plane(name, rows) * np.uint8(255 if name == "mask" else 1)


def chunks(rows: np.ndarray, length: int = CHUNK) -> Iterator[np.ndarray]:
    """The rows, so many at a time: what is worked on stays small, however many there are."""
    return (rows[start : start + length] for start in range(0, len(rows), length))


def mapped(pack: Pack, name: str, side: int) -> np.ndarray:
    """(N, side, side) uint8 of a whole pack, memory-mapped: its own images, or a file of what was shrunk, made once."""
    if name == "images" and side == pack.size:
        return np.asarray(pack.images)
    # Another version of torch may round otherwise.
    path = data_home() / "planes" / f"{pack.digest}-{name}-{side}-torch{torch.__version__}.u8"
    if not path.is_file() or path.stat().st_size != pack.count * side**2:
        try:
            _write(pack, name, side, path)
        except OSError as error:
            raise UsbenchError(
                f"{path}, a copy of {pack.path} at {side} px, cannot be written ({error.strerror or error}): make "
                f"room, set USBENCH_DATA to another folder, or hold the images in memory with a larger {SETTING}."
            ) from error
    with suppress(OSError):  # a data home that is only read
        os.utime(path)
    return np.asarray(np.memmap(path, np.uint8, "r", shape=(pack.count, side, side)))


def _write(pack: Pack, name: str, side: int, path: Path) -> None:
    """Write the file whole or not at all; those that nobody used for long are removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.iterdir():
        with suppress(FileNotFoundError):  # another process removes them too
            if old.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
                old.unlink()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("wb") as file:
            for rows in chunks(np.arange(pack.count)):
                file.write(shrink(read_plane(pack, name, rows), side).numpy().data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
