"""What the header of a DICOM file tells of its pictures: where they show B-mode, how large a pixel is, whose, and when.

Texts of a header may name a patient, and in a damaged one any field may: none is repeated in a message.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from usbench.data.importing import Undecodable
from usbench.errors import UsbenchError

PICTURES = ("1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.6")  # how the classes of ultrasound begin
DIRECTORY = "1.2.840.10008.1.3.10"
DEFLATED = b"1.2.840.10008.1.2.1.99"  # which may grow without a bound
VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"  # the class of three-dimensional ultrasound, whose frames are no times
OTHERS = ("CR", "CT", "DX", "ES", "IVUS", "KO", "MG", "MR", "NM", "OT", "PR", "PT", "RF", "SC", "SEG", "SR", "XA", "XC")
PLANE, TISSUE, FLOW = 1, 1, 2  # RegionSpatialFormat, RegionDataType (PS3.3, C.8.5.5)
PLAIN = {  # what is implicit, and little-endian
    (True, True): "1.2.840.10008.1.2", (False, True): "1.2.840.10008.1.2.1", (False, False): "1.2.840.10008.1.2.2"
}  # fmt: skip
CENTIMETRES = 3  # PhysicalUnitsXDirection
SAME = 0.5  # of the smaller region: two that overlap by more show one thing
SLACK = 2  # pixels by which a region may reach out of its picture
SQUARE = 0.01  # by which height and width of a pixel may differ
SLOWEST, FASTEST = 0.01, 1000.0  # frames a second
MOST = 100_000  # frames
LARGEST = 64_000_000  # pixels


class NoPicture(Exception):
    """A file that holds no B-mode; says why."""


@dataclass(frozen=True)
class View:
    """A rectangle of the picture that shows B-mode, and the size of its pixels."""

    rows: slice
    columns: slice
    pixel_mm: float = float("nan")

    @property
    def area(self) -> int:
        """In pixels."""
        return max(0, self.rows.stop - self.rows.start) * max(0, self.columns.stop - self.columns.start)

    def of(self, picture: np.ndarray) -> np.ndarray:
        """What a picture shows there."""
        return picture[self.rows, self.columns]

    def within(self, other: View) -> View:
        """The part that lies in another one."""
        return View(_inner(self.rows, other.rows), _inner(self.columns, other.columns), self.pixel_mm)


@dataclass(frozen=True)
class Film:
    """What a header tells of its pictures; what it does not tell is empty or NaN."""

    header: Any
    views: list[View]
    times: np.ndarray  # of every picture, in seconds from the first
    fps: float
    persons: tuple[Hashable, ...]  # what tells who it is, the surest first
    device: str
    part: str  # of the body

    @property
    def shape(self) -> tuple[int, int]:
        """Of a picture."""
        return int(self.header.Rows), int(self.header.Columns)


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins so says that it is DICOM."""
    return start[128:132] == b"DICM"


