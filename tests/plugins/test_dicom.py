"""DICOM files of one's own: what their headers know, and what of them is no B-mode."""

from __future__ import annotations

import io
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature import box, grey, save
from PIL import Image
from pydicom import dcmread, examples
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from usbench.errors import UsbenchError

STILL, CLIP, VOLUME = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("6.1", "3.1", "6.2"))
SHAPE = (40, 48)


def region(kind: int = 1, form: int = 1, at: tuple[int, int, int, int] = (8, 4, 39, 33), **more: Any) -> Dataset:
    """A region from left, top to right, bottom, these included, whose pixels are 0.2 mm wide."""
    made = Dataset()
    made.RegionDataType, made.RegionSpatialFormat = kind, form
    made.RegionLocationMinX0, made.RegionLocationMinY0, made.RegionLocationMaxX1, made.RegionLocationMaxY1 = at
    made.PhysicalUnitsXDirection = made.PhysicalUnitsYDirection = 3
    made.PhysicalDeltaX, made.PhysicalDeltaY = 0.02, 0.02
    for name, value in more.items():
        setattr(made, name, value)
    return made


def write(
    path: Path, pixels: np.ndarray, *regions: Dataset, jpeg: bool = False, rle: bool = False, **more: Any
) -> Path:
    """A DICOM file of (H, W), (H, W, 3), or with frames before these; `jpeg` packs it as scanners pack clips."""
    made, meta = Dataset(), FileMetaDataset()
    coloured = pixels.shape[-1] == 3
    frames = pixels if pixels.ndim == 3 + coloured else pixels[None]
    made.SOPClassUID = meta.MediaStorageSOPClassUID = STILL if len(frames) == 1 else CLIP
    made.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    made.file_meta, made.Modality, made.PatientID, made.PatientName = meta, "US", "4711", "Doe^Jane"
    made.Manufacturer, made.ManufacturerModelName = "Acme ", "Sono 3"
    made.Rows, made.Columns = frames.shape[1:3]
    made.SamplesPerPixel, made.PixelRepresentation, made.PlanarConfiguration = 1 + 2 * coloured, 0, 0
    made.PhotometricInterpretation = ("YBR_FULL_422" if jpeg else "RGB") if coloured else "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8 * frames.itemsize
    made.HighBit = made.BitsStored - 1
    if len(frames) > 1:
        made.NumberOfFrames = len(frames)
    if regions:
        made.SequenceOfUltrasoundRegions = list(regions)
    made.PixelData = encapsulate([_jpeg(frame) for frame in frames]) if jpeg else frames.tobytes()
    if jpeg:
        made["PixelData"].is_undefined_length = True
    for name, value in more.items():
        setattr(made, name, value)
    if rle:
        made.compress(RLELossless)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def _jpeg(frame: np.ndarray) -> bytes:
    packed = io.BytesIO()
    Image.fromarray(frame).save(packed, "JPEG", quality=95)
    return packed.getvalue()


def test_a_still_is_cut_to_its_region_and_says_what_its_header_knows(tmp_path: Path, read: Any) -> None:
    write(tmp_path / "a/IM1.dcm", grey(1), region(), BodyPartExamined="BREAST")
    write(tmp_path / "b/IM1", grey(2), PatientID="0815", PixelSpacing=[0.3, 0.3])
    write(tmp_path / "c/1.2.840.7", grey(3))
    items = read("dicom", tmp_path)
    assert list(items) == ["a/IM1", "b/IM1", "c/1.2.840.7"]
    first, second, third = items.values()
    np.testing.assert_array_equal(first.image, grey(1)[4:34, 8:40])
    assert (first.tag, first.device, first.video, first.frame, first.mask) == ("breast", "Acme Sono 3", "", -1, None)
    assert first.pixel_mm == pytest.approx(0.2) and second.pixel_mm == pytest.approx(0.3) and np.isnan(third.pixel_mm)
    np.testing.assert_array_equal(second.image, grey(2))


