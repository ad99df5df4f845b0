"""The pack: what goes in comes out, nothing half-written stays, and what is no pack is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from usbench.data.known import describe
from usbench.data.pack import SCHEMA, Pack
from usbench.data.packing import letterbox, link_groups, place, write_pack
from usbench.errors import UsbenchError
from usbench.items import Item


def image(height: int = 40, width: int = 60, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (height, width), np.uint8)


def written(path: Path, *items: Item, size: int = 32) -> Pack:
    words = dict.fromkeys(("dataset", "source", "licence", "citation", "importer", "version"), "x")
    write_pack(path, items, size=size, classes=("benign", "malignant"), attributes=words)
    return Pack(path)


def test_what_goes_in_comes_out(tiny_pack: Path, make_scans: Callable[..., Iterator[Item]]) -> None:
    pack, items = Pack(tiny_pack), list(make_scans())
    assert (pack.count, pack.size, pack.name) == (40, 64, "discs")
    assert pack.classes == ("benign", "malignant", "normal")
    assert np.array_equal(pack.images, np.stack([item.image for item in items]))
    assert np.array_equal(pack.plane("mask", np.arange(40)), np.stack([item.mask for item in items]))
    assert pack.plane("sector", np.arange(40)).all()
    for field in ("name", "label", "patient", "video", "tag", "device"):
        assert pack.table[field].tolist() == [getattr(item, field) for item in items]


def test_a_rows_plane_is_that_rows(tiny_pack: Path) -> None:
    pack = Pack(tiny_pack)
    assert np.array_equal(pack.plane("mask", np.array([7, 2, 7])), pack.plane("mask", np.arange(8))[[7, 2, 7]])


def test_images_are_letter_boxed_and_the_table_says_where(tmp_path: Path) -> None:
    shapes = [(40, 60), (60, 40), (32, 32), (500, 3)]
    pack = written(tmp_path / "p.h5", *(Item(str(n), image(*shape)) for n, shape in enumerate(shapes)))
    sectors = pack.plane("sector", np.arange(len(shapes)))
    for row, shape in zip(pack.table.itertuples(), shapes, strict=True):
        filled = np.argwhere(sectors[row.Index])
        assert filled.min(0).tolist() == [row.offset_y, row.offset_x]
        high, wide = filled.max(0) - filled.min(0) + 1
        assert max(high, wide) == 32 and (row.native_height, row.native_width) == shape
        assert high == max(1, round(shape[0] * row.scale)) and wide == max(1, round(shape[1] * row.scale))
        assert (pack.images[row.Index][~sectors[row.Index]] == 0).all()
        assert abs(row.offset_y - (32 - high) / 2) < 1 and abs(row.offset_x - (32 - wide) / 2) < 1


def test_a_mask_keeps_its_place_and_its_area_when_it_is_scaled() -> None:
    rows, columns = np.mgrid[:200, :300]
    mask = (rows - 80) ** 2 + (columns - 190) ** 2 < 45**2
    box = letterbox(200, 300, 96)
    placed = place(mask, box, 96)
    assert placed.sum() / box.scale**2 == pytest.approx(mask.sum(), rel=0.02)
    middle = (np.argwhere(placed).mean(0) - (box.top, box.left)) / box.scale
    assert np.allclose(middle, np.argwhere(mask).mean(0), atol=1 / box.scale)


def test_a_normal_image_is_not_an_unannotated_one(tmp_path: Path) -> None:
    normal = Item("normal", image(), mask=np.zeros((40, 60), np.bool_))
    pack = written(tmp_path / "p.h5", normal, Item("unannotated", image()))
    assert pack.table.has_mask.tolist() == [True, False]
    assert not pack.plane("mask", np.arange(2)).any()


def test_unknown_stays_unknown(tmp_path: Path) -> None:
    row = written(tmp_path / "p.h5", Item("a", image())).table.iloc[0]
    assert (row.label, row.frame, row.fold) == (-1, -1, -1)
    assert (row.tag, row.patient, row.video, row.device) == ("", "", "", "")
    assert np.isnan([row.time, row.fps, row.pixel_mm]).all()


def test_a_group_is_whoever_is_linked_by_patient_or_video_or_likeness() -> None:
    patient = ["a", "a", "b", "", "", "", ""]
    video = ["", "v", "v", "", "w", "w", ""]
    groups = link_groups(patient, video, [(5, 6)]).tolist()
    assert groups[0] == groups[1] == groups[2]
    assert groups[4] == groups[5] == groups[6]
    assert len({groups[0], groups[3], groups[4]}) == 3


def test_images_are_memory_mapped_from_a_file_that_has_them_in_one_piece(tiny_pack: Path) -> None:
    with h5py.File(tiny_pack) as file:
        assert file["images"].chunks is None and file["images"].compression is None
    assert isinstance(Pack(tiny_pack).images, np.memmap)


def test_equal_content_has_an_equal_digest_and_another_pixel_another(tmp_path: Path) -> None:
    items = [Item(str(n), image(seed=n)) for n in range(3)]
    first, again = (written(tmp_path / f"{n}.h5", *items) for n in range(2))
    items[1].image = items[1].image.copy()
    items[1].image[0, 0] ^= 255
    third = written(tmp_path / "third.h5", *items)
    items[1].image[0, 0] ^= 255
    items[1].label = 1
    fourth = written(tmp_path / "fourth.h5", *items)
    assert first.digest == again.digest
    assert len({first.digest, third.digest, fourth.digest}) == 3


def test_check_finds_a_pack_that_was_changed(tiny_pack: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(tiny_pack, tmp_path / "p.h5"))
    Pack(copy).check()
    with h5py.File(copy, "r+") as file:
        file["images"][3, 5, 5] ^= 1
    with pytest.raises(UsbenchError, match="changed after it was written"):
        Pack(copy).check()


def test_an_import_that_fails_leaves_nothing_behind_and_keeps_what_was_there(tmp_path: Path) -> None:
    before = written(tmp_path / "p.h5", Item("a", image())).digest

    def broken() -> Iterator[Item]:
        yield Item("a", image())
        raise RuntimeError("the archive ends here")

    with pytest.raises(RuntimeError):
        written(tmp_path / "p.h5", *broken())
    words = dict.fromkeys(("dataset", "source", "licence", "citation", "importer", "version"), "x")
    with pytest.raises(RuntimeError):
        write_pack(tmp_path / "p.h5", broken(), size=32, attributes=words)
    assert [file.name for file in tmp_path.iterdir()] == ["p.h5"]
    assert Pack(tmp_path / "p.h5").digest == before


def test_a_pack_that_is_being_written_is_no_pack_yet(tmp_path: Path, make_scans: Callable[..., Iterator[Item]]) -> None:
    path, seen = tmp_path / "x.h5", []

    def items() -> Iterator[Item]:
        for item in make_scans(5):
            yield item
            (half,) = tmp_path.glob(".*.part")
            for name, words in ((path, "there is no pack"), (half, "is not a complete pack")):
                with pytest.raises(UsbenchError, match=words):
                    Pack(name)
                seen.append(name)

    write_pack(
        path,
        items(),
        size=64,
        classes=("benign", "malignant", "normal"),
        attributes=dict.fromkeys(("dataset", "source", "licence", "citation", "importer", "version"), "x"),
    )
    assert len(seen) == 20 and Pack(path).count == 10


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "no image"),
        ([Item("a", image(), label=2)], "the label of 'a' is 2, and there are 2 classes"),
        ([Item("a", image(), label=-2)], "the label of 'a' is -2"),
        ([Item("a", image(), label="benign")], r"the label of 'a' is the text 'benign': use self\.label\(text\)"),
        ([Item("a", image(), patient=7)], "the patient of 'a' is 7 \\(int\\): give a text"),
        ([Item("a", image(), frame=np.int64(2**31))], f"item 'a' has frame {2**31}: a pack keeps whole"),
        ([Item("a", image(), fold=40_000)], "item 'a' has fold 40000: a pack keeps whole numbers up to 32767"),
        ([Item("a", image()), Item("a", image(seed=1))], "two images have the name 'a'"),
        ([Item("a", image().astype(np.float32))], "item 'a' is float32"),
        ([Item("a", np.zeros((4, 4, 3), np.uint8))], "item 'a'"),
        ([Item("a", np.zeros((0, 9), np.uint8))], "item 'a'"),
        ([Item("a", image(), mask=np.zeros((9, 9), np.bool_))], "mask of"),
        ([Item("a", image(), sector=np.zeros((9, 9), np.bool_))], "sector of"),
    ],
)
def test_an_item_that_is_none_is_refused_by_name(tmp_path: Path, items: list[Item], words: str) -> None:
    with pytest.raises(UsbenchError, match=words):
        written(tmp_path / "p.h5", *items)
    assert not list(tmp_path.iterdir())


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_sectors(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["sector"]


def short_column(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["label"]
        file["label"] = np.zeros(3, np.int16)


def newer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = SCHEMA + 1


def odd_schema(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = "newest"


def numbers_for_names(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        count = len(file["name"])
        del file["name"]
        file["name"] = np.arange(count)


def oblong(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["images"]
        file["images"] = np.zeros((40, 64, 32), np.uint8)


def chunked(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        images = file["images"][:]
        del file["images"]
        file.create_dataset("images", data=images, chunks=(1, 64, 64))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (half, "not a complete pack"),
        (empty, "not a complete pack"),
        (no_sectors, "no sector"),
        (short_column, "'label' has not one entry"),
        (newer, f"schema {SCHEMA + 1}, newer"),
        (odd_schema, "not a complete pack"),
        (numbers_for_names, "'name' is int64"),
        (oblong, "(40, 64, 32)"),
        (chunked, "in chunks"),
    ],
)
def test_a_damaged_pack_is_refused_when_it_is_opened(
    tiny_pack: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    copy = Path(shutil.copy(tiny_pack, tmp_path / "p.h5"))
    damage(copy)
    with pytest.raises(UsbenchError) as refusal:
        Pack(copy)
    assert words in str(refusal.value) and str(copy) in str(refusal.value)


@pytest.mark.parametrize(
    ("given", "capability"),
    [
        ({"mask": np.zeros((40, 60), np.bool_)}, "mask"),
        ({"label": 0}, "label"),
        ({"tag": "breast"}, "tag"),
        ({"patient": "a"}, "patient"),
        ({"device": "probe"}, "device"),
        ({"video": "v"}, "video"),
        ({"time": 0.5}, "time"),
        ({"frame": 3, "fps": 10.0}, "time"),
    ],
)
def test_a_pack_can_what_its_items_know(tmp_path: Path, given: dict[str, Any], capability: str) -> None:
    plain = written(tmp_path / "plain.h5", Item("a", image()), Item("b", image(seed=1)))
    rich = written(tmp_path / "rich.h5", Item("a", image(), **given), Item("b", image(seed=1), **given))
    assert plain.capabilities() == {"image"}
    assert rich.capabilities() == {"image", capability}


@pytest.mark.parametrize("fps", [float("nan"), 0.0, 10.0])
@pytest.mark.parametrize("frames", [(0, 1, -1), (-1, -1, -1)])
@pytest.mark.parametrize("video", ["", "v"])
def test_a_pack_can_tell_times_where_its_description_knows_one(
    tmp_path: Path, fps: float, frames: tuple[int, ...], video: str
) -> None:
    items = [Item(str(i), image(seed=i), video=video, frame=n, fps=fps) for i, n in enumerate(frames)]
    pack = written(tmp_path / "p.h5", *items)
    known = describe([(pack, np.arange(pack.count))], (), ()).time
    assert ("time" in pack.capabilities()) is bool((~np.isnan(known)).any())


@pytest.mark.parametrize("field", ["pixel_mm", "fps"])
def test_a_size_or_rate_that_is_not_positive_is_kept_as_unknown(tmp_path: Path, field: str) -> None:
    said = (-1.0, 0.0, float("inf"), 1e-60, float("nan"), 0.25)
    pack = written(tmp_path / "p.h5", *(Item(str(i), image(seed=i), **{field: v}) for i, v in enumerate(said)))
    np.testing.assert_array_equal(pack.table[field], np.array([np.nan] * 5 + [0.25], np.float32))
    pack.check()


def test_one_frame_is_no_video(tmp_path: Path) -> None:
    pack = written(tmp_path / "p.h5", Item("a", image(), video="v"), Item("b", image(seed=1), video="w"))
    assert "video" not in pack.capabilities()


@pytest.mark.parametrize("rows", [[], [3], [0, 1, 2], [5, 4, 3], [2, 3, 9, 9, 10, 0]], ids=str)
def test_planes_come_in_the_order_asked_for(tiny_pack: Path, rows: list[int]) -> None:
    pack = Pack(tiny_pack)
    with h5py.File(tiny_pack) as file:
        expected = [file["mask"][row] for row in rows]
    found = pack.plane("mask", np.array(rows, np.int64))
    assert found.shape == (len(rows), 64, 64) and all(map(np.array_equal, found, expected))
