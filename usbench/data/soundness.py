"""Whether an HDF5 file may be read as a pack. It may come from a stranger: it must not lead out of itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
import pandas as pd

DIGEST = re.compile(r"[0-9a-f]{16,64}")  # it names files of the data home
LONGEST = 100  # letters of a data set's name


def unsound_file(file: h5py.File, planes: Sequence[str], fields: Mapping[str, Any], text: Any) -> str:
    """What is wrong with the layout, in words, before anything is read; empty where nothing is."""
    for name in (*planes, *fields):
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            return f"its '{name}' is a link to somewhere else"
        data = file[name]
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            return f"its '{name}' does not lie in the file itself"
        if name in planes:
            if data.shape != file["images"].shape or data.dtype != (np.uint8 if name == "images" else np.bool_):
                return f"its '{name}' is {data.dtype} {data.shape}"
        elif data.ndim != 1 or (h5py.check_string_dtype(data.dtype) is None) is (fields[name] is text):
            return f"its '{name}' is {data.dtype} {data.shape}"
        elif fields[name] is not text and data.dtype != fields[name]:
            return f"its '{name}' is {data.dtype}, not {np.dtype(fields[name])}"
    if not DIGEST.fullmatch(str(file.attrs["digest"])):
        return "its digest is none"
    called = str(file.attrs["dataset"])
    if not 0 < len(called) <= LONGEST or not all(c.isalnum() or c in "-_." for c in called):
        return f"its data set cannot be called {called[:LONGEST]!r}"
    return ""


def unsound_table(table: pd.DataFrame) -> str:
    """What is wrong with the values that places and splits are made of."""
    if not table.name.is_unique or not table.name.all():
        return "its images have not one name each"
    if (table.label < -1).any() or (table.native_height < 1).any() or (table.native_width < 1).any():
        return "it has labels below -1, or images without pixels"
    if not np.isfinite(table.scale).all() or not (table.scale > 0).all():
        return "it has scales that are no positive numbers"
    return ""
