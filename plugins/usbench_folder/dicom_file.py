"""A DICOM file through pydicom: its pictures, where they show B-mode, how large a pixel is, whose, and when."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as PILImage

from usbench.data.importing import Undecodable, grey_of
from usbench.errors import UsbenchError

VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"  # the class of three-dimensional ultrasound, whose frames are no times
PLANE, TISSUE, FLOW = 1, 1, 2  # RegionSpatialFormat, RegionDataType (PS3.3, C.8.5.5)
CENTIMETRES = 3  # PhysicalUnitsXDirection
SAME = 0.5  # of the smaller region: two that overlap by more show one thing
SLACK = 2  # pixels by which a region may reach out; by more, the picture is no longer the one that it was measured in
SQUARE = 0.01  # by which height and width of a pixel may differ
VIVID = 64  # from which the channels of a pixel differ
COLOURED = 0.01  # of the pixels: from so many vivid ones on, a picture shows colours


class NoPicture(Exception):
    """A file that holds no B-mode; says why."""


@dataclass(frozen=True)
class View:
    """A rectangle of the picture that shows B-mode, and the size of its pixels."""

    where: tuple[slice, slice] = (slice(None), slice(None))
    pixel_mm: float = float("nan")

    @property
    def area(self) -> int:
        """In pixels."""
        height, width = (max(0, side.stop - side.start) for side in self.where)
        return height * width

    def shared_with(self, other: View) -> int:
        """How many pixels both hold."""
        inner = [
            slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(self.where, other.where, strict=True)
        ]
        return View((inner[0], inner[1])).area


@dataclass(frozen=True)
class Film:
    """What a header tells of its pictures; what it does not tell is empty or NaN."""

    header: Any
    count: int
    shape: tuple[int, int]
    views: list[View]
    times: list[float]  # of every picture, in seconds from the first
    fps: float
    patient: str
    device: str
    part: str  # of the body

    def pictures(self, every: int) -> Iterator[tuple[int, np.ndarray]]:
        """Each so many-th picture with its number: (H, W) or (H, W, 3) uint8."""
        from pydicom.pixels import apply_color_lut, iter_pixels

        header, taken = self.header, range(0, self.count, every)
        try:
            kind = str(header.PhotometricInterpretation)
            deep = kind.startswith("MONOCHROME") and header.BitsAllocated > 8
            top = max(int(picture.max()) for picture in iter_pixels(header, indices=taken)) if deep else 255
            for number, picture in zip(taken, iter_pixels(header, indices=taken), strict=True):
                if kind == "PALETTE COLOR":
                    picture = apply_color_lut(picture, header)
                    picture = picture >> 8 * (picture.dtype.itemsize - 1)
                elif deep:
                    picture = picture.clip(0) >> max(0, top.bit_length() - 8)
                picture = picture.astype(np.uint8)
                yield number, 255 - picture if kind == "MONOCHROME1" else picture
        except Exception as error:  # of pixels that are damaged, or packed as nothing here unpacks them
            raise Undecodable(f"its pictures cannot be decoded ({_said(error)})") from error


def read_film(data: bytes, *, called_so: bool) -> Film:
    """A file with the pixels not decoded yet. What shows no B-mode, or is no DICOM and not `called_so`: `NoPicture`."""
    try:
        import pydicom
    except ImportError:
        raise UsbenchError(
            "DICOM files are read by pydicom, which is not installed: pip install 'usbench[dicom]'."
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _film(pydicom.dcmread(io.BytesIO(data)))
    except pydicom.errors.InvalidDicomError:
        raise (Undecodable if called_so else NoPicture)("it is no DICOM file") from None
    except (NoPicture, Undecodable):
        raise
    except Exception as error:  # of a damaged file, its reader raises almost anything
        raise Undecodable(f"its header is damaged ({_said(error)})") from error


def is_coloured(picture: np.ndarray) -> bool:
    """Whether a picture shows more than greys."""
    return picture.ndim == 3 and bool((np.ptp(picture, axis=2) > VIVID).mean() > COLOURED)


def grey(picture: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of a picture."""
    return np.ascontiguousarray(picture) if picture.ndim == 2 else grey_of(PILImage.fromarray(picture))


