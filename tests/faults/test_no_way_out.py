"""No pickle is loaded, nothing of a file is run, and no name leads out of the folder that it belongs in."""

from __future__ import annotations

import ast
import io
import json
import pickle
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from entry import call
from kinds import STEPS, TINY, World
from PIL import Image

from usbench.data.pack import digest_of
from usbench.data.pixels import read_grey

ROOT = Path(__file__).parents[2]
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.hub.load"),
    *("pd.read_pickle", "pandas.read_pickle"),
}
# Lines of Python that a model card will show, made of names that timm and smp know, tried before they are written.
ALLOWED = {("usbench/share/recipes.py", "eval")}


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def _dangers(path: Path) -> list[tuple[str, str]]:
    """(file, what) of everything in a module that could run what a file holds."""
    name, found = path.relative_to(ROOT).as_posix(), []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [(name, module) for module in modules if module.partition(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if _called(node) in CALLS:
                found.append((name, _called(node)))
            if words.get("shell", "False") != "False" or words.get("weights_only", "True") != "True":
                found.append((name, ast.unparse(node)))
            if _called(node) in ("np.load", "numpy.load") and words.get("allow_pickle") != "False":
                found.append((name, "np.load without allow_pickle=False"))
    return found


def test_nothing_in_the_code_loads_a_pickle_or_runs_a_text() -> None:
    files = [path for folder in ("usbench", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    assert {danger for path in files for danger in _dangers(path)} == ALLOWED


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return io.open, (str(self.path), "w")


@pytest.fixture
def fuse(tmp_path: Path) -> Path:
    """The file that shows that a pickle was loaded."""
    return tmp_path / "loaded"


def test_a_pickle_under_another_name_is_refused_and_not_loaded(world: World, tmp_path: Path, fuse: Path) -> None:
    import torch

    raw = pickle.dumps(Bomb(fuse))
    zipped = io.BytesIO()
    torch.save({"a": Bomb(fuse)}, zipped)
    npz = io.BytesIO()
    np.savez(npz, a=np.array([Bomb(fuse)], object))
    fuse.unlink(missing_ok=True)
    for place, data in enumerate((raw, zipped.getvalue(), npz.getvalue())):
        folder = tmp_path / str(place)
        (folder / "images").mkdir(parents=True)
        for name in ("w.safetensors", "p.h5", "r.zip", "images/a.png", "s.json", "c.toml"):
            (folder / name).write_bytes(data)
        (folder / "config.json").write_bytes((world.exported / "config.json").read_bytes())
        run = ["run", "--loss", "none", *TINY, *STEPS, "--data", world.pack, "--out", folder / "out"]
        for words in (
            [*run, "--init", folder / "w.safetensors"], [*run, "--split", folder / "s.json"],
            [*run, "--config", folder / "c.toml"], ["data", "check", folder / "p.h5"],
            ["data", "import", "folder:name=x", folder / "r.zip", "-o", folder / "o.h5"],
            ["data", "import", "folder:name=x", folder, "-o", folder / "o.h5"],
            ["predict", folder / "w.safetensors", world.release / "images" / "p00.png", "-o", folder / "o"],
        ):  # fmt: skip
            ended = call(*words)
            assert ended.code == 2 and len(ended.err.splitlines()) == 1, (words, ended)
    assert not fuse.exists()


def test_a_pickle_in_the_cache_of_likenesses_is_not_loaded(
    world: World, tmp_path: Path, fuse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path / "home"))
    assert call("data", "leaks", world.pack).code == 0
    cached = sorted((tmp_path / "home" / "likeness").iterdir())
    assert cached
    for path in cached:
        np.save(path, np.array([Bomb(fuse)], object), allow_pickle=True)
    fuse.unlink(missing_ok=True)
    assert call("data", "leaks", world.pack).code == 0
    assert not fuse.exists()


# Names


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "..", "a\\b", "x" * 5000, "a b", "a\nb", "CON:", ""])
def test_a_pack_cannot_be_called_so_that_it_leaves_its_folder(world: World, tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.h5"
    path.write_bytes(world.pack.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["dataset"] = name
    ended = call("data", "info", path)
    assert (ended.code == 2 and "p.h5" in ended.err and len(ended.err) < 1000) or name == "..", ended
    if name:
        said = call("data", "import", f"folder:name={name}", world.release)
        assert said.code == 2 and len(said.err.splitlines()) == 1, said


def test_the_digest_of_a_pack_cannot_name_a_file_elsewhere(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USBENCH_DATA", str(tmp_path / "home"))
    path = tmp_path / "p.h5"
    path.write_bytes(world.pack.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["digest"] = "../../outside"
    ended = call("data", "leaks", path, world.pack)
    assert ended.code == 2 and "its digest is none" in ended.err
    assert not list(tmp_path.rglob("*outside*"))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        (flag, value)
        for flag in ("--loss", "--aug", "--backbone", "--data", "--ood", "--protocol", "--preset", "--leave-device")
        for value in ("../../outside", "/etc/passwd", "CON", "x" * 5000, "\x1b[31mred", "\u202e")
    ],
)
def test_a_name_on_the_command_line_leaves_nothing_anywhere(
    world: World, tmp_path: Path, flag: str, value: str
) -> None:
    given = ["--loss", "none", "--data", world.pack, "--out", tmp_path / "out", "--dry-run", flag, value]
    ended = call("run", *given)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1 and "\x1b" not in ended.err, ended
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["evaluate-../../../etc", "evaluate-/etc", "../x", "evaluate-a\0b", ""])
def test_a_run_cannot_name_a_stage_outside_its_store(world: World, tmp_path: Path, stage: str) -> None:
    import shutil

    store = shutil.copytree(world.store, tmp_path / "store")
    path = store / world.run.name / "run.json"
    run = json.loads(path.read_text())
    run["stages"][-1][0] = stage
    path.write_text(json.dumps(run))
    ended = call("show", path.parent)
    assert ended.code == 2 and "run.json" in ended.err and "no stage is called" in ended.err, ended


def test_a_zip_is_read_where_it_lies_and_writes_nothing_but_the_pack(world: World, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        for path in sorted(world.release.rglob("*.*")):
            archive.write(path, path.relative_to(world.release))
    assert call("data", "import", "folder:name=x", tmp_path / "r.zip", "-o", tmp_path / "x.h5").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.zip", "x.h5"]


def test_an_image_is_imported_as_its_camera_held_it() -> None:
    grey = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60) // 10 * 10
    for orientation, turned in ((1, grey), (3, grey[::-1, ::-1]), (6, np.rot90(grey, -1)), (8, np.rot90(grey))):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        Image.fromarray(grey).save(file, "PNG", exif=exif)
        np.testing.assert_array_equal(read_grey(file.getvalue()), turned)


def test_names_of_strangers_do_not_command_a_terminal(world: World, tmp_path: Path) -> None:
    path = tmp_path / "p.h5"
    path.write_bytes(world.pack.read_bytes())
    with h5py.File(path, "r+") as file:
        for field in ("device", "tag", "patient"):
            file[field][:] = "\x1b[2Jred\a"
        file["name"][:] = [f"\x1b[2J{place}" for place in range(len(file["name"]))]
        file.attrs["licence"] = "\x1b]0;title\a"
        file.attrs["digest"] = digest_of(file)
    for words in (["data", "info", path], ["data", "leaks", path, world.pack], ["data", "check", path]):
        ended = call(*words)
        assert ended.code in (0, 1) and not {"\x1b", "\a"} & set(ended.out + ended.err), ended
