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


def test_frames_that_are_called_by_date_and_time_keep_their_order(tmp_path: Path, read: Any) -> None:
    for second in (9, 11, 10):
        save(tmp_path / "clips" / "a" / f"IMG_202001011234{second:02}.png", grey(second))
    items = read("clips", tmp_path / "clips")
    assert [item.frame for item in items.values()] == [0, 1, 2]
    assert list(items) == [f"a/IMG_202001011234{second:02}" for second in (9, 10, 11)]


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
