"""Places that cannot be written: read-only, full, a file where a folder should be. One sentence, nothing left."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from entry import call, files_below
from kinds import STEPS, TINY, World
from PIL import Image

Words = Callable[[World, Path], list[object]]
WRITERS: dict[str, Words] = {
    "import": lambda world, at: ["data", "import", "folder:name=x", world.release, "-o", at / "o.h5"],
    "make": lambda world, at: ["data", "make", "phantom:l7,patients=6,size=32", "-o", at / "o.h5"],
    "splits": lambda world, at: ["data", "splits", world.pack, "-o", at / "o.json"],
    "data preview": lambda world, at: ["data", "preview", world.pack, "-o", at / "o.png"],
    "preview": lambda world, at: ["preview", "--aug", "spatial", "--data", world.pack, "-o", at / "o.png"],
    "csv": lambda world, at: ["leaderboard", world.store, "--csv", at / "o.csv"],
    "md": lambda world, at: ["leaderboard", world.store, "--md", at / "o.md"],
    "export": lambda world, at: ["export", world.run, "-o", at / "o"],
    "predict": lambda world, at: ["predict", world.exported, world.release / "images", "-o", at / "o"],
    "new": lambda world, at: ["plugins", "new", "mine", "--kind", "loss", "-o", at],
    "save-config": lambda world, at: [
        "run", "--loss", "none", *TINY, *STEPS, "--data", world.pack, "--out", at.parent / "never", "--dry-run",
        "--save-config", at / "o.toml",
    ],
    "run": lambda world, at: ["run", "--loss", "none", *TINY, *STEPS, "--data", world.pack, "--out", at],
}  # fmt: skip


def refused(words: list[object], *names: str) -> None:
    """One sentence that names the place, and exit code 2."""
    ended = call(*words)
    lines = ended.err.splitlines()
    assert ended.code == 2 and len(lines) == 1 and "unexpected" not in ended.err, (ended, ended.trace)
    assert lines[0].startswith("usbench: ") and any(name in lines[0] for name in names), lines


@pytest.mark.parametrize("what", WRITERS)
def test_a_file_where_a_folder_should_be(world: World, tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("mine")
    refused(WRITERS[what](world, tmp_path / "file"), "file")
    assert files_below(tmp_path) == {"file"} and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("what", [name for name in WRITERS if name != "new"])
def test_a_folder_where_a_file_should_be(world: World, tmp_path: Path, what: str) -> None:
    words = WRITERS[what](world, tmp_path)
    if what in ("export", "predict"):
        (tmp_path / "o").write_text("mine")
    elif what == "run":
        (tmp_path / "stages").write_text("mine")
    else:
        Path(str(words[-1])).mkdir()
    before = files_below(tmp_path)
    refused(words, str(tmp_path))
    assert files_below(tmp_path) - {"store.json"} == before


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """A folder in which nobody can write: by its mode or, for root whom no mode stops, by mounting it so."""
    folders = [folder, *(place for place in folder.rglob("*") if place.is_dir())]
    if os.geteuid():
        for place in folders:
            place.chmod(0o500)
    elif subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], capture_output=True).returncode:
        pytest.skip("a read-only file system cannot be mounted here")
    try:
        yield
    finally:
        if os.geteuid():
            for place in folders:
                place.chmod(0o700)
        else:
            subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("what", WRITERS)
def test_a_place_that_may_not_be_written(world: World, tmp_path: Path, what: str) -> None:
    (tmp_path / "locked").mkdir()
    with _read_only(tmp_path / "locked"):
        refused(WRITERS[what](world, tmp_path / "locked"), "locked")


def test_a_store_that_may_only_be_read_is_read(world: World, tmp_path: Path) -> None:
    store = shutil.copytree(world.store, tmp_path / "store")
    with _read_only(store):
        with pytest.raises(OSError):
            (store / "probe").touch()
        for words in (["leaderboard", store], ["show", store / world.run.name], ["verify", store]):
            assert call(*words).code == 0, words


@contextlib.contextmanager
def _full(after: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: writing then fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("after", [0, 100, 5000])
@pytest.mark.parametrize("what", [name for name in WRITERS if name not in ("run", "new")])
def test_a_disk_that_is_full(world: World, tmp_path: Path, what: str, after: int) -> None:
    at = tmp_path / "full"
    at.mkdir()
    words = WRITERS[what](world, at)
    ended = None
    with _full(after):
        ended = call(*words)
    if ended.code == 0 and after == 5000:  # it was not so large
        return
    lines = ended.err.splitlines()
    assert ended.code == 2 and len(lines) == 1 and "unexpected" not in ended.err, (ended, ended.trace)
    assert str(tmp_path) in lines[0], lines
    whole = {name for name in files_below(at) if what == "predict" and (at / name).suffix == ".png"}  # those before
    assert not files_below(at) - whole - {"o", "o/masks", "o/overlays"}, files_below(at)
    for name in whole:
        Image.open(at / name).load()


def test_a_run_on_a_full_disk_goes_on_when_there_is_room(world: World, tmp_path: Path) -> None:
    words = WRITERS["run"](world, tmp_path / "out")
    with _full(50_000):
        refused(words, str(tmp_path))
    assert not list((tmp_path / "out" / "stages").glob("*/record.json"))
    done = call(*words, seconds=100)
    assert done.code == 0, done
    assert not [name for name in files_below(tmp_path) if name.endswith((".tmp", ".part"))]
