"""Near-duplicates are found though they were changed a little, join one group, and nothing else does."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from usbench.data.leaks import alike_across, clusters, conflicts
from usbench.data.pack import Pack
from usbench.data.packing import write_pack
from usbench.items import Item

SAID = {"source": "", "licence": "", "citation": "", "importer": "tests", "version": "1"}


def scan(number: int, size: int = 160) -> np.ndarray:
    """Layers and a disc under speckle: as unlike another as two patients are."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:size, :size] / size
    tissue = 60 + 80 * gaussian_filter(rng.random((size, size)), (3, 14)) * 4
    middle = rng.uniform(0.3, 0.7, 2)
    tissue[(rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < rng.uniform(0.08, 0.2) ** 2] *= 0.4
    speckle = gaussian_filter(rng.rayleigh(1.0, (size, size)), 1.2)
    return np.clip(tissue * speckle / 1.5, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file))


def resized(image: np.ndarray, share: float) -> np.ndarray:
    side = round(image.shape[0] * share)
    return np.asarray(Image.fromarray(image).resize((side, side)))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "rescaled": lambda image: resized(image, 0.7),
    "mirrored": lambda image: image[:, ::-1].copy(),
    "brighter": lambda image: np.clip(image * 1.2, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.8).astype(np.uint8),
    "cropped": lambda image: image[8:, 8:].copy(),
    "compressed": jpeg,
    "mirrored, darker and compressed": lambda image: jpeg((image[:, ::-1] * 0.8).astype(np.uint8)),
}


def pack_of(path: Path, images: dict[str, np.ndarray], labels: dict[str, int] | None = None, **more: Any) -> Pack:
    items = [Item(name, image, patient=name, label=(labels or {}).get(name, -1)) for name, image in images.items()]
    write_pack(
        path, items, size=128, attributes={"dataset": path.stem, **SAID}, classes=("benign", "malignant"), **more
    )
    return Pack(path)


@pytest.mark.parametrize("change", CHANGES)
def test_a_planted_duplicate_joins_the_group_of_its_original(change: str, tmp_path: Path) -> None:
    images = {f"i{k}": scan(k) for k in range(8)}
    pack = pack_of(tmp_path / "x.h5", {**images, "twin": CHANGES[change](images["i3"])})
    group = dict(zip(pack.table.name, pack.table.group, strict=True))
    assert group["twin"] == group["i3"]
    assert len(set(group.values())) == 8


def test_different_scans_stay_apart(tmp_path: Path) -> None:
    assert pack_of(tmp_path / "x.h5", {f"i{k}": scan(k) for k in range(40)}).table.group.nunique() == 40


def test_a_simulated_set_whose_patients_are_known_is_left_as_it_is(tmp_path: Path) -> None:
    image = scan(0)
    pack = pack_of(tmp_path / "x.h5", {"a": image, "b": image.copy()}, generated=True)
    assert pack.generated and pack.table.group.nunique() == 2


def test_duplicates_between_packs_are_found_and_contradicting_labels_named(tmp_path: Path) -> None:
    first = pack_of(tmp_path / "one.h5", {f"a{k}": scan(k) for k in range(5)}, {"a2": 0})
    second = pack_of(tmp_path / "two.h5", {"b0": scan(90), "b1": jpeg(scan(2))}, {"b1": 1})
    assert alike_across(first, second).tolist() == [[2, 1]]
    assert alike_across(second, first).tolist() == [[1, 2]]
    found = clusters([first, second])
    assert [[(p.name, row) for p, row in members] for members in found] == [[("one", 2), ("two", 1)]]
    assert list(conflicts(found)) == [0]


def test_the_command_lists_clusters_for_people_and_for_programs(usbench: Callable[..., Any], tmp_path: Path) -> None:
    pack_of(tmp_path / "one.h5", {"a": scan(1), "b": scan(2)}, {"a": 0})
    pack_of(tmp_path / "two.h5", {"c": scan(1)[:, ::-1].copy()}, {"c": 1})
    paths = [str(tmp_path / name) for name in ("one.h5", "two.h5")]
    said = usbench("data", "leaks", *paths)
    assert said.code == 0 and "labels conflict: one/a (benign), two/c (malignant)" in said.out
    assert json.loads(usbench("data", "leaks", *paths, "--json").out) == [["one/a", "two/c"]]


def test_a_pack_that_was_changed_is_not_searched(usbench: Callable[..., Any], tmp_path: Path) -> None:
    pack_of(path := tmp_path / "one.h5", {"a": scan(1), "b": scan(2)})
    with h5py.File(path, "r+") as file:
        file["images"][0] = 0
    said = usbench("data", "leaks", path)
    assert said.code == 2 and "was changed after it was written" in said.one_sentence()


def test_the_contact_sheet_shows_what_was_found_or_says_that_there_is_nothing(
    usbench: Callable[..., Any], tmp_path: Path
) -> None:
    pack_of(tmp_path / "one.h5", {"a": scan(1), "b": scan(2), "c": jpeg(scan(1))})
    pack_of(tmp_path / "two.h5", {"d": scan(3)})
    sheet = tmp_path / "sheet.png"
    assert usbench("data", "leaks", tmp_path / "one.h5", "-o", sheet).code == 0
    assert Image.open(sheet).size[0] > 1000
    sheet.unlink()
    none = usbench("data", "leaks", tmp_path / "two.h5", "-o", sheet)
    assert none.code == 0 and "sheet.png is not drawn" in none.err and "0 clusters" in none.out
    assert "cannot be written" in usbench("data", "leaks", tmp_path / "one.h5", "-o", tmp_path).one_sentence()
    assert not sheet.exists()
