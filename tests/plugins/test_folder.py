"""Images of one's own: a folder with masks and a table, and a folder a clip."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from miniature import box, grey, save

from usbench.data.known import describe
from usbench.errors import UsbenchError


@pytest.fixture
def own(tmp_path: Path) -> Path:
    save(tmp_path / "images/a.png", grey(1))
    save(tmp_path / "images/b_2.jpg", grey(2))
    save(tmp_path / "images/c.png", grey(3))
    save(tmp_path / "masks/a_mask_1.png", box(2, 2))
    save(tmp_path / "masks/a_mask_2.png", box(20, 20))
    save(tmp_path / "masks/b_2.png", box(5, 5))
    return tmp_path


def test_a_folder_with_a_table_says_all_that_the_table_knows(own: Path, read: Any) -> None:
    (own / "table.csv").write_text(
        "Name;Label;Patient;Video;Frame;Tag;Device;Fold;Time;Fps;Pixel_mm\n"
        "a.png;cyst;p1;v1;3;kidney;X;2;0,5;10;0.2\nb_2;solid;p2;;;;;;;;\n"
    )
    items = read("folder", own)
    first, second = items["a"], items["b_2"]
    assert read.last.classes == ("cyst", "solid")
    assert (first.label, first.patient, first.video, first.frame, first.tag) == (0, "p1", "v1", 3, "kidney")
    assert (first.device, first.fold, first.time, first.fps, first.pixel_mm) == ("X", 2, 0.5, 10.0, 0.2)
    assert (second.label, second.patient, second.video, second.frame) == (1, "p2", "", -1)
    np.testing.assert_array_equal(first.mask, box(2, 2) | box(20, 20))
    np.testing.assert_array_equal(second.mask, box(5, 5))
    assert "no row" in read.last.skipped["images/c.png"]


def test_without_a_table_a_subfolder_is_a_class_and_no_mask_is_unannotated(own: Path, read: Any) -> None:
    assert read("folder", own)["c"].mask is None
    save(own / "images/cyst/d.png", grey(4))
    items = read("folder", own / "images")
    assert read.last.classes == ("cyst",)
    assert items["cyst/d"].label == 0 and items["a"].label == -1


def test_two_images_with_one_name_are_refused(own: Path, imported: Callable[..., Any]) -> None:
    save(own / "images/a.jpg", grey(1))
    assert "two images have the name 'a'" in imported("folder", own).one_sentence()


def test_a_table_without_names_is_refused(own: Path, read: Any) -> None:
    (own / "table.csv").write_text("who,label\na,cyst\n")
    with pytest.raises(UsbenchError, match="no column 'name'"):
        read("folder", own)


@pytest.mark.parametrize("called", ["T.CSV", "table.Csv"])
def test_a_table_is_read_whatever_the_case_of_its_ending(own: Path, read: Any, called: str) -> None:
    (own / called).write_text("name,patient\na,p1\nb_2,p1\nc,p2\n")
    assert [item.patient for item in read("folder", own).values()] == ["p1", "p1", "p2"]


def test_a_table_that_is_not_read_is_named_as_left_out(own: Path, read: Any) -> None:
    others = ("labels.tsv", "Old.XLS", "book.xlsx", "images/sub.csv")
    for other in others:
        (own / other).parent.mkdir(exist_ok=True)
        (own / other).write_text("name,label\na,cyst\n")
    assert read("folder", own)["a"].label == -1
    assert read.last.skipped == dict.fromkeys(sorted(others), "only a CSV beside images/ is read as a table")
    (own / "table.csv").write_text("name,label\na,cyst\nb_2,\nc,\n")
    assert read("folder", own)["a"].label == 0 and set(read.last.skipped) == set(others)


@pytest.mark.parametrize(
    ("head", "column"),
    [("name,Label,label", "label"), ("name,patient,patient", "patient"), ("Name,label,name", "name")],
)
def test_a_table_with_two_columns_of_one_name_is_refused(own: Path, read: Any, head: str, column: str) -> None:
    (own / "table.csv").write_text(f"{head}\na,x,y\n")
    with pytest.raises(UsbenchError, match=rf"'table\.csv' of .* has the column '{column}' twice"):
        read("folder", own)


def test_a_table_with_two_rows_of_one_image_is_refused(own: Path, read: Any) -> None:
    (own / "table.csv").write_text("name,label\na.png,cyst\nb_2,cyst\nimages/a.png,solid\n")
    with pytest.raises(UsbenchError, match=r"'table\.csv' of .* has two rows of the image 'a'"):
        read("folder", own)


def test_rows_of_a_table_without_a_name_are_of_no_image(own: Path, read: Any) -> None:
    (own / "table.csv").write_text("name,label,label of a reader,\na,cyst,,\nb_2,solid,,\nc,cyst,,\n,,,\n,,,\n")
    assert [item.label for item in read("folder", own).values()] == [0, 1, 0]


def test_a_table_may_name_images_with_the_folder_in_any_case(own: Path, read: Any) -> None:
    (own / "images").rename(own / "Images")
    (own / "table.csv").write_text("name,label\nImages/a.png,cyst\nimages/b_2.jpg,solid\nIMAGES/c.png,cyst\n")
    assert [item.label for item in read("folder", own).values()] == [0, 1, 0]


@pytest.mark.parametrize("rows", ["", "A,cyst\nB,solid\n"])
def test_a_table_without_a_row_of_any_image_is_a_table(own: Path, imported: Callable[..., Any], rows: str) -> None:
    (own / "table.csv").write_text(f"name,label\n{rows}")
    refused = imported("folder", own)
    assert refused.code == 2 and "has a row in the table: name 'images/a.png' there" in refused.one_sentence()


def test_what_of_a_table_nobody_reads_is_said(own: Path, read: Any, imported: Callable[..., Any]) -> None:
    (own / "table.csv").write_text("name,patint,pixel_mm,frame\na,p1,thin,1\nzzz,p2,0.1,x\nb_2,p3,0.1,2.5\n")
    read("folder", own)
    left = read.last.skipped
    assert left["the table's column 'patint'"] == "nobody reads it: did you mean 'patient'?"
    assert left["1 in the table's column 'pixel_mm'"] == "no number"
    assert left["2 in the table's column 'frame'"] == "no whole number"
    assert left["1 of the table's rows"] == "no image is called so"
    assert imported("folder", own).count == 2


def test_a_table_of_names_alone_is_a_table(own: Path, read: Any) -> None:
    (own / "table.csv").write_text("name\na\n")
    assert list(read("folder", own)) == ["a"]


def test_a_size_or_rate_that_is_none_is_unknown(own: Path, imported: Callable[..., Any]) -> None:
    (own / "table.csv").write_text("name,pixel_mm,fps,frame\na,-1,-5,1\nb_2,0,0,2\nc,0.1,10,3\n")
    table = imported("folder", own).table
    np.testing.assert_array_equal(table.pixel_mm, np.array([np.nan, np.nan, 0.1], np.float32))
    np.testing.assert_array_equal(table.fps, np.array([np.nan, np.nan, 10], np.float32))


def test_a_pack_of_ones_own_has_ones_own_name(own: Path, imported: Callable[..., Any]) -> None:
    pack = imported("folder:kidneys,licence=CC0,tag=kidney", own)
    assert pack.name == "kidneys" and pack.attributes["licence"] == "CC0" and set(pack.table.tag) == {"kidney"}


def test_another_set_of_the_same_name_is_not_replaced_unawares(
    own: Path, usbench: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path / "home"))
    assert usbench("data", "import", "folder", own, "--size", "32").code == 0
    refused = usbench("data", "import", "folder", own, "--size", "64")
    assert refused.code == 2 and "there is a set 'folder' in" in refused.one_sentence() and "folder:NAME" in refused.err
    assert usbench("data", "import", "folder:mine", own, "--size", "64").code == 0
    assert usbench("data", "import", "folder", own, "--size", "64", "--force").code == 0


@pytest.mark.parametrize("name", ["folder:busi", "folder:BUSI", "folder:clips", "clips:pocus"])
def test_ones_own_images_do_not_take_the_name_of_a_known_set(
    own: Path, imported: Callable[..., Any], name: str
) -> None:
    refused = imported(name, own)
    importer, _, taken = name.partition(":")
    assert refused.code == 2
    assert f"'{taken}' is the name of a known data set: give another, as in '{importer}:mine'" in refused.one_sentence()


@pytest.mark.parametrize("deep", [False, True])
def test_a_clip_is_a_folder_of_frames_in_the_order_of_their_numbers(deep: bool, tmp_path: Path, read: Any) -> None:
    root = tmp_path / "clips"
    for clip in ("one", "two"):
        for frame in (2, 10, 1):
            save(root / ("lung" if deep else "") / clip / f"x5_{frame}.png", grey(frame))
    items = read("clips", root, fps=10.0)
    prefix = "lung/" if deep else ""
    assert list(items) == [f"{prefix}{clip}/x5_{frame}" for clip in ("one", "two") for frame in (1, 2, 10)]
    last = items[f"{prefix}two/x5_10"]
    assert (last.video, last.frame, last.time, last.label) == (f"{prefix}two", 10, 1.0, 0 if deep else -1)


@pytest.mark.parametrize(
    "names",
    [
        [f"IMG_202001011234{second:02}" for second in (9, 10, 11)],  # no frame's number is so large
        ["cover", "f1", "f2", "f10"],
        ["d1_12-59-58", "d1_12-59-59", "d1_13-00-00", "d1_13-00-01"],
        ["p1_10", "p2_9", "p10_8"],
        ["a_1", "b_2"],
        ["f01", "f1", "f2"],
        ["only_7"],
    ],
    ids=lambda names: names[0],
)
def test_frames_whose_names_tell_no_number_keep_their_order_and_have_no_times(
    names: list[str], tmp_path: Path, read: Any
) -> None:
    for seed, name in enumerate(reversed(names)):
        save(tmp_path / "clips" / "a" / f"{name}.png", grey(seed))
    items = read("clips", tmp_path / "clips", fps=10.0)
    assert list(items) == [f"a/{name}" for name in names]
    assert [item.frame for item in items.values()] == list(range(len(names)))
    assert np.isnan([(item.time, item.fps) for item in items.values()]).all()


@pytest.mark.parametrize("pattern", ["f{}_640x480", "{}", "7_{:03}", "scan 2 frame {} of 40"])
def test_a_frames_number_is_the_one_in_which_the_names_differ(pattern: str, tmp_path: Path, read: Any) -> None:
    for number in (2, 10, 3, 11):
        save(tmp_path / "clips" / "a" / f"{pattern.format(number)}.png", grey(number))
    items = read("clips", tmp_path / "clips", fps=10.0)
    assert [(item.frame, item.time) for item in items.values()] == [(n, n / 10) for n in (2, 3, 10, 11)]


def test_times_of_order_alone_are_not_made_up_when_a_pack_is_read(tmp_path: Path, imported: Callable[..., Any]) -> None:
    for name in ("cover", "f1", "f2", "f10"):
        save(tmp_path / "clips" / "a" / f"{name}.png", grey(len(name)))
    pack = imported("clips:c,fps=10", tmp_path / "clips")
    assert "time" not in pack.capabilities()
    assert np.isnan(describe([(pack, np.arange(pack.count))], (), ()).time).all()


def test_a_negative_rate_is_refused(tmp_path: Path, imported: Callable[..., Any]) -> None:
    save(tmp_path / "clips" / "a" / "f1.png", grey(1))
    refused = imported("clips:c,fps=-5", tmp_path / "clips")
    assert refused.code == 2 and "fps is -5: frames a second, or 0 where nobody knows" in refused.one_sentence()


def film(path: Path, count: int = 12, fps: int = 6) -> Path:
    """A video of frames that brighten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), 40 + 10 * number, np.uint8), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_video_file_is_a_clip_with_its_own_times(tmp_path: Path, read: Any) -> None:
    film(tmp_path / "lung/deep.mp4")
    film(tmp_path / "heart/short.avi", count=5)
    save(tmp_path / "heart/frames/f_1.png", grey(1, (48, 64)))
    items = read("clips", tmp_path, every=2)
    assert list(items) == [
        "heart/frames/f_1", *(f"heart/short/{n}" for n in (0, 2, 4)), *(f"lung/deep/{n}" for n in (0, 2, 4, 6, 8, 10))
    ]  # fmt: skip
    assert read.last.classes == ("heart", "lung")
    item = items["lung/deep/6"]
    assert (item.video, item.frame, item.fps, item.label) == ("lung/deep", 6, 6.0, 1)
    assert item.time == pytest.approx(1.0) and item.image.shape == (48, 64)
    assert abs(float(item.image.mean()) - 100) < 4


def test_a_video_that_cannot_be_decoded_is_named_or_left_out(tmp_path: Path, imported: Callable[..., Any]) -> None:
    film(tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    assert "'bad.mp4' cannot be used" in imported("clips", tmp_path).one_sentence()
    pack = imported("clips", tmp_path, "--skip-broken")
    assert pack.count == 12 and list(pack.skipped[1]) == ["bad.mp4"]


def test_without_the_video_extra_a_video_says_what_to_install(
    tmp_path: Path, imported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    film(tmp_path / "good.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'usbench[video]'" in imported("clips", tmp_path).one_sentence()