def test_patients_are_told_apart_and_not_named(tmp_path: Path, imported: Callable[..., Any]) -> None:
    for number, patient in enumerate(("4711", "0815", "4711", "4711")):
        write(tmp_path / "s" / f"{number}.dcm", grey(number), PatientID=patient)
    pack = imported("dicom", tmp_path / "s")
    assert list(pack.table.patient) == ["p1", "p2", "p1", "p1"]
    raw = pack.path.read_bytes()
    assert b"4711" not in raw and b"Doe" not in raw


def test_without_a_number_name_and_birth_or_the_study_say_who_it_is(tmp_path: Path, read: Any) -> None:
    for number, study in enumerate(("1.2", "1.2", "1.3")):
        write(tmp_path / f"a{number}", grey(number), PatientID="", PatientName="", StudyInstanceUID=study)
        born = {"PatientID": "", "PatientBirthDate": "19700101"}
        write(tmp_path / f"b{number}", grey(number), StudyInstanceUID=f"2{study}", **born)
    write(tmp_path / "c", grey(1), PatientID="", PatientName="")
    assert [item.patient for item in read("dicom", tmp_path).values()] == ["p1", "p1", "p2", "p3", "p3", "p3", ""]


@pytest.mark.parametrize("order", ["abc", "bca", "cab", "cba"])
def test_a_file_that_tells_less_is_of_whom_the_rest_of_its_study_is_of(order: str, tmp_path: Path, read: Any) -> None:
    study = {"a": {"PatientID": "4711"}, "b": {"PatientID": "", "PatientName": ""}, "c": {"PatientID": ""}}
    for number, which in enumerate(order):
        write(tmp_path / f"{number}", grey(number), StudyInstanceUID="1.2", **study[which])
    write(tmp_path / "z", grey(9), StudyInstanceUID="1.3", PatientID="0815", PatientName="Roe")
    assert [item.patient for item in read("dicom", tmp_path).values()] == ["p1", "p1", "p1", "p2"]


def test_a_study_that_all_files_share_tells_nothing_of_patients_with_numbers(tmp_path: Path, read: Any) -> None:
    for number in range(3):
        write(tmp_path / f"{number}", grey(number), PatientID=f"{number}", StudyInstanceUID="1.2")
    assert [item.patient for item in read("dicom", tmp_path).values()] == ["p1", "p2", "p3"]


def test_a_damaged_header_puts_no_name_on_the_screen(tmp_path: Path, imported: Callable[..., Any]) -> None:
    write(tmp_path / "s/good.dcm", grey(1))
    file = write(tmp_path / "s/other.dcm", grey(2), Modality="MR")
    raw = bytearray(file.read_bytes())
    raw[raw.index(b"\x08\x00\x60\x00CS") + 6] = 0x60  # the length of a text, which then runs into the next ones
    file.write_bytes(raw)
    pack = imported("dicom", tmp_path / "s", "--skip-broken")
    assert pack.skipped[0] == 1 and b"Doe" not in pack.path.read_bytes()


@pytest.mark.parametrize("jpeg", [False, True])
@pytest.mark.parametrize(
    ("header", "times", "rate"),
    [
        ({"FrameTime": 40}, [0, 0.08, 0.16], 25),
        ({"CineRate": 20}, [0, 0.1, 0.2], 20),
        ({"FrameTimeVector": [0, 10, 10, 10, 20]}, [0, 0.02, 0.05], 100),
        ({"FrameTimeVector": [0, 0, 0, 0, 0], "FrameTime": 40}, [0, 0.08, 0.16], 25),
        ({"FrameTimeVector": [0, 10, 10, -90, 10], "CineRate": 20}, [0, 0.1, 0.2], 20),
        ({"FrameTime": 0.04, "CineRate": 20}, [0, 0.1, 0.2], 20),
        ({}, [np.nan] * 3, np.nan),
    ],
    ids=lambda value: next(iter(value), "none") if isinstance(value, dict) else "",
)
def test_a_clip_is_its_frames_with_their_times(
    header: dict[str, Any], times: list[float], rate: float, jpeg: bool, tmp_path: Path, read: Any
) -> None:
    frames = np.stack([np.full((*SHAPE, 3), 40 + 20 * number, np.uint8) for number in range(5)])
    write(tmp_path / "clip.dcm", frames, region(), jpeg=jpeg, **header)
    items = read("dicom", tmp_path, every=2)
    assert list(items) == ["clip/1", "clip/3", "clip/5"]
    assert [(item.video, item.frame) for item in items.values()] == [("clip", 1), ("clip", 3), ("clip", 5)]
    np.testing.assert_allclose([item.time for item in items.values()], times)
    np.testing.assert_allclose([item.fps for item in items.values()], [rate] * 3)
    for item in items.values():
        assert item.image.shape == (30, 32) and abs(float(item.image.mean()) - 20 - 20 * item.frame) < 3


