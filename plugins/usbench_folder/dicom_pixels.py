"""The pictures of a DICOM file as grey or coloured bytes, whatever way they are written and packed in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image as PILImage
from scipy import ndimage

from usbench.data.importing import Undecodable, grey_of

BY_PILLOW = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")  # JPEG, JPEG 2000
VIVID = 48  # from which the channels of a pixel differ
THIN = 100  # so many of it are the longer side: what is thinner is a caliper or writing
COLOURED, FULL_OF_COLOUR = 0.001, 0.05  # of a sector: of vivid areas, and of all that is vivid


class Pictures:
    """Of a file whose header is read: `frames` come one by one, and any thread makes bytes of one by `shown`."""

    def __init__(self, header: Any, count: int) -> None:
        from pydicom.uid import UID

        packing = header.file_meta.get("TransferSyntaxUID")
        if not isinstance(packing, UID) or not packing.is_transfer_syntax or packing.is_private:
            raise Undecodable("its header does not tell how its pictures are packed")
        self.header, self.packing = header, packing
        try:
            self._prepare(count)
        except Exception as error:  # of a damaged header, anything
            raise Undecodable("its header is damaged") from error

    def frames(self, taken: range) -> Iterator[np.ndarray]:
        """These, counted from 0, as they were written."""
        try:
            yield from self._decoded(taken)
        except Exception as error:  # of pixels that are damaged, or packed as nothing here unpacks them
            more = ": pip install python-gdcm, which may decode it" if self._lacks_decoder() else ""
            raise Undecodable(f"its pictures, packed as {self.packing.name}, cannot be decoded{more}") from error

    def shown(self, frame: np.ndarray) -> np.ndarray:
        """(H, W) or (H, W, 3) uint8 of a frame: by its palette, its window, or the bits that it uses."""
        try:
            return self._shown(frame)
        except Exception as error:  # of a palette or a window that is damaged, anything
            raise Undecodable("its header is damaged") from error

    def _shown(self, frame: np.ndarray) -> np.ndarray:
        from pydicom.pixels import apply_color_lut, apply_windowing

        if self.kind == "PALETTE COLOR":
            return (apply_color_lut(frame, self.header) >> (8 if self.deep_palette else 0)).astype(np.uint8)
        values: np.ndarray = frame
        if self.window:
            values = apply_windowing(frame, self.header)
        elif self.table is not None:
            values = self.table[(frame.astype(np.int64) - self.first).clip(0, len(self.table) - 1)]
        if values.dtype != np.uint8 or self.bits != 8:
            top = 2**self.bits - 1
            values = (values + float(self.offset)).clip(0, top).astype(np.int64)
            values = (values >> (self.bits - 8) if self.bits > 8 else values * 255 // top).astype(np.uint8)
        return 255 - values if self.kind == "MONOCHROME1" else values

    def _prepare(self, count: int) -> None:
        header = self.header
        self.kind, self.bits = str(header.PhotometricInterpretation), int(header.BitsStored)
        self.offset, self.window, self.deep_palette = 0, False, False
        self.table: np.ndarray | None = None
        if self.kind == "PALETTE COLOR":
            tables = [header.get(f"{colour}PaletteColorLookupTableData") for colour in ("Red", "Green", "Blue")]
            in_bytes = all(table and np.frombuffer(table, "<u2").max() < 256 for table in tables)
            self.deep_palette = header.RedPaletteColorLookupTableDescriptor[2] > 8 and not in_bytes
        elif self.bits > 8 and "VOILUTSequence" in header:
            voi = header.VOILUTSequence[0]
            (_, self.first, self.bits), data = map(int, voi.LUTDescriptor), voi.LUTData
            self.table = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.atleast_1d(data)
        else:
            self.offset = 2 ** (self.bits - 1) if header.PixelRepresentation == 1 else 0
            self.window = self.bits > 8 and "WindowWidth" in header
            if self.bits > 8 and not self.window and self._holds_bytes(range(count)):
                self.bits, self.offset = 8, 0

    def _holds_bytes(self, taken: range) -> bool:
        """Whether all values fit into a byte, each in a word of its own, as far as the file can be decoded."""
        try:
            return all(frame.min() >= 0 and frame.max() < 256 for frame in self._decoded(taken))
        except Exception:  # noqa: BLE001 - what came before it fits; the damage is said where the frames are wanted
            return True

    def _decoded(self, taken: range) -> Iterator[np.ndarray]:
        """Without the decoder's warnings; by Pillow where it can: of damaged files, gdcm ends the whole program."""
        from pydicom.pixels import iter_pixels

        plugin = "pillow" if self.packing in BY_PILLOW else ""
        frames = iter_pixels(self.header, indices=taken, decoding_plugin=plugin)
        while True:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if (frame := next(frames, None)) is None:
                    return
            yield frame

    def _lacks_decoder(self) -> bool:
        from pydicom.pixels import get_decoder

        try:
            return self.packing.is_compressed and not get_decoder(self.packing).is_available
        except NotImplementedError:  # as of films, which nothing of pydicom decodes
            return False


def is_coloured(picture: np.ndarray, sector: np.ndarray) -> bool:
    """Whether a picture shows more than greys in its sector, but for calipers and writing."""
    if picture.ndim == 2:
        return False
    vivid = (np.ptp(picture, axis=2) > VIVID) & sector
    if vivid.sum() > FULL_OF_COLOUR * sector.sum():
        return True
    spot = max(3, round(max(sector.shape) / THIN))
    areas = ndimage.binary_opening(vivid, np.ones((spot, spot))) if vivid.any() else vivid
    return bool(areas.sum() > COLOURED * sector.sum())


def grey(picture: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of a picture."""
    return np.ascontiguousarray(picture) if picture.ndim == 2 else grey_of(PILImage.fromarray(picture))
