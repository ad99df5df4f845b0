"""The pictures of a DICOM file as grey or coloured bytes, whatever way they are written and packed in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image as PILImage
from scipy import ndimage

from usbench.data.importing import Undecodable, grey_of

VIVID = 48  # from which the channels of a pixel differ
SPOT = 5  # pixels: what is thinner is a caliper or writing
COLOURED = 0.001  # of the picture


def pictures(header: Any, taken: range) -> Iterator[np.ndarray]:
    """These frames, counted from 0: (H, W) or (H, W, 3) uint8."""
    packing = header.file_meta.get("TransferSyntaxUID")
    if not packing or not packing.is_transfer_syntax or packing.is_private:
        raise Undecodable("its header does not tell how its pictures are packed")
    try:
        shown = _as_bytes(header, lambda: _decoded(header, packing, taken))
        for picture in _decoded(header, packing, taken):
            yield shown(picture)
    except Exception as error:  # of pixels that are damaged, or packed as nothing here unpacks them
        more = ": pip install python-gdcm, which may decode it" if _lacks_decoder(packing) else ""
        raise Undecodable(f"its pictures, packed as {packing.name}, cannot be decoded{more}") from error


def is_coloured(picture: np.ndarray, sector: np.ndarray) -> bool:
    """Whether a picture shows more than greys in its sector, but for calipers and writing."""
    if picture.ndim == 2:
        return False
    vivid = (np.ptp(picture, axis=2) > VIVID) & sector
    return bool(vivid.any() and ndimage.binary_opening(vivid, np.ones((SPOT, SPOT))).mean() > COLOURED)


def grey(picture: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of a picture."""
    return np.ascontiguousarray(picture) if picture.ndim == 2 else grey_of(PILImage.fromarray(picture))


def _as_bytes(header: Any, all_of_them: Callable[[], Iterator[np.ndarray]]) -> Callable[[np.ndarray], np.ndarray]:
    """How a decoded frame of this file becomes bytes: by its palette, its window, or the bits that it uses."""
    from pydicom.pixels import apply_color_lut, apply_voi_lut

    kind, bits = str(header.PhotometricInterpretation), int(header.BitsStored)
    if kind == "PALETTE COLOR":
        colours = ("Red", "Green", "Blue")
        tables = [header.get(f"{colour}PaletteColorLookupTableData") for colour in colours]
        deep = header.RedPaletteColorLookupTableDescriptor[2] > 8
        if deep and all(table and np.frombuffer(table, "<u2").max() < 256 for table in tables):
            deep = False  # bytes, each in a word of its own
        return lambda picture: (apply_color_lut(picture, header) >> (8 if deep else 0)).astype(np.uint8)
    windowed = bits > 8 and ("WindowWidth" in header or "VOILUTSequence" in header)
    if bits > 8 and not windowed and max(int(picture.max()) for picture in all_of_them()) < 256:
        bits = 8  # bytes, each in a word of its own
    top = 2**bits - 1

    def shown(picture: np.ndarray) -> np.ndarray:
        values = (apply_voi_lut(picture, header) if windowed else picture).clip(0, top).astype(np.int64)
        values = (values >> (bits - 8) if bits > 8 else values * 255 // top).astype(np.uint8)
        return 255 - values if kind == "MONOCHROME1" else values

    return shown


def _decoded(header: Any, packing: Any, taken: range) -> Iterator[np.ndarray]:
    """Without the decoder's warnings; by Pillow where it can: of damaged files, gdcm ends the whole program."""
    from pydicom.pixels import get_decoder, iter_pixels

    by_pillow = packing.is_compressed and "pillow" in get_decoder(packing).available_plugins
    frames = iter_pixels(header, indices=taken, decoding_plugin="pillow" if by_pillow else "")
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if (picture := next(frames, None)) is None:
                return
        yield picture


def _lacks_decoder(packing: Any) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return packing.is_compressed and not get_decoder(packing).is_available
    except NotImplementedError:  # as of films, which nothing of pydicom decodes
        return False