@pytest.mark.parametrize(
    ("regions", "header", "reason"),
    [
        ([region(), region(kind=2)], {}, "it shows colour Doppler"),
        ([region(form=2)], {}, "none of its regions is two-dimensional B-mode"),
        ([region(kind=3, form=3)], {}, "none of its regions is two-dimensional B-mode"),
        ([region(at=(8, 4, 60, 33))], {}, "its regions were measured in a larger picture"),
        ([region(), region(kind=3, form=2, at=(8, 34, 60, 39))], {}, "its regions were measured in a larger picture"),
        ([], {"BurnedInAnnotation": "YES"}, "its header says that text is burnt in, and names no regions"),
        ([], {"Modality": "CT"}, "its modality is CT"),
        ([], {"Modality": "DOE"}, "its modality is another"),
        ([], {"SOPClassUID": "1.2.840.10008.1.3.10"}, "it is a directory of others"),
        ([], {"SOPClassUID": VOLUME}, "it is a volume"),
    ],
)
def test_what_is_no_b_mode_is_left_out_and_said(
    regions: list[Dataset], header: dict[str, Any], reason: str, tmp_path: Path, read: Any
) -> None:
    write(tmp_path / "good.dcm", grey(1))
    write(tmp_path / "other.dcm", grey(2), *regions, **header)
    assert list(read("dicom", tmp_path)) == ["good"]
    assert read.last.skipped == {"other.dcm": reason}


def test_a_report_is_left_out(tmp_path: Path, read: Any) -> None:
    write(tmp_path / "good.dcm", grey(1))
    report = dcmread(write(tmp_path / "report.dcm", grey(2)))
    del report.PixelData
    report.save_as(tmp_path / "report.dcm")
    with pytest.raises(UsbenchError, match=r"'report\.dcm' cannot be used: it is cut off"):
        read("dicom", tmp_path)
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"  # of reports
    report.save_as(tmp_path / "report.dcm")
    assert list(read("dicom", tmp_path)) == ["good"] and read.last.skipped == {"report.dcm": "it holds no picture"}


def test_frames_with_colours_are_left_out_and_grey_ones_in_colour_are_not(tmp_path: Path, read: Any) -> None:
    frames = np.repeat(np.stack([grey(number) for number in range(3)])[..., None], 3, -1)
    frames[:, 20, 12:36] = (255, 255, 0)  # a caliper
    frames[:, :3] = (0, 0, 255)  # the scanner's own decoration, outside of the region
    write(tmp_path / "plain.dcm", frames, region())
    frames[1, 10:20, 10:20] = (70, 10, 10)
    write(tmp_path / "some.dcm", frames, region())
    write(tmp_path / "still.dcm", frames[1], region())
    frames[:, 10:20, 10:20] = (250, 30, 20)
    write(tmp_path / "all.dcm", frames, region())
    assert list(read("dicom", tmp_path)) == ["plain/1", "plain/2", "plain/3", "some/1", "some/3"]
    what = {"all.dcm": "every picture of it", "some.dcm": "a part of its pictures", "still.dcm": "it"}
    said = "shows colours, as of Doppler, elastography or a tinted map"
    assert read.last.skipped == {file: f"{which} {said}" for file, which in what.items()}