def read_film(data: bytes) -> Film:
    """A file with the pixels not decoded yet; one that shows no B-mode raises `NoPicture`."""
    try:
        import pydicom
    except ImportError:
        raise UsbenchError(
            "DICOM files are read by pydicom, which is not installed: pip install 'usbench[dicom]'."
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if DEFLATED in data[:1024]:
                raise Undecodable("it is deflated: unpack it first")
            header = pydicom.dcmread(io.BytesIO(data), force=not is_dicom(data))
            header.buffer = None  # the whole file a second time
            if "TransferSyntaxUID" not in header.file_meta and not is_dicom(data):
                header.file_meta.TransferSyntaxUID = pydicom.uid.UID(PLAIN[header.original_encoding])
            return _film(header)
    except (NoPicture, Undecodable):
        raise
    except Exception as error:  # of a damaged file, its reader raises almost anything
        raise Undecodable("its header is damaged") from error


def _film(header: Any) -> Film:
    kind = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    if kind == DIRECTORY:
        raise NoPicture("it is a directory of others")
    if not kind or not len(header):  # where a file ends within packed pictures, pydicom reads nothing of it
        raise Undecodable("it is cut off" if kind else "it is no DICOM file")
    modality = _text(header, "Modality") or "US"
    if modality != "US":
        raise NoPicture(f"its modality is {modality if modality in OTHERS else 'another'}")
    if kind == VOLUME:
        raise NoPicture("it is a volume")
    if "PixelData" not in header:
        if kind.startswith(PICTURES):
            raise Undecodable("it is cut off")
        raise NoPicture("it holds no picture")
    count = int(header.get("NumberOfFrames") or 1)
    height, width = int(header.Rows), int(header.Columns)
    if not 0 < count <= MOST or not 0 < height * width <= LARGEST:
        raise Undecodable(f"its header tells of {count:,} pictures of {width} × {height} pixels")
    return Film(
        header, _views(header, View(slice(0, height), slice(0, width))), *_times(header, count), _persons(header),
        " ".join(filter(None, (_text(header, name) for name in ("Manufacturer", "ManufacturerModelName")))),
        _text(header, "BodyPartExamined", 16).lower(),
    )  # fmt: skip


def _views(header: Any, picture: View) -> list[View]:
    """The B-mode regions, the largest first; all of the picture where the header names no regions."""
    regions = list(header.get("SequenceOfUltrasoundRegions") or [])
    if not regions:
        if _text(header, "BurnedInAnnotation").upper() == "YES":
            raise NoPicture("its header says that text is burnt in, and names no regions")
        return [View(picture.rows, picture.columns, _side(*(_numbers(header, "PixelSpacing")[:2] or [0])))]
    room = View(slice(0, picture.rows.stop + SLACK), slice(0, picture.columns.stop + SLACK))
    if any(view.within(room).area < view.area for view in map(_view, regions)):
        raise NoPicture("its regions were measured in a larger picture")
    planes = [region for region in regions if _number(region, "RegionSpatialFormat") == PLANE]
    flows = [_view(region) for region in planes if _number(region, "RegionDataType") == FLOW]
    tissue = [_view(region) for region in planes if _number(region, "RegionDataType") == TISSUE]
    found: list[View] = []
    for view in sorted((view.within(picture) for view in tissue), key=lambda view: -view.area):
        if any(view.within(flow).area > SAME * flow.area for flow in flows):
            continue
        if view.area and all(view.within(other).area <= SAME * view.area for other in found):
            found.append(view)
    if not found:
        raise NoPicture("it shows colour Doppler" if flows else "none of its regions is two-dimensional B-mode")
    return found


def _view(region: Any) -> View:
    """One region, whose last row and column belong to it."""
    left, top, right, bottom = (
        max(0, int(region[f"RegionLocation{end}"].value)) for end in ("MinX0", "MinY0", "MaxX1", "MaxY1")
    )
    metric = all(_number(region, f"PhysicalUnits{axis}Direction") == CENTIMETRES for axis in "XY")
    side = 10 * _side(*(_number(region, f"PhysicalDelta{axis}") for axis in "XY"))
    return View(slice(top, bottom + 1), slice(left, right + 1), side if metric else float("nan"))


def _inner(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _times(header: Any, count: int) -> tuple[np.ndarray, float]:
    """When each picture was taken, and how many a second; where no clock tells, as fast as they are to be shown."""
    steps = np.array(_numbers(header, "FrameTimeVector")) / 1000
    if len(steps) == count > 1 and all(1 / FASTEST <= step <= 1 / SLOWEST for step in steps[1:]):
        step = float(np.median(steps[1:]))
        return np.cumsum(steps) - steps[0], 1 / step  # the first says how long after nothing the first was taken
    rates = [1000 / step for step in _numbers(header, "FrameTime") if step > 0]
    rates += [_number(header, name) for name in ("CineRate", "RecommendedDisplayFrameRate")]
    rate = next((rate for rate in rates if SLOWEST <= rate <= FASTEST), float("nan")) if count > 1 else float("nan")
    return np.arange(count) / rate, rate


def _side(width: float, height: float = 0) -> float:
    """Of a pixel; NaN where it is no square, whose distances one number cannot say."""
    width, height = abs(width), abs(height)
    return width if width and abs(width - height) <= SQUARE * width else float("nan")


def _persons(header: Any) -> tuple[Hashable, ...]:
    """The number, whoever gave it, name and birth, and the study, which is of one patient; as many as are known."""
    known = [
        tuple(_text(header, name) for name in names)
        for names in (("PatientID",), ("PatientName", "PatientBirthDate"), ("StudyInstanceUID",))
    ]
    return tuple(each for each in known if each[0])


def _numbers(header: Any, name: str) -> list[float]:
    try:
        return [float(value) for value in np.atleast_1d(header.get(name) or [])]
    except (ValueError, TypeError):
        return []


def _number(header: Any, name: str) -> float:
    return next(iter(_numbers(header, name)), float("nan"))


def _text(header: Any, name: str, longest: int = 64) -> str:
    """A short text, the first of several; empty where a damaged header gives what is none."""
    value = header.get(name) or ""
    value = value if isinstance(value, str) or not np.ndim(value) else value[0]
    text = " ".join(str(value).split())
    return text if text.isprintable() and len(text) <= longest else ""