def _film(header: Any) -> Film:
    if header.get("Modality", "US") != "US":
        raise NoPicture(f"its modality is {header.Modality}")
    if header.get("SOPClassUID") == VOLUME:
        raise NoPicture("it is a volume")
    if "PixelData" not in header:
        if "Rows" in header or not len(header):  # of one that ends within packed pictures, pydicom reads nothing
            raise Undecodable("it is cut off")
        raise NoPicture("it holds no picture")
    shape = int(header.Rows), int(header.Columns)
    count = int(header.get("NumberOfFrames") or 1)
    return Film(
        header, count, shape, _views(header, *shape), *_times(header, count), _text(header, "PatientID"),
        _text(header, "Manufacturer", "ManufacturerModelName"), _text(header, "BodyPartExamined").lower(),
    )  # fmt: skip


def _views(header: Any, height: int, width: int) -> list[View]:
    """The B-mode regions, the largest first; all of the picture where the header names no regions."""
    regions = list(header.get("SequenceOfUltrasoundRegions") or [])
    if not regions:
        spacing = header.get("PixelSpacing") or [float("nan")] * 2
        return [View((slice(0, height), slice(0, width)), _side(*map(float, spacing)))]
    if any(_number(region, "RegionDataType") == FLOW for region in regions):
        raise NoPicture("it shows colour Doppler")
    found: list[View] = []
    for view in sorted(map(_view, filter(_is_tissue, regions)), key=lambda view: -view.area):
        rows, columns = view.where
        fits = rows.stop <= height + SLACK and columns.stop <= width + SLACK
        where = slice(rows.start, min(height, rows.stop)), slice(columns.start, min(width, columns.stop))
        inside = View(where, view.pixel_mm if fits else float("nan"))
        if inside.area and all(inside.shared_with(other) <= SAME * inside.area for other in found):
            found.append(inside)
    if not found:
        raise NoPicture("none of its regions is two-dimensional B-mode")
    return found


def _is_tissue(region: Any) -> bool:
    return _number(region, "RegionSpatialFormat") == PLANE and _number(region, "RegionDataType") == TISSUE


def _view(region: Any) -> View:
    """One region, whose last row and column belong to it."""
    left, top, right, bottom = (
        max(0, int(region[f"RegionLocation{end}"].value)) for end in ("MinX0", "MinY0", "MaxX1", "MaxY1")
    )
    sizes = [10 * _number(region, f"PhysicalDelta{axis}") for axis in "XY"]
    metric = all(_number(region, f"PhysicalUnits{axis}Direction") == CENTIMETRES for axis in "XY")
    return View((slice(top, bottom + 1), slice(left, right + 1)), _side(*sizes) if metric else float("nan"))


def _times(header: Any, count: int) -> tuple[list[float], float]:
    """When each picture was taken, and how many a second."""
    unknown = float("nan")
    steps = np.atleast_1d(np.asarray(header.get("FrameTimeVector") or [], np.float64)) / 1000
    if len(steps) == count > 1:  # the first one says how long after nothing the first picture was taken
        times = np.cumsum(steps) - steps[0]
        step = float(np.median(steps[1:]))
        return times.tolist(), 1 / step if step > 0 else unknown
    rates = [1000 / step for step in [_number(header, "FrameTime")] if step > 0]
    rates += [_number(header, name) for name in ("CineRate", "RecommendedDisplayFrameRate")]
    rate = next((rate for rate in rates if rate > 0), unknown) if count > 1 else unknown
    return [number / rate for number in range(count)], rate


def _side(height: float, width: float) -> float:
    """Of a pixel; NaN where it is no square, whose distances one number cannot say."""
    height, width = abs(height), abs(width)
    return width if abs(width - height) <= SQUARE * width else float("nan")


def _number(header: Any, name: str) -> float:
    value = header.get(name)
    return float("nan") if value in (None, "") else float(value)


def _text(header: Any, *names: str) -> str:
    return " ".join(" ".join(str(header.get(name) or "").split()) for name in names).strip()


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