def test_beside_colours_the_plain_half_is_taken(tmp_path: Path, read: Any) -> None:
    left, right, flow = region(at=(0, 0, 19, 39)), region(at=(24, 0, 47, 39)), region(kind=2, at=(26, 5, 40, 20))
    picture = np.repeat(grey(1)[..., None], 3, -1)
    write(tmp_path / "a.dcm", picture, left, right, flow)
    picture[5:21, 26:41] = (250, 30, 20)
    write(tmp_path / "b.dcm", picture, left, right)
    assert [item.image.shape for item in read("dicom", tmp_path).values()] == [(40, 20), (40, 20)]


def test_two_pictures_side_by_side_are_two_images_and_a_region_named_twice_is_one(tmp_path: Path, read: Any) -> None:
    left, right = region(at=(0, 0, 19, 39)), region(at=(24, 0, 47, 39), PhysicalDeltaX=0.04, PhysicalDeltaY=0.04)
    write(tmp_path / "dual.dcm", grey(1), left, right, region(at=(25, 1, 46, 38)))
    items = read("dicom", tmp_path)
    assert {name: item.image.shape for name, item in items.items()} == {"dual": (40, 24), "dual/r2": (40, 20)}
    assert [round(item.pixel_mm, 3) for item in items.values()] == [0.4, 0.2]
    write(tmp_path / "dual.dcm", np.stack([grey(1), grey(2)]), left, right, PatientID="", PatientName="")
    items = read("dicom", tmp_path)
    assert [item.video for item in items.values()] == ["dual", "dual/r2"] * 2
    assert list(items) == ["dual/1", "dual/1/r2", "dual/2", "dual/2/r2"]
    assert {item.patient for item in items.values()} == {"p1"}


@pytest.mark.parametrize(
    ("more", "size"),
    [({"PhysicalDeltaY": -0.02}, 0.2), ({"PhysicalDeltaY": 0.03}, None), ({"PhysicalUnitsXDirection": 4}, None)],
)
def test_pixels_have_a_size_where_they_are_square_and_their_unit_is_a_length(
    more: dict[str, Any], size: float | None, tmp_path: Path, read: Any
) -> None:
    write(tmp_path / "a.dcm", grey(1), region(**more))
    assert read("dicom", tmp_path)["a"].pixel_mm == pytest.approx(size or float("nan"), nan_ok=True)


def test_every_way_of_writing_greys_is_read(tmp_path: Path, read: Any) -> None:
    plain = grey(1)
    write(tmp_path / "inverted.dcm", 255 - plain, PhotometricInterpretation="MONOCHROME1")
    write(tmp_path / "deep.dcm", plain.astype(np.uint16) * 16, BitsStored=12, HighBit=11)
    window = {"WindowCenter": 1152, "WindowWidth": 256, "VOILUTFunction": "LINEAR_EXACT"}
    write(tmp_path / "windowed.dcm", plain.astype(np.uint16) + 1024, BitsStored=12, HighBit=11, **window)
    write(tmp_path / "few_values.dcm", plain.astype(np.uint16))
    signed = plain.astype(np.int16) * 16 - 2048
    write(tmp_path / "signed.dcm", signed, BitsStored=12, HighBit=11, PixelRepresentation=1)
    for name, bits in (("table", 8), ("wide_table", 16)):
        table = Dataset()
        table.LUTDescriptor = [4096, 0, bits]
        table.LUTData = ((np.arange(4096) * 2**bits) // 4096).astype("<u2").tobytes()
        table["LUTData"].VR = "OW"
        write(tmp_path / f"{name}.dcm", plain.astype(np.uint16) * 16, BitsStored=12, HighBit=11, VOILUTSequence=[table])
    write(tmp_path / "rgb.dcm", np.repeat(plain[..., None], 3, -1))
    write(tmp_path / "lossless.dcm", np.repeat(plain[..., None], 3, -1), rle=True)
    ramp = (np.arange(256, dtype=np.uint16) * 257).tobytes()
    palette = {
        f"{colour}PaletteColorLookupTable{part}": value
        for colour in ("Red", "Green", "Blue")
        for part, value in (("Descriptor", [256, 0, 16]), ("Data", ramp))
    }
    write(tmp_path / "palette.dcm", plain, PhotometricInterpretation="PALETTE COLOR", **palette)
    shallow = {key: np.arange(256, dtype="<u2").tobytes() if key.endswith("Data") else palette[key] for key in palette}
    write(tmp_path / "shallow.dcm", plain, PhotometricInterpretation="PALETTE COLOR", **shallow)
    items = read("dicom", tmp_path)
    assert len(items) == 11
    for item in items.values():
        np.testing.assert_allclose(item.image, plain, atol=item.name == "windowed", err_msg=item.name)


def test_a_frame_is_as_bright_whichever_others_are_taken(tmp_path: Path, read: Any) -> None:
    frames = np.stack([grey(1).astype(np.uint16), grey(1).astype(np.uint16) * 16, grey(1)])
    write(tmp_path / "a.dcm", frames, BitsStored=12, HighBit=11)
    one, two = read("dicom", tmp_path, every=1)["a/1"], read("dicom", tmp_path, every=2)["a/1"]
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.image, grey(1) >> 4)


