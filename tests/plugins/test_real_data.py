"""The importers on the real releases, where USBENCH_REAL_DATA names a folder that holds them."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from usbench.data.importing import Importer
from usbench.data.release import open_release

REAL = Path(os.environ.get("USBENCH_REAL_DATA", "/nowhere"))
pytestmark = pytest.mark.skipif(
    "USBENCH_REAL_DATA" not in os.environ, reason="USBENCH_REAL_DATA names no folder with the real releases"
)


def part(*names: str) -> Path:
    path = REAL.joinpath(*names)
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def test_busi_has_780_images_and_17_with_several_masks(read: Any, importers: Any) -> None:
    path = part("BUSI")
    items = read("busi", path)
    assert len(items) == 780
    assert Counter(item.label for item in items.values()) == {0: 437, 1: 210, 2: 133}
    assert all(item.mask is not None and item.mask.any() == (item.label < 2) for item in items.values())
    dataset = importers.get("dataset", "busi").build()
    assert isinstance(dataset, Importer)
    several = [case for case in dataset.cases(open_release(path, dataset.layout)) if len(case.masks or ()) > 1]
    assert len(several) == 17 and max(len(case.masks or ()) for case in several) == 3
    assert np.array_equal(items["benign (433)"].image, items["malignant (145)"].image)
    assert not read.last.skipped


def test_breast_has_256_images_252_with_a_tumour_4_normal(read: Any) -> None:
    items = read("breast", part("BrEaST"))
    assert len(items) == 256 and len({item.patient for item in items.values()}) == 256
    assert sum(item.mask.any() for item in items.values()) == 252
    assert Counter(item.label for item in items.values()) == {0: 154, 1: 98, 2: 4}
    assert sorted(n for n, item in items.items() if item.label == 2) == ["case045", "case061", "case209", "case213"]
    assert len(read.last.skipped) == 14


def test_busbra_has_1875_images_of_1064_patients(read: Any) -> None:
    items = read("busbra", part("BUS-BRA"))
    assert len(items) == 1875 and len({item.patient for item in items.values()}) == 1064
    assert Counter(item.label for item in items.values()) == {0: 1268, 1: 607}
    assert all(item.mask.any() for item in items.values())
    assert Counter(item.fold for item in items.values()) == {0: 376, 1: 385, 2: 366, 3: 365, 4: 383}
    assert len({item.device for item in items.values()}) == 4
    folds: dict[str, set[int]] = {}
    for item in items.values():
        folds.setdefault(item.patient, set()).add(item.fold)
    assert all(len(each) == 1 for each in folds.values())


def test_pocus_has_2062_frames_of_142_clips(read: Any) -> None:
    items = read("pocus", part("POCUS"))
    assert len(items) == 2062 and len({item.video for item in items.values()}) == 142
    assert Counter(item.label for item in items.values()) == {0: 437, 1: 463, 2: 1162}
    folds: dict[str, set[int]] = {}
    for item in items.values():
        folds.setdefault(item.video, set()).add(item.fold)
    assert all(len(each) == 1 for each in folds.values()) and set.union(*folds.values()) == set(range(5))
    people = {item.video: item.patient for item in items.values() if item.patient}
    assert len(people) == 60 and len(set(people.values())) == 13


def white(path: Path) -> np.ndarray:
    """A mask file by the slow way: a pixel counts where it is opaque and white."""
    rgba = np.asarray(Image.open(path).convert("RGBA")).astype(int)
    return (rgba[..., 0] > 127) & (rgba[..., 3] > 127)


def test_busi_as_released(read: Any) -> None:
    root = part("as-released", "BUSI", "Dataset_BUSI_with_GT")
    items = read("busi", root)
    assert len(items) == len([file for file in root.rglob("*.png") if "_mask" not in file.name]) == 11
    for name, item in items.items():
        files = sorted((root / name.split()[0]).glob(f"{name}_mask*.png"))
        np.testing.assert_array_equal(item.mask, np.any([white(file) for file in files], axis=0))
        assert item.label == ("benign", "malignant", "normal").index(name.split()[0])


def test_breast_as_released(read: Any, tmp_path: Path) -> None:
    images = part("as-released", "BrEaST", "BrEaST-Lesions_USG-images_and_masks")
    table = next(part("BrEaST").glob("*.xlsx"))
    for source, name in ((images, images.name), (table, table.name)):
        (tmp_path / name).symlink_to(source)
    (tmp_path / images.name).unlink()
    (tmp_path / images.name).mkdir()
    for file in images.iterdir():
        (tmp_path / images.name / file.name).symlink_to(file)
    items = read("breast", tmp_path)
    assert len(items) == len(list(images.glob("case???.png"))) == 8
    for name, item in items.items():
        rgba = np.asarray(Image.open(images / f"{name}.png").convert("RGBA"))
        assert not item.image[rgba[..., 3] == 0].any()
        tumour = images / f"{name}_tumor.png"
        truth = white(tumour) if tumour.exists() else np.zeros(item.image.shape, np.bool_)
        np.testing.assert_array_equal(item.mask, truth)
        assert item.mask.any() == (item.label != 2)
    assert len(read.last.skipped) == 4 + 256 - 8


def test_busbra_as_released(read: Any, tmp_path: Path) -> None:
    root, tables = part("as-released", "BUS-BRA", "BUSBRA"), part("BUS-BRA", "BUSBRA")
    for folder in ("Images", "Masks"):
        (tmp_path / folder).mkdir()
        for file in (root / folder).iterdir():
            (tmp_path / folder / file.name).symlink_to(file)
    for table in tables.glob("*.csv"):
        (tmp_path / table.name).symlink_to(table)
    items = read("busbra", tmp_path)
    assert len(items) == 8
    for name, item in items.items():
        np.testing.assert_array_equal(item.mask, white(root / "Masks" / f"{name.replace('bus', 'mask')}.png"))
        np.testing.assert_array_equal(item.image, np.asarray(Image.open(root / "Images" / f"{name}.png").convert("L")))
