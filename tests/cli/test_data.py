"""`usbench data list, info, check`, and what they say to programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path))
    return tmp_path


def test_list_names_the_packs_of_the_home(
    home: Path, usbench: Callable[..., Any], make_pack: Callable[..., Path], make_scans: Callable[..., Any]
) -> None:
    assert "no pack" in usbench("data", "list").out
    assert json.loads(usbench("data", "list", "--json").out) == []
    make_pack(home / "discs.h5", make_scans(5), name="discs", licence="CC0")
    (home / "odd.h5").write_bytes(b"odd")
    said = usbench("data", "list")
    assert said.code == 0 and "10 images" in said.out and "CC0" in said.out and "not a complete pack" in said.out
    rows = {Path(row["path"]).stem: row for row in json.loads(usbench("data", "list", "--json").out)}
    assert (rows["discs"]["name"], rows["discs"]["images"], rows["discs"]["licence"]) == ("discs", 10, "CC0")
    assert "trouble" in rows["odd"]


def test_info_counts_what_a_slow_look_counts(
    home: Path, usbench: Callable[..., Any], make_pack: Callable[..., Path], make_scans: Callable[..., Any]
) -> None:
    items = list(make_scans(20))
    for item in items[:10]:
        item.sector = np.zeros(item.image.shape, np.bool_)
        item.sector[:, : item.image.shape[1] // 2] = True
    path = make_pack(home / "discs.h5", iter(items), name="discs")
    facts = json.loads(usbench("data", "info", "discs", "--json").out)
    assert facts == json.loads(usbench("data", "info", path, "--json").out)
    labels = [item.label for item in items]
    assert facts["labels"] == {name: labels.count(i) for i, name in enumerate(("benign", "malignant", "normal"))}
    assert facts["patients"] == 20 and facts["videos"] == 5 and facts["groups"] == 20
    assert facts["devices"] == {"test": 40} and facts["folds"] == {}
    assert facts["annotated"] == 40 and facts["with_lesion"] == sum(item.mask.any() for item in items)
    assert facts["sector_share"] == pytest.approx((10 * 0.5 + 30) / 40, abs=0.01)
    sides = facts["splits"]["100"]
    assert sides["train"] + sides["test"] == 40 and sides["labelled"] + sides["inner"] == sides["train"]
    assert facts["splits"]["20"]["labelled"] < facts["splits"]["50"]["labelled"] < sides["labelled"] + sides["inner"]
    assert set(facts["test_folds"]) == set("01234") and sum(facts["test_folds"].values()) == 40
    assert facts["without_device"] == {}
    shown = usbench("data", "info", "discs").out
    assert "benign 16" in shown and "patients   20" in shown and facts["digest"] in shown


def test_info_of_too_few_patients_says_so_and_goes_on(
    home: Path, usbench: Callable[..., Any], make_pack: Callable[..., Path], make_scans: Callable[..., Any]
) -> None:
    make_pack(home / "few.h5", make_scans(3), name="few")
    said = usbench("data", "info", "few")
    assert said.code == 0 and "at least 5 are needed" in said.out


def test_check_reads_the_whole_pack(
    home: Path, usbench: Callable[..., Any], make_pack: Callable[..., Path], make_scans: Callable[..., Any]
) -> None:
    path = make_pack(home / "discs.h5", make_scans(3), name="discs")
    assert usbench("data", "check", path).code == usbench("data", "check", "discs", path).code == 0
    with h5py.File(path, "r+") as file:
        file["images"][0, 5, 5] = 255 - file["images"][0, 5, 5]
    said = usbench("data", "check", path)
    assert said.code == 1 and "was changed" in said.one_sentence()
    assert usbench("data", "check", home / "absent.h5").code == 2


def test_info_says_who_is_left_without_each_device(
    home: Path, usbench: Callable[..., Any], make_pack: Callable[..., Path], make_scans: Callable[..., Any]
) -> None:
    items = list(make_scans(20))
    for item in items:
        item.device = "old" if item.patient < "p006" else "new"
    make_pack(home / "discs.h5", iter(items), name="discs")
    facts = json.loads(usbench("data", "info", "discs", "--json").out)["without_device"]
    assert {device: sides["unseen"] for device, sides in facts.items()} == {"old": 12, "new": 28}
    assert all(sum(sides.values()) == 40 for sides in facts.values())
    assert "without    old: train" in usbench("data", "info", "discs").out


def test_an_importer_that_cannot_be_made_is_told_with_its_file_and_line(
    tmp_path: Path, usbench: Callable[..., Any]
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "clinic.py").write_text(
        "import usbench\n\nclass Clinic(usbench.Dataset):\n    def __init__(self):\n        raise RuntimeError('no')\n"
        "@usbench.hookimpl\ndef usbench_datasets(register):\n    register('clinic', Clinic, summary='ours')\n"
    )
    said = usbench("--plugins-dir", tmp_path / "plugins", "data", "import", "clinic", tmp_path)
    assert said.code == 1 and "data set 'clinic' failed: RuntimeError: no (clinic.py, line 5)" in said.one_sentence()