def test_a_clip_of_words_that_ends_early_is_as_bright_as_a_whole_one(
    tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.dcm", np.stack([grey(1), grey(2)]).astype(np.uint16), rle=True)
    made = dcmread(file)
    made.NumberOfFrames = 4
    made.save_as(file)
    monkeypatch.setattr("usbench.items.Dataset.skip_broken", True)
    items = read("dicom", tmp_path)
    assert list(items) == ["a/1", "a/2"]
    np.testing.assert_array_equal(items["a/2"].image, grey(2))


def test_thin_flow_is_colour_where_there_is_much_of_it(tmp_path: Path, read: Any) -> None:
    picture = np.repeat(grey(1, (400, 480))[..., None], 3, -1)
    picture[:, 240:243] = (255, 255, 0)
    write(tmp_path / "line.dcm", picture)
    picture[::16] = picture[1::16] = (250, 20, 20)
    write(tmp_path / "stripes.dcm", picture)
    assert list(read("dicom", tmp_path)) == ["line"]


def test_a_file_without_preamble_or_head_is_read_where_it_is_called_dicom(tmp_path: Path, read: Any) -> None:
    raw = write(tmp_path / "a.dcm", grey(1)).read_bytes()
    meta = 132 + 12 + int.from_bytes(raw[140:144], "little")  # the first of the head says how long it is
    (tmp_path / "a.dcm").write_bytes(raw[132:])
    (tmp_path / "b.dcm").write_bytes(raw[meta:])
    for item in read("dicom", tmp_path).values():
        np.testing.assert_array_equal(item.image, grey(1))


def test_all_that_was_left_out_of_a_clip_is_said(tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.repeat(np.stack([grey(number) for number in range(4)])[..., None], 3, -1)
    frames[0, 5:25, 15:35] = (250, 30, 20)
    write(tmp_path / "s/a.dcm", frames, region())
    (tmp_path / "table.csv").write_text("name\ns/a/1\na/2\ns/a.dcm/4\n")
    for frame in (1, 2, 3, 4):
        save(tmp_path / f"masks/s/a/{frame}.png", box(1, 2, 2, 2) if frame == 2 else box(10, 20))
    monkeypatch.setattr("usbench.items.Dataset.skip_broken", True)
    assert list(read("dicom", tmp_path)) == ["s/a/4"]
    part, colours = "a part of its pictures", "colours, as of Doppler, elastography or a tinted map"
    assert read.last.skipped == {
        "s/a.dcm": f"{part} shows {colours}; {part} has a mask that cannot be used; {part} has no row in the table",
        "masks/s/a/1.png": "its picture is left out",
        "masks/s/a/2.png": "the mask of 's/a/2' lies outside of the regions that are B-mode",
        "masks/s/a/3.png": "its picture is left out",
    }


def test_masks_are_cut_with_their_pictures(tmp_path: Path, read: Any) -> None:
    write(tmp_path / "s/a.dcm", grey(1), region())
    write(tmp_path / "s/clip", np.stack([grey(2), grey(3)]))
    save(tmp_path / "masks/s/a_1.png", box(2, 10))
    save(tmp_path / "masks/s/a_2.png", box(20, 20))
    save(tmp_path / "masks/s/clip/1_mask.png", box(5, 5))
    save(tmp_path / "masks/s/b.png", box(5, 5))
    items = read("dicom", tmp_path)
    np.testing.assert_array_equal(items["s/a"].mask, (box(2, 10) | box(20, 20))[4:34, 8:40])
    np.testing.assert_array_equal(items["s/clip/1"].mask, box(5, 5))
    assert items["s/clip/2"].mask is None
    assert read.last.skipped == {"masks/s/b.png": "it belongs to no image of the set"}


def test_a_mask_is_that_of_the_region_that_it_marks(tmp_path: Path, read: Any) -> None:
    left, right = region(at=(0, 0, 19, 39)), region(at=(24, 0, 47, 39))
    for name in ("lesion", "normal", "beside"):
        write(tmp_path / "s" / f"{name}.dcm", grey(1), left, right)
    save(tmp_path / "s/masks/lesion.png", box(5, 2))
    save(tmp_path / "s/masks/normal.png", np.zeros(SHAPE, np.bool_))
    (tmp_path / "s/beside.dcm").rename(tmp_path / "beside.dcm")
    items = read("dicom", tmp_path / "s")
    assert items["lesion"].mask is None and items["lesion/r2"].mask.any()  # the larger region comes first
    assert not items["normal"].mask.any() and not items["normal/r2"].mask.any()
    (tmp_path / "beside.dcm").rename(tmp_path / "s/beside.dcm")
    save(tmp_path / "s/masks/beside.png", box(2, 20, 5, 4))
    with pytest.raises(UsbenchError, match="the mask of 'beside' lies outside of the regions that are B-mode"):
        read("dicom", tmp_path / "s")


def test_the_folder_that_holds_all_may_be_named_from_above(tmp_path: Path, read: Any) -> None:
    write(tmp_path / "lab/images/a.dcm", grey(1))
    save(tmp_path / "lab/masks/images/a.png", box(5, 5))
    (tmp_path / "lab/table.csv").write_text("name,label\nimages/a.dcm,cyst\n")
    (tmp_path / "LICENSE").write_text("free")
    item = read("dicom", tmp_path)["images/a"]
    assert item.label == 0 and item.mask.any() and read.last.skipped == {}


def test_a_mask_of_another_size_than_its_picture_is_refused(tmp_path: Path, imported: Callable[..., Any]) -> None:
    write(tmp_path / "s/a.dcm", grey(1), region())
    save(tmp_path / "s/masks/a.png", box(2, 10)[4:34, 8:40])
    refused = imported("dicom", tmp_path / "s").one_sentence()
    assert "the mask 'masks/a.png' has 32 × 30 pixels and its image 'a.dcm' 48 × 40" in refused


def test_a_table_says_more_than_the_headers_and_chooses_files(tmp_path: Path, read: Any) -> None:
    write(tmp_path / "s/a.dcm", grey(1))
    write(tmp_path / "s/clip.dcm", np.stack([grey(2), grey(3)]))
    write(tmp_path / "s/other.dcm", grey(4))
    (tmp_path / "table.csv").write_text("name,label,frame\ns/a.dcm,cyst,7\nclip,solid,7\ns/clip.dcm/2,cyst,\n")
    items = read("dicom", tmp_path)
    assert read.last.classes == ("cyst", "solid")
    assert read.last.skipped == {"s/other.dcm": "it has no row in the table"}
    assert [(item.name, item.label, item.frame, item.patient) for item in items.values()] == [
        ("s/a", 0, 7, "p1"), ("s/clip/1", 1, 1, "p1"), ("s/clip/2", 0, 2, "p1")
    ]  # fmt: skip


def test_patients_are_those_of_the_table_or_of_the_headers_and_never_of_both(tmp_path: Path, read: Any) -> None:
    write(tmp_path / "s/a.dcm", grey(1))
    write(tmp_path / "s/b.dcm", grey(2))
    (tmp_path / "s/table.csv").write_text("name,patient\na,x\nb,\n")
    with pytest.raises(UsbenchError, match="names no patient of 'b', and of others: fill the column"):
        read("dicom", tmp_path / "s")
    (tmp_path / "s/table.csv").write_text("name,patient\na,x\nb,y\n")
    assert [item.patient for item in read("dicom", tmp_path / "s").values()] == ["x", "y"]


def test_a_row_of_a_file_at_the_top_is_not_of_one_below_that_is_called_so(tmp_path: Path, read: Any) -> None:
    write(tmp_path / "IM1", grey(1))
    write(tmp_path / "s/IM1", grey(2))
    (tmp_path / "table.csv").write_text("name,label\nIM1,cyst\ns/IM1,solid\n")
    assert [item.label for item in read("dicom", tmp_path).values()] == [0, 1]


def test_a_row_that_may_mean_two_files_is_refused(tmp_path: Path, read: Any) -> None:
    write(tmp_path / "s1/IM1", grey(1))
    write(tmp_path / "s2/IM1", grey(2))
    (tmp_path / "table.csv").write_text("name,label\nIM1,cyst\n")
    with pytest.raises(
        UsbenchError, match="has a row 'IM1', and 2 files are called so: write their folders before them"
    ):
        read("dicom", tmp_path)


@pytest.mark.parametrize("called", ["US.1.2.840.7", "IM.1", "a.img", "CLIP.0001", "image 1.v2/IM0"])
def test_a_file_is_dicom_by_what_it_holds_and_not_by_its_name(called: str, tmp_path: Path, read: Any) -> None:
    write(tmp_path / "s" / called, grey(1))
    assert list(read("dicom", tmp_path)) == [f"s/{called}"]


def test_files_beside_that_are_no_dicom_are_left_out_and_not_read_whole(
    tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "s/a.dcm", grey(1))
    for other in ("DICOMDIR", "s/README", "s/backup"):
        (tmp_path / other).write_bytes(b"x" * 10_000)
    monkeypatch.setattr("usbench.data.release.MAX_MEMBER", 9_000)
    assert list(read("dicom", tmp_path)) == ["s/a"]
    assert read.last.skipped == dict.fromkeys(("s/README", "s/backup"), "it is no DICOM file")


def test_a_clip_that_ends_early_gives_what_stands_before_whatever_the_machine(
    tmp_path: Path, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.stack([grey(number)[..., None].repeat(3, -1) for number in range(9)])
    write(tmp_path / "a.dcm", frames, jpeg=True, NumberOfFrames=12)
    monkeypatch.setattr("usbench.items.Dataset.skip_broken", True)
    for cores in (1, 2, 8):
        monkeypatch.setattr("usbench.data.importing.available_cores", lambda cores=cores: cores)
        assert len(read("dicom", tmp_path)) == 9
        assert (
            "cannot be decoded" in read.last.skipped["a.dcm"] and "before that is taken" in read.last.skipped["a.dcm"]
        )


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-500])


def deflated(file: Path) -> None:
    made = dcmread(file)
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    made.save_as(file)


def packed_otherwise(file: Path) -> None:
    made = dcmread(file)
    made.file_meta.TransferSyntaxUID = JPEGLSLossless
    made.save_as(file)


@pytest.mark.parametrize(
    ("jpeg", "damage", "said"),
    [
        (False, lambda file: file.write_text("no DICOM at all"), "it is no DICOM file"),
        (False, deflated, "it is deflated: unpack it first"),
        (False, cut_off, "its pictures, packed as Explicit VR Little Endian, cannot be decoded"),
        (True, cut_off, "it is cut off"),
        (
            True,
            packed_otherwise,
            "its pictures, packed as JPEG-LS Lossless Image Compression, cannot be decoded",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named_or_left_out(
    jpeg: bool, damage: Callable[[Path], Any], said: str, tmp_path: Path, imported: Callable[..., Any]
) -> None:
    write(tmp_path / "good.dcm", grey(1))
    bad = write(tmp_path / "bad.dcm", grey(2)[..., None].repeat(3, -1), jpeg=jpeg)
    damage(bad)
    refused = imported("dicom", tmp_path).one_sentence()
    assert f"'bad.dcm' cannot be used: {said}" in refused and "--skip-broken" in refused
    pack = imported("dicom", tmp_path, "--skip-broken")
    assert list(pack.table.name) == ["good"] and list(pack.skipped[1]) == ["bad.dcm"]


def test_files_of_real_scanners_are_read(tmp_path: Path, read: Any) -> None:
    """Those of pydicom's own tests: a clip and a still with a palette, both made smaller later, and power Doppler."""
    for name in ("ybr_color", "palette_color", "rgb_color"):
        shutil.copy(examples.get_path(name), tmp_path / f"{name}.dcm")
    with pytest.raises(UsbenchError, match="most often because its regions were measured in a larger picture"):
        read("dicom", tmp_path)
    for name, (left, top, bottom) in {"ybr_color": (42, 16, 207), "palette_color": (120, 60, 349)}.items():
        made = dcmread(tmp_path / f"{name}.dcm")
        plane = made.SequenceOfUltrasoundRegions[0]
        plane.RegionLocationMinX0, plane.RegionLocationMinY0, plane.RegionLocationMaxY1 = left, top, bottom
        plane.RegionLocationMaxX1 = made.Columns - 1
        made.SequenceOfUltrasoundRegions = [plane]
        made.save_as(tmp_path / f"{name}.dcm")
    items = read("dicom", tmp_path, every=15)
    assert list(items) == ["palette_color", "ybr_color/1", "ybr_color/16"]
    still, clip = items["palette_color"], items["ybr_color/16"]
    assert (still.image.shape, clip.image.shape) == ((290, 680), (192, 278))
    assert (still.device, clip.device) == ("Philips Medical Systems CX50", "SonoSite, Inc. Turbo")
    assert (still.pixel_mm, clip.pixel_mm) == pytest.approx((0.262, 0.510), abs=1e-3)
    assert clip.time == pytest.approx(0.5, abs=1e-3)
    assert list(read.last.skipped) == ["rgb_color.dcm"] and "colours" in read.last.skipped["rgb_color.dcm"]


@pytest.mark.parametrize("jpeg", [False, True])
def test_whatever_is_damaged_is_read_or_refused_in_one_sentence(jpeg: bool, tmp_path: Path, read: Any) -> None:
    frames = np.stack([grey(number)[..., None].repeat(3, -1) for number in range(3)])
    whole = write(tmp_path / "a.dcm", frames, region(), jpeg=jpeg, FrameTime=40).read_bytes()
    ends = {"whole": 0, "refused": 0}
    for seed in range(60):
        draw = np.random.default_rng(seed)
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[draw.integers(132, 1000, 3)] = draw.integers(0, 256, 3)
        (tmp_path / "a.dcm").write_bytes(damaged.tobytes())
        try:
            read("dicom", tmp_path)
            ends["whole"] += 1
        except UsbenchError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)
            ends["refused"] += 1
    assert min(ends.values()) > 0


def test_a_folder_of_nothing_but_other_files_says_why_none_was_taken(tmp_path: Path, read: Any) -> None:
    write(tmp_path / "a.dcm", grey(1), Modality="MR")
    with pytest.raises(UsbenchError, match=r"no file of .* gave an image, most often because its modality is MR"):
        read("dicom", tmp_path)


@pytest.mark.parametrize("called", ["a.dcm", "IM0001"])
@pytest.mark.parametrize("importer", ["folder:mine", "busi"])
def test_who_names_another_importer_is_told_of_this_one(
    called: str, importer: str, tmp_path: Path, imported: Callable[..., Any]
) -> None:
    write(tmp_path / "study" / called, grey(1))
    said = imported(importer, tmp_path / "study")
    assert said.code == 2 and said.one_sentence().endswith("'usbench data import dicom:NAME'.")


def test_a_zip_of_dicom_files_is_read_as_it_is(tmp_path: Path, read: Any) -> None:
    file = write(tmp_path / "a.dcm", grey(1))
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.write(file, "s/a.dcm")
    assert list(read("dicom", tmp_path / "s.zip")) == ["s/a"]


def test_without_the_dicom_extra_a_file_says_what_to_install(
    tmp_path: Path, imported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.dcm", grey(1))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert "pip install 'usbench[dicom]'" in imported("dicom", tmp_path).one_sentence()
