"""The breast sets, from miniature releases with every trap of the real ones."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from miniature import box, grey, save
from PIL import Image

from usbench.errors import UsbenchError
from usbench.hooks import Registry


@pytest.fixture
def busi(tmp_path: Path) -> Path:
    root = tmp_path / "BUSI" / "Dataset_BUSI_with_GT"
    save(root / "benign/benign (100).png", grey(1), "RGB")
    save(root / "benign/benign (100)_mask.png", box(2, 2), "1")
    save(root / "benign/benign (100)_mask_1.png", box(20, 20), "RGBA")
    save(root / "benign/benign (100)_mask_2.png", box(30, 30), "RGB")
    save(root / "benign/benign (1).png", grey(2), "L")
    save(root / "benign/benign (1)_mask.png", box(5, 5), "P")
    save(root / "malignant/malignant (1).png", grey(3), "RGB")
    save(root / "malignant/malignant (1)_mask.png", box(9, 9), "L")
    save(root / "normal/normal (1).png", grey(4), "RGB")
    save(root / "normal/normal (1)_mask.png", box(0, 0, 0, 0), "RGB")
    return root


def test_busi_joins_masks_of_every_mode_and_knows_normal_from_unannotated(busi: Path, read: Any) -> None:
    items = read("busi", busi)
    assert set(items) == {"benign (1)", "benign (100)", "malignant (1)", "normal (1)"}
    assert [items[name].label for name in items] == [{"b": 0, "m": 1, "n": 2}[name[0]] for name in items]
    joined = items["benign (100)"]
    np.testing.assert_array_equal(joined.mask, box(2, 2) | box(20, 20) | box(30, 30))
    np.testing.assert_array_equal(joined.image, grey(1))
    assert items["normal (1)"].mask is not None and not items["normal (1)"].mask.any()
    assert {item.patient for item in items.values()} == {""} and joined.tag == "breast"
    assert dict(read.last.skipped) == {}


def test_busi_is_found_from_above_and_below_and_in_a_zip(busi: Path, read: Any, tmp_path: Path) -> None:
    names = list(read("busi", busi))
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for each in sorted(busi.rglob("*.png")):
            file.write(each, each.relative_to(busi.parent))
        file.writestr("__MACOSX/Dataset_BUSI_with_GT/benign/._benign (1).png", b"nothing")
    packed = tmp_path / "packed"
    packed.mkdir()
    archive.rename(packed / archive.name)
    for place in (busi.parent, busi.parent.parent / "BUSI", busi / "benign", packed / archive.name, packed):
        assert list(read("busi", place)) == names, place


def test_a_set_that_lies_there_twice_is_refused(busi: Path, read: Any) -> None:
    save(busi.parent / "copy" / "benign" / "benign (1).png", grey(1))
    with pytest.raises(UsbenchError, match="holds the set 2 times"):
        read("busi", busi.parent)


def breast_table(path: Path, **columns: list[Any]) -> None:
    table = {
        "CaseID": [1, 22, 45, 77],
        "Image_filename": ["case001.png", "case022.png", "case045.png", "case077.png"],
        "Mask_tumor_filename": ["case001_tumor.png", "case022_tumor.png", None, "case077_tumor.png"],
        "Pixel_size": [0.0078125, 0.01, 0.01, 0.01],
        "BIRADS": [2, "4b", 1, 5],
        "Classification": ["benign", "malignant", "normal", "benign"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({**table, **columns}).to_excel(path, index=False)


@pytest.fixture
def breast(tmp_path: Path) -> Path:
    root = tmp_path / "BrEaST"
    folder = root / "BrEaST-Lesions_USG-images_and_masks"
    breast_table(root / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx")
    for case in (1, 22, 45, 99):
        rgba = np.dstack([grey(case)] * 3 + [np.full((40, 48), 255, np.uint8)])
        if case == 22:
            rgba[:5, :5, 3] = 0  # a transparent corner that still has grey values below
        save(folder / f"case{case:03d}.png", rgba)
    clear = np.dstack([box(3, 3).astype(np.uint8) * 255] * 4)
    clear[0, 0] = (255, 255, 255, 0)  # transparent white
    save(folder / "case001_tumor.png", clear)
    save(folder / "case022_tumor.png", box(9, 9), "RGBA")
    save(folder / "case022_other1.png", box(20, 20), "RGBA")
    return root


def test_breast_reads_the_clinical_table_and_transparency(breast: Path, read: Any) -> None:
    items = read("breast", breast)
    assert list(items) == ["case001", "case022", "case045"]
    assert [item.label for item in items.values()] == [0, 1, 2]
    assert [item.patient for item in items.values()] == ["1", "22", "45"]
    assert items["case001"].pixel_mm == pytest.approx(0.078125)
    np.testing.assert_array_equal(items["case001"].mask, box(3, 3))
    assert not items["case045"].mask.any()
    assert not items["case022"].image[:5, :5].any() and items["case022"].image[5:].min() >= 60
    skipped = read.last.skipped
    assert len(skipped) == 3
    assert "no tumour" in skipped["BrEaST-Lesions_USG-images_and_masks/case022_other1.png"]
    assert "no row" in skipped["BrEaST-Lesions_USG-images_and_masks/case099.png"]
    assert "no image" in skipped["case077.png"]


def test_breast_takes_the_images_folder_or_their_zip_beside_the_table(breast: Path, read: Any) -> None:
    folder = next(each for each in breast.iterdir() if each.is_dir())
    names = list(read("breast", folder))
    with zipfile.ZipFile(breast / "images.zip", "w") as file:
        for each in sorted(folder.iterdir()):
            file.write(each, each.relative_to(breast))
            each.unlink()
    folder.rmdir()
    assert list(read("breast", breast)) == names == ["case001", "case022", "case045"]


@pytest.mark.parametrize("column", ["Classification", "Pixel_size", "Mask_tumor_filename"])
def test_a_missing_xlsx_column_is_named(breast: Path, imported: Callable[..., Any], column: str) -> None:
    file = next(breast.glob("*.xlsx"))
    pd.read_excel(file).drop(columns=column).to_excel(file, index=False)
    assert f"no column '{column}'" in imported("breast", breast).one_sentence()


def test_a_damaged_xlsx_is_bad_input(breast: Path, imported: Callable[..., Any]) -> None:
    file = next(breast.glob("*.xlsx"))
    with zipfile.ZipFile(file) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(file, "w") as cut:
        for name, data in members.items():
            cut.writestr(name, data[: len(data) // 2] if name.endswith("sheet1.xml") else data)
    refused = imported("breast", breast)
    assert refused.code == 2 and f"the table '{file.name}'" in refused.one_sentence()
    assert "download it again" in refused.one_sentence()


def test_a_class_that_nobody_knows_and_a_missing_table_are_named(breast: Path, imported: Callable[..., Any]) -> None:
    file = next(breast.glob("*.xlsx"))
    breast_table(file, Classification=["benign", "B", "normal", "benign"])
    assert "class 'B' is none of" in imported("breast", breast).one_sentence()
    file.unlink()
    assert "no table" in imported("breast", breast).one_sentence()


def test_udiat_joins_its_table_and_accepts_gaps_and_both_mask_modes(tmp_path: Path, read: Any) -> None:
    root = tmp_path / "BUS"
    for number, mode in ((1, "1"), (310, "L")):
        save(root / f"original/{number:06d}.png", grey(number), "RGB")
        save(root / f"GT/{number:06d}.png", box(number % 7, 4), mode)
    save(root / "original/000002.png", grey(2))
    table = {"Image": ["000001", 310], "Type": ["Benign", "Malignant"], "Diagnosis": ["FA", "IDC"]}
    pd.DataFrame(table).to_excel(root / "DatasetB.xlsx", index=False)
    for place in (root, tmp_path, root / "original"):
        items = read("udiat", place)
        assert {name: item.label for name, item in items.items()} == {"000001": 0, "000310": 1}
        np.testing.assert_array_equal(items["000310"].mask, box(310 % 7, 4))
        assert list(read.last.skipped) == ["original/000002.png"]


@pytest.fixture
def busbra(tmp_path: Path) -> Path:
    root = tmp_path / "BUSBRA"
    names = ["bus_0001-l", "bus_0001-r", "bus_0002-s"]
    for seed, name in enumerate(names):
        save(root / f"Images/{name}.png", grey(seed))
        save(root / f"Masks/{name.replace('bus', 'mask')}.png", box(seed, seed), "1")
    table = pd.DataFrame(
        {
            "ID": [*names, "bus_0003-l"],
            "Case": [1, 1, 2, 3],
            "Pathology": ["malignant", "malignant", "benign", "benign"],
        }
    )
    table["Device"] = ["GE Logiq 7 @10-14MHz", "GE Logiq 7 @10-14MHz", "U-Systems @10-14MHz", ""]
    table.to_csv(root / "bus_data.csv", index=False)
    for folds in (5, 10):
        pd.DataFrame({"ID": names, "kFold": [folds, folds, 1]}).to_csv(root / f"{folds}-fold-cv.csv", index=False)
    return root


def test_busbra_knows_patients_scanners_and_official_folds(busbra: Path, read: Any) -> None:
    items = read("busbra", busbra)
    assert [item.patient for item in items.values()] == ["1", "1", "2"]
    assert [item.label for item in items.values()] == [1, 1, 0]
    assert [item.fold for item in items.values()] == [4, 4, 0]
    assert items["bus_0002-s"].device == "U-Systems @10-14MHz"
    np.testing.assert_array_equal(items["bus_0001-r"].mask, box(1, 1))
    assert list(read.last.skipped) == ["bus_0003-l"]
    assert [item.fold for item in read("busbra", busbra, folds=10).values()] == [9, 9, 0]
    with pytest.raises(UsbenchError, match="5 or 10"):
        read("busbra", busbra, folds=7)


def test_busuclm_takes_the_class_from_the_colour(tmp_path: Path, read: Any) -> None:
    colours = {"ALWI_000": (0, 255, 0), "ALWI_001": (255, 0, 0), "CACO_000": (0, 0, 0)}
    for seed, (name, colour) in enumerate(colours.items()):
        save(tmp_path / f"images/{name}.png", grey(seed), "RGB")
        save(tmp_path / f"masks/{name}.png", box(4, 4)[..., None] * np.array(colour, np.uint8))
    both = box(4, 4)[..., None] * np.array((0, 255, 0), np.uint8) + box(20, 20)[..., None] * np.array(
        (255, 0, 0), np.uint8
    )
    save(tmp_path / "images/CACO_001.png", grey(9), "RGB")
    save(tmp_path / "masks/CACO_001.png", both)
    (tmp_path / "INFO.csv").write_text("Image;Label\nALWI_000;Benign\n")
    items = read("busuclm", tmp_path)
    assert [(name, item.label, item.patient) for name, item in items.items()] == [
        ("ALWI_000", 0, "ALWI"), ("ALWI_001", 1, "ALWI"), ("CACO_000", 2, "CACO"), ("CACO_001", 1, "CACO"),
    ]  # fmt: skip
    np.testing.assert_array_equal(items["ALWI_001"].mask, box(4, 4))
    np.testing.assert_array_equal(items["CACO_001"].mask, box(4, 4) | box(20, 20))
    assert not items["CACO_000"].mask.any()


def test_stu_masks_of_another_size_are_resized(tmp_path: Path, read: Any) -> None:
    for number in (2, 10):
        save(tmp_path / f"Hospital/Test_Image_{number}.png", grey(number), "RGB")
        save(tmp_path / f"Hospital/mask_{number}.png", np.kron(box(8, 8), np.ones((2, 2), np.bool_)))
    items = read("stu", tmp_path)
    assert list(items) == ["stu-2", "stu-10"]
    np.testing.assert_array_equal(items["stu-2"].mask, box(8, 8))
    assert items["stu-2"].label == -1


def test_a_mask_of_another_size_is_refused_elsewhere(busi: Path, imported: Callable[..., Any]) -> None:
    save(busi / "benign/benign (1)_mask.png", box(2, 2, shape=(20, 24)))
    said = imported("busi", busi).one_sentence()
    assert "benign (1)_mask.png" in said and "24 × 20" in said and "48 × 40" in said


def test_a_mask_with_grey_levels_is_refused(busi: Path, imported: Callable[..., Any]) -> None:
    save(busi / "benign/benign (1)_mask.png", (box(2, 2) * 128 + box(20, 20) * 255).astype(np.uint8))
    assert "grey levels" in imported("busi", busi).one_sentence()


def test_a_broken_image_is_named_or_skipped_and_counted(busi: Path, imported: Callable[..., Any]) -> None:
    file = busi / "malignant/malignant (1).png"
    file.write_bytes(file.read_bytes()[:200])
    said = imported("busi", busi).one_sentence()
    assert "malignant (1).png" in said and "--skip-broken" in said
    pack = imported("busi", busi, "--skip-broken")
    count, reasons = pack.skipped
    assert pack.count == 3 and count == 1 and "decode" in reasons["malignant/malignant (1).png"]
    pack.check()


@pytest.mark.parametrize(
    ("given", "tried"), [("busi", "breast"), ("breast", "busi"), ("busbra", "pocus"), ("busi", "hc18")]
)
def test_the_wrong_sets_folder_says_which_importer_fits(
    given: str, tried: str, request: pytest.FixtureRequest, imported: Callable[..., Any], usbench: Any
) -> None:
    path = request.getfixturevalue(given)
    assert f"usbench data import {given}'" in imported(tried, path).one_sentence()


def test_no_importer_recognises_the_release_of_another(
    busi: Path, breast: Path, busbra: Path, importers: Registry
) -> None:
    sets = {"busi": busi, "breast": breast, "busbra": busbra}
    for entry in importers.entries("dataset"):
        dataset = entry.build()
        if not dataset.generic:
            assert [name for name, path in sets.items() if dataset.recognises(path)] == [entry.name][
                : entry.name in sets
            ]


def test_an_empty_folder_is_refused(tmp_path: Path, imported: Callable[..., Any]) -> None:
    (tmp_path / "empty").mkdir()
    assert "no image in" in imported("busi", tmp_path / "empty").one_sentence()
    (tmp_path / "notes.txt").write_text("not a zip")
    assert "neither a folder nor a whole zip" in imported("busi", tmp_path / "notes.txt").one_sentence()


def test_the_pack_of_a_folder_and_of_its_zip_are_the_same(
    busi: Path, imported: Callable[..., Any], tmp_path: Path
) -> None:
    first = imported("busi", busi).digest
    with zipfile.ZipFile(tmp_path / "busi.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for each in sorted(busi.rglob("*.png")):
            file.write(each, each.relative_to(busi))
    assert imported("busi", tmp_path / "busi.zip").digest == first


def test_a_zip_with_a_path_out_of_it_is_refused(busi: Path, imported: Callable[..., Any], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "busi.zip", "w") as file:
        for each in sorted(busi.rglob("*.png")):
            file.write(each, each.relative_to(busi))
        file.writestr("../../benign/benign (9).png", b"")
    said = imported("busi", tmp_path / "busi.zip")
    assert said.code == 2 and "points outside of it" in said.one_sentence()


def test_a_jpeg_behind_a_png_name_is_read(busi: Path, read: Any) -> None:
    Image.fromarray(grey(5)).save(busi / "benign/benign (1).png", "JPEG")
    assert read("busi", busi)["benign (1)"].image.shape == (40, 48)
