"""A pack that was changed in place is not planned with, and one that was not is read once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest

from usbench.data.checked import check_once
from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.hooks import Registry
from usbench.runs.plan import make_plan
from usbench.spec import resolve


@pytest.fixture
def copy(tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path / "home"))
    return Path(shutil.copy(tiny_pack, tmp_path / "p.h5"))


def mend_masks(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["mask"][3] = ~file["mask"][3]


@pytest.mark.parametrize("flag", ["data", "ood", "pretrain_data"])
def test_masks_that_were_mended_in_place_are_refused_when_a_run_is_planned(
    copy: Path, installed: Registry, tiny_settings: dict[str, Any], tiny_target: Path, flag: str
) -> None:
    given = {**tiny_settings, "ood": [], "data": [str(tiny_target)], "loss": "simclr", flag: [str(copy)]}
    make_plan(installed, resolve(given), lambda *_: None)
    mend_masks(copy)
    with pytest.raises(UsbenchError) as refusal:
        make_plan(installed, resolve(given), lambda *_: None)
    said = str(refusal.value)
    assert f"{copy} was changed after it was written" in said and "import it again" in said and "data check" in said


def test_a_pack_is_read_once_until_its_file_is_another_one(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(Pack, "check", lambda self: read.append(self.path))
    pack = Pack(copy)
    check_once(pack)
    check_once(pack)
    assert read == [copy]
    os.utime(copy, (1, 1))
    check_once(pack)
    copy.with_suffix(".new").write_bytes(copy.read_bytes())
    os.utime(copy.with_suffix(".new"), (1, 1))
    copy.with_suffix(".new").rename(copy)
    check_once(pack)
    assert read == [copy] * 3


def test_where_nothing_can_be_remembered_each_process_reads_it_once(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("no folder")
    check_once(Pack(copy))
    with monkeypatch.context() as patched:
        patched.setattr(Pack, "check", lambda self: pytest.fail("it was read by this process"))
        check_once(Pack(copy))
    mend_masks(copy)
    with pytest.raises(UsbenchError, match="was changed after it was written"):
        check_once(Pack(copy))


def test_the_check_needs_no_torch() -> None:
    code = "import sys, usbench.runs.plan, usbench.data.checked; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
