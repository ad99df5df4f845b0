"""Every error that a user can cause is one sentence on stderr and exit code 2 (1 where a run failed), without a
traceback, and leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from usbench import hooks, machine
from usbench.data import pack as packs
from usbench.runs import store as stores

Call = Callable[..., Any]

PLUGIN = """
import torch
from usbench import Loss, hookimpl


class Mine(Loss):
    def objective(self, out, batch):
        {body}


@hookimpl
def usbench_losses(register):
    register("mine", Mine, summary="a loose loss")
"""


def loose(folder: Path, text: str, name: str = "mine") -> Path:
    """A folder with one loose plugin."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A store that is not there yet."""
    return tmp_path / "runs"


def refused(said: Any, *words: str, code: int = 2) -> None:
    """It ended in one sentence with these words in it."""
    assert said.code == code, said
    sentence = said.one_sentence()
    for word in words:
        assert word in sentence, sentence


def stages(out: Path) -> list[str]:
    """What stands in a store's folder of stages."""
    return sorted(f.name for f in (out / "stages").iterdir()) if (out / "stages").exists() else []


# Names


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--loss", "simcrl", "unknown loss 'simcrl': did you mean 'simclr'?"),
        ("--aug", "spatail", "unknown augmentation 'spatail': did you mean 'spatial'?"),
        ("--aug", "freq+spatail", "did you mean 'spatial'?"),
        ("--backbone", "unet-tyni", "unknown backbone 'unet-tyni': did you mean 'unet-tiny'?"),
        ("--data", "phantmo", "unknown dataset 'phantmo': did you mean 'phantom'?"),
        ("--ood", "phantmo", "unknown dataset 'phantmo': did you mean 'phantom'?"),
        ("--protocol", "segmnt", "unknown protocol 'segmnt': did you mean 'segment'?"),
        ("--preset", "quik", "unknown preset 'quik': did you mean 'quick'?"),
        ("--loss", "simclr:temprature=1", "unknown option 'temprature' of loss 'simclr': did you mean 'temperature'?"),
        ("--set", "pretrain.stepz=3", "unknown setting 'stepz' in pretrain: did you mean 'steps'?"),
        ("--set", "pretrian.steps=3", "unknown setting 'pretrian': did you mean 'pretrain'?"),
        ("--data", "phantom:l7,patiens=3", "unknown option 'patiens' of dataset 'phantom': did you mean 'patients'?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    usbench: Call, out: Path, flag: str, value: str, words: str
) -> None:
    given = ["--loss", "simclr"] if flag != "--loss" else []
    refused(usbench("run", *given, flag, value, "--out", out), words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["rnu"], "unknown command 'rnu': did you mean 'run'?"),
        (["plugins", "lsit"], "unknown command 'lsit': did you mean 'list'?"),
        (["data", "mkae"], "unknown command 'mkae': did you mean 'make'?"),
        (["plugins", "show", "simcrl"], "unknown plugin 'simcrl': did you mean 'simclr'?"),
        (["preview", "--aug", "spatail", "-o", "x.png"], "did you mean 'spatial'?"),
        (["data", "make", "phantmo"], "did you mean 'phantom'?"),
        (["run", "--los", "simclr"], "--loss"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(usbench: Call, words: list[str], nearest: str) -> None:
    refused(usbench(*words), nearest)


# Values


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--labels", "0"], "above 0 and up to 100, not 0"),
        (["--labels", "101"], "above 0 and up to 100, not 101"),
        (["--labels", "few"], "--labels 'few' are not numbers"),
        (["--labels", "nan"], "above 0 and up to 100, not nan"),
        (["--labels", ","], "labels"),
        (["--seeds", "0"], "at least one seed"),
        (["--seeds", "two"], "'two' is not a valid integer"),
        (["--seeds", "2", "--seed", "1"], "exclude each other"),
        (["--seed", "one"], "--seed 'one' are not numbers"),
        (["--seed", "-1"], "whole numbers from 0"),
        (["--set", "steps=3"], "--set steps=3: write for example"),
        (["--set", "pretrain.steps"], "--set pretrain.steps: write for example"),
        (["--set", "pretrain.steps=many"], "pretrain.steps"),
        (["--set", "finetune.lr=-1"], "finetune.lr"),
        (["--set", "finetune.lr=nan"], "finetune.lr"),
        (["--set", "finetune.lr=inf"], "finetune.lr"),
        (["--set", "finetune.weight_decay=inf"], "finetune.weight_decay"),
        (["--set", "pretrain.encoder_factor=0.1"], "encoder_factor is 1 and not 0.1: set pretrain.lr"),
        (["--set", "loss.name=x"], "loss"),
        (["--size", "8"], "size"),
        (["--size", "big"], "'big' is not a valid integer"),
        (["--fold", "9"], "fold 9 does not exist"),
        (["--threads", "-1"], "threads"),
        (["--devices", "0"], "devices"),
        (["--devices", "3"], "--devices 3 cannot share pretrain.batch=8 evenly: use --devices 2"),
        (["--loss", "meta-uscl", "--devices", "2"], "'meta-uscl' cannot be trained on several devices together"),
        (["--device", "tpu"], "auto, cpu or cuda, not 'tpu'"),
        (["--precision", "int8"], "auto, bf16 or float32, not 'int8'"),
        (["--loss", "simclr:temperature=warm"], "option 'temperature' of loss 'simclr' must be float, not 'warm'"),
        (["--loss", "none:1"], "'none' takes no options"),
        (["--loss", ""], "names no plugin"),
        (["--aug", ""], "names no plugin"),
        (["--init", "nowhere.safetensors"], "--init nowhere.safetensors cannot be read"),
        (["--data", "a.h5", "--data", "b.h5"], "no pack at a.h5"),
        (["--leave-device", "tset"], "did you mean 'test'"),
        (["--split", "nowhere.json"], "split file nowhere.json cannot be read"),
        (["--split", "other=nowhere.json"], "unknown pack 'other'"),
        (["--split", "a.json", "--fold", "1"], "exclude each other"),
        (["--split", ""], "names no file"),
        (["--split", "discs="], "names no file"),
        (["--data", ""], "has no name"),
        (["--ood", "phantom:l12+"], "has no name"),
        (["--pretrain-data", "phantm"], "did you mean 'phantom'"),
        (["--data"], "requires an argument"),
    ],
)
def test_a_wrong_value_is_named(usbench: Call, tiny: list[str], out: Path, given: list[str], words: str) -> None:
    refused(usbench("run", "--loss", "simclr", *tiny, "--out", out, *given), words)
    assert not out.exists()


def test_no_loss_is_answered_with_an_example(usbench: Call, out: Path) -> None:
    refused(usbench("run", "--out", out), "--loss simclr")


def test_a_gpu_that_is_not_there_is_said_before_anything_runs(usbench: Call, tiny: list[str], out: Path) -> None:
    if machine.resolve_device("auto") == "cuda":
        pytest.skip("there is a GPU here")
    refused(usbench("run", "--loss", "simclr", *tiny, "--device", "cuda", "--out", out), "--device cuda: no CUDA")
    assert not out.exists()


def test_one_set_is_not_trained_and_tested_on_at_once(usbench: Call, tiny: list[str], tiny_pack: Path) -> None:
    refused(usbench("run", "--loss", "none", *tiny, "--ood", tiny_pack), "'discs' stands in --data and --ood")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("loss = ", "is not TOML"),
        ("loss = 'none'\nbakbone = 'unet-tiny'", "unknown setting 'bakbone': did you mean 'backbone'?"),
        ("[run]\nloss = 'none'\n[run.pretrain]\nstep = 3", "unknown setting 'step' in pretrain: did you mean 'steps'?"),
        ("run = 3", "has no table [run]"),
        ("loss = 3", "loss"),
        ("loss = ['none']", "loss"),
        ("loss = 'none'\nlabels = 'all'", "labels"),
        ("loss = 'none'\npreset = 3", "unknown preset '3'"),
        ("loss = 'none'\npreset = ['quick']", "unknown preset"),
        ("loss = 'none'\npretrain = 3", "pretrain"),
        ("loss = 'none'\nsize = 'big'", "size"),
    ],
)
def test_a_config_that_is_none_is_refused(usbench: Call, tmp_path: Path, out: Path, text: str, words: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    refused(usbench("run", "--config", tmp_path / "run.toml", "--out", out), words)
    assert not out.exists()


def test_a_config_that_is_not_there_or_a_folder_is_refused(usbench: Call, tmp_path: Path) -> None:
    refused(usbench("run", "--config", tmp_path / "run.toml"), "run.toml cannot be read")
    refused(usbench("run", "--config", tmp_path), "cannot be read")


def test_a_config_that_cannot_be_saved_is_refused_before_anything_runs(
    usbench: Call, tiny: list[str], tmp_path: Path, out: Path
) -> None:
    said = usbench("run", "--loss", "none", *tiny, "--out", out, "--save-config", tmp_path / "no" / "folder.toml")
    refused(said, "--save-config", "cannot be written")
    assert not out.exists()


# Places


def test_a_store_that_is_a_file_or_lies_below_one_is_refused(usbench: Call, tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        refused(usbench("run", "--loss", "none", *tiny, "--out", place), "--out", "is a file; name a folder")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where nobody can write")
def test_a_store_that_cannot_be_written_is_refused(usbench: Call, tiny: list[str]) -> None:
    refused(usbench("run", "--loss", "none", *tiny, "--out", "/proc/runs"), "--out /proc/runs cannot be written")


def test_a_newer_store_is_refused_and_left_alone(usbench: Call, tiny: list[str], out: Path) -> None:
    out.mkdir()
    (out / "store.json").write_text(json.dumps({"schema": stores.SCHEMA + 1}))
    for words in (["run", "--loss", "none", *tiny, "--out", out], ["leaderboard", out]):
        refused(usbench(*words), f"store schema {stores.SCHEMA + 1}, newer than the {stores.SCHEMA} known here")
    assert [f.name for f in out.iterdir()] == ["store.json"]


def test_a_folder_that_is_no_run_or_no_store_is_refused(usbench: Call, tmp_path: Path) -> None:
    refused(usbench("show", tmp_path), "is no run's folder")
    refused(usbench("show", tmp_path / "nothing"), "is no run's folder")
    refused(usbench("leaderboard", tmp_path), "is no usbench store")
    refused(usbench("leaderboard", tmp_path / "nothing"), "is no usbench store")
    assert not list(tmp_path.iterdir())


def test_show_names_the_runs_that_may_have_been_meant(usbench: Call, tmp_path: Path) -> None:
    for name in ("rcl-freq-0123", "rcl-spatial-4567", "simclr-freq-89ab", "mae-none-cdef"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    said = usbench("show", tmp_path / "rcl-freq-012").one_sentence()
    assert f"did you mean {tmp_path / 'rcl-freq-0123'} or " in said and "mae" not in said and said.endswith("?")
    said = usbench("show", tmp_path).one_sentence()
    assert said.count(f"{tmp_path}/") == 3 and " or " in said


def test_an_empty_store_has_no_leaderboard(usbench: Call, out: Path, tmp_path: Path) -> None:
    stores.Store(out).open()
    refused(usbench("leaderboard", out, "--csv", tmp_path / "table.csv"), "no finished result")
    assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"stages": 3}', '{"stages": []}'])
def test_a_damaged_run_is_refused(usbench: Call, out: Path, text: str) -> None:
    stores.Store(out).open()
    (out / "simclr-1").mkdir()
    (out / "simclr-1" / "run.json").write_text(text)
    refused(usbench("show", out / "simclr-1"), "run.json cannot be read")


# Packs


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file["weights"] = np.zeros(3)


def newer(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = packs.SCHEMA + 1


def text(path: Path) -> None:
    path.write_text("name,label\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (half, "is not a complete pack"),
        (text, "is not a complete pack"),
        (foreign, "is an HDF5 file but no usbench pack"),
        (newer, f"pack schema {packs.SCHEMA + 1}, newer than the {packs.SCHEMA} known here"),
        (Path.unlink, "there is no pack at"),
    ],
)
@pytest.mark.parametrize("flag", ["--data", "--ood"])
def test_a_pack_that_is_none_is_refused_before_anything_runs(
    usbench: Call, tiny: list[str], tmp_path: Path, out: Path, damage: Callable[[Path], None], words: str, flag: str
) -> None:
    place = tiny.index(flag) + 1
    copy = Path(shutil.copy(tiny[place], tmp_path / "copy.h5"))
    damage(copy)
    given = [*tiny[:place], str(copy), *tiny[place + 1 :]]
    refused(usbench("run", "--loss", "simclr", *given, "--out", out), words, str(copy))
    assert not out.exists()


def test_a_folder_called_like_a_pack_is_refused(usbench: Call, tmp_path: Path) -> None:
    (tmp_path / "a.h5").mkdir()
    refused(usbench("run", "--loss", "none", "--data", tmp_path / "a.h5"), "there is no pack at")


def test_a_pack_that_cannot_be_written_is_refused_and_leaves_nothing(usbench: Call, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    said = usbench("data", "make", "phantom:l7,patients=6,size=32", "-o", tmp_path / "file" / "a.h5")
    refused(said, "a.h5 cannot be written")
    refused(usbench("data", "make", "phantom:l9", "-o", tmp_path / "a.h5"), "domains are l7, l12, c5")
    refused(usbench("data", "make", "phantom:l7,patients=0", "-o", tmp_path / "a.h5"), "at least one patient")
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


IMPORTER = """
import numpy as np
from usbench import Dataset, Item, hookimpl


class Scans(Dataset):
    def items(self, path):
        yield Item("first", np.zeros((40, 40), np.uint8))
        for file in ("images/second.bin", "images/third.bin"):
            yield Item(file, np.frombuffer((path / file).read_bytes(), np.uint8).reshape(4, 4))


@hookimpl
def usbench_datasets(register):
    register("scans", Scans, summary="a release of binary files")
"""


def test_a_release_that_is_not_whole_is_refused_by_the_file_and_leaves_no_pack(
    usbench: Call, tmp_path: Path, data_home: Path
) -> None:
    before = sorted(data_home.iterdir())
    plugins = loose(tmp_path / "plugins", IMPORTER)
    (tmp_path / "release" / "images").mkdir(parents=True)
    (tmp_path / "release" / "images" / "second.bin").write_bytes(bytes(16))

    def called(*words: object) -> Any:
        return usbench("--plugins-dir", plugins, "data", "import", *words)

    refused(called("scans", tmp_path / "no"), "there is nothing at")
    refused(called("scnas", tmp_path / "release"), "unknown dataset 'scnas': did you mean 'scans'?")
    refused(called("phantom", tmp_path / "release"), "'phantom' is simulated")
    refused(called("scans", tmp_path / "release", "--size", "9"), "9 is not in the range")
    refused(called("scans", tmp_path / "release"), "third.bin cannot be read", "the whole official release of 'scans'?")
    (tmp_path / "release" / "images" / "third.bin").write_bytes(bytes(15))
    refused(called("scans", tmp_path / "release"), "data set 'scans' failed: ValueError: cannot reshape", code=1)
    assert "(mine.py, line " in called("scans", tmp_path / "release").err
    refused(usbench("--plugins-dir", plugins, "run", "--loss", "none", "--data", "scans"), "usbench data import scans")
    assert sorted(data_home.iterdir()) == before


def test_a_picture_that_cannot_be_written_is_refused(usbench: Call, tiny_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    place = tmp_path / "file" / "a.png"
    refused(usbench("data", "preview", tiny_pack, "-o", place), "a.png cannot be written")
    refused(usbench("preview", "--aug", "spatial", "--data", tiny_pack, "-o", place), "a.png cannot be written")
    refused(usbench("data", "preview", tmp_path / "no.h5", "-o", tmp_path / "a.png"), "there is no pack at")
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


# Plugins


def test_a_plugin_that_cannot_be_imported_is_listed_and_the_rest_works(
    usbench: Call, tiny: list[str], tmp_path: Path
) -> None:
    folder = loose(tmp_path / "plugins", "raise RuntimeError('no licence found')")
    listed = usbench("--plugins-dir", folder, "plugins", "list")
    assert listed.code == 0
    assert "broken: plugin 'mine' could not be loaded (RuntimeError: no licence found)" in listed.out
    assert "  simclr" in listed.out
    refused(usbench("--plugins-dir", folder, "run", "--loss", "mine"), "unknown loss 'mine'", "no licence found")
    assert usbench("--plugins-dir", folder, "run", "--loss", "simclr", *tiny, "--dry-run").code == 0


def test_a_plugin_that_leaves_the_program_is_broken_too(usbench: Call, tmp_path: Path) -> None:
    listed = usbench("--plugins-dir", loose(tmp_path / "plugins", "raise SystemExit(3)"), "plugins", "list")
    assert listed.code == 0 and "broken: plugin 'mine'" in listed.out


@pytest.mark.parametrize("hook", [None, "usbench_losses"])
def test_a_name_whose_file_could_not_be_loaded_is_answered_with_the_reason(
    usbench: Call, tmp_path: Path, hook: str | None
) -> None:
    body = PLUGIN.format(body="return out.z")
    folder = loose(tmp_path / "plugins", body.replace(hook, "usbench_loses") if hook else f"{body}\n1 +")
    for command in ("check", "show"):
        said = usbench("--plugins-dir", folder, "plugins", command, "mine")
        refused(said, "unknown plugin 'mine'", "could not be loaded: 'mine' (", "usbench_loses" if hook else "Syntax")


@pytest.mark.parametrize("where", ["objective", "__init__", "hook"])
def test_a_loss_that_leaves_the_program_is_a_sentence_in_a_check_and_in_a_run(
    usbench: Call, tiny: list[str], tmp_path: Path, out: Path, where: str
) -> None:
    body = PLUGIN.format(body="raise SystemExit('bye')" if where == "objective" else "return out.z")
    if where == "__init__":
        body = body.replace(
            "    def objective", "    def __init__(self, network):\n        exit('bye')\n\n    def objective"
        )
    elif where == "hook":
        body = body.replace("    register(", "    raise SystemExit('bye')\n    register(")
    folder = loose(tmp_path / "plugins", body)
    checked = usbench("--plugins-dir", folder, "plugins", "check", "mine")
    assert checked.code in (1, 2) and "SystemExit: bye" in checked.out + checked.err
    said = usbench("--plugins-dir", folder, "run", "--loss", "mine", *tiny, "--out", out)
    assert said.code in (1, 2) and "SystemExit: bye" in said.one_sentence()


def test_two_plugins_with_one_name_are_both_named(usbench: Call, tmp_path: Path) -> None:
    again = PLUGIN.format(body="return out.z").replace('"mine"', '"simclr"')
    said = usbench("--plugins-dir", loose(tmp_path / "plugins", again), "plugins", "list")
    refused(said, "two plugins register the loss 'simclr': 'lightly' and 'mine'")


def test_a_plugins_folder_that_is_none_is_refused(usbench: Call, tmp_path: Path) -> None:
    refused(usbench("--plugins-dir", tmp_path / "no", "plugins", "list"), "is not a folder")


def test_what_a_loss_needs_and_a_pack_has_not_is_refused(
    usbench: Call, tiny: list[str], tmp_path: Path, out: Path
) -> None:
    text = PLUGIN.format(body="return out.z").replace("summary=", "needs='sound', summary=")
    said = usbench("--plugins-dir", loose(tmp_path / "p", text), "run", "--loss", "mine", *tiny, "--out", out)
    refused(said, "loss 'mine' needs sound, which 'discs' does not have; what fits:", "byol", "more.")
    assert not out.exists()


OTHERS = """
from usbench import hookimpl
from usbench.data.importing import Case, Importer

class Bad(Importer):
    layout = r"img/(\\w+"

class Worse(Importer):
    def __init__(self):
        raise RuntimeError("no")

class Sound(Importer):
    layout = r"img/\\w+[.]png"

class Wanted(Importer):
    layout = r"scans/\\w+[.]png"

@hookimpl
def usbench_datasets(register):
    for factory in (Bad, Worse, Sound, Wanted):
        register(factory.__name__.lower(), factory, summary="a set")
"""


def test_a_bad_importer_does_not_stop_another_from_being_offered(usbench: Call, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "release" / "img").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "release" / "img" / "a.png")
    said = usbench(
        "--plugins-dir", loose(tmp_path / "p", OTHERS), "data", "import", "wanted", tmp_path / "release",
        "-o", tmp_path / "x.h5",
    )  # fmt: skip
    refused(said, "This looks like a release for 'usbench data import sound'.")


# In the middle of a run


def test_a_failure_in_the_authors_code_names_its_file_and_line(
    usbench: Call, tiny: list[str], tmp_path: Path, out: Path
) -> None:
    body = "return out.features[0].mean() / (1 // (2 - batch.step))"
    folder = loose(tmp_path / "plugins", PLUGIN.format(body=body))
    said = usbench("--plugins-dir", folder, "run", "--loss", "mine", *tiny, "--labels", "100", "--out", out)
    refused(said, "failed: ZeroDivisionError", "(mine.py, line 8); 'usbench --debug' shows more", code=1)


@pytest.fixture
def tiniest(tiny: list[str]) -> list[str]:
    """One fraction, no second set."""
    place = tiny.index("--ood")
    return [*tiny[:place], *tiny[place + 2 :], "--labels", "100"]


def test_a_size_that_the_backbone_cannot_take_is_refused_before_training(
    usbench: Call, tiniest: list[str], out: Path
) -> None:
    said = usbench("run", "--loss", "simclr", *tiniest, "--size", "70", "--out", out)
    refused(said, "backbone 'unet-tiny' cannot take 70 px", "--size 64")
    assert not stages(out)


def test_weights_that_do_not_fit_are_refused_before_training(
    usbench: Call, tiniest: list[str], tmp_path: Path, out: Path
) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "text.safetensors").write_text("weights")
    save_file({"conv1.weight": np.zeros((3, 3), np.float32)}, tmp_path / "other.safetensors")
    for name, words in (
        ("text", "is not a whole safetensors file"),
        ("other", "does not fit the encoder"),
    ):
        said = usbench("run", "--loss", "none", *tiniest, "--init", tmp_path / f"{name}.safetensors", "--out", out)
        refused(said, words, f"{name}.safetensors")
        assert not stages(out)


def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(
    usbench: Call, tiniest: list[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from usbench.train import checkpoint

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    command = ["run", "--loss", "none", *tiniest, "--out", out]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        refused(usbench(*command), "the disk of", "is full", "run the same command again")
    assert not [name for name in stages(out) if not name.endswith(".part")]
    done = usbench(*command)
    assert done.code == 0, done.err
    assert stages(out) and not [name for name in stages(out) if name.endswith(".part")]


def test_a_disk_that_fills_up_under_the_table_is_one_sentence_too(
    usbench: Call, tiniest: list[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from usbench.report import summary

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run.json")

    monkeypatch.setattr(summary, "write_json", full)
    refused(usbench("run", "--loss", "none", *tiniest, "--out", out), "run.json", "No space left on device")


def test_a_loss_that_turns_nan_says_where_and_leaves_the_store_whole(
    usbench: Call, tiniest: list[str], tmp_path: Path, out: Path
) -> None:
    body = "return out.maps[0][-1].mean() * (float('nan') if batch.step >= 2 else 1.0)"
    folder = loose(tmp_path / "plugins", PLUGIN.format(body=body))
    said = usbench("--plugins-dir", folder, "run", "--loss", "mine", *tiniest, "--out", out)
    refused(said, "became nan at step 2", "learning rate", "last good checkpoint", "were left out", code=1)
    assert not [name for name in stages(out) if name.startswith("pretrain") and not name.endswith(".part")]
    assert "none-long" in said.out and said.out.count("failed: ") == 2  # as it happened, and at the end
    assert "0 of " in usbench("run", "--loss", "none", *tiniest, "--out", out).out  # the baselines were done
    assert usbench("leaderboard", out).code == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return out.maps[0][-1].mean((1, 2, 3))", "(8,), not a scalar"),
        ("return {'a': 3.0}", "'a'"),
        ("return None", "NoneType"),
        ("return {}", ""),
        ("return out.nothing", "nothing"),
        ("return torch.tensor(1.0)", ""),
    ],
)
def test_a_loss_that_is_no_loss_is_said_and_leaves_no_stage(
    usbench: Call, tiniest: list[str], tmp_path: Path, out: Path, body: str, words: str
) -> None:
    folder = loose(tmp_path / "plugins", PLUGIN.format(body=body))
    said = usbench("--plugins-dir", folder, "run", "--loss", "mine", *tiniest, "--out", out, "--fail-fast")
    assert said.code in (1, 2)
    assert len(said.err.splitlines()) == 1 and "Traceback" not in said.err and words in said.err
    assert not stages(out)


def test_a_plugin_that_builds_something_else_is_refused(
    usbench: Call, tiniest: list[str], tmp_path: Path, out: Path
) -> None:
    text = PLUGIN.format(body="return out.z").replace("mine", "dict").replace("Mine, ", "lambda network: {}, ")
    said = usbench("--plugins-dir", loose(tmp_path / "p", text), "run", "--loss", "dict", *tiniest, "--out", out)
    refused(said, "loss 'dict' built a dict: it must build a usbench.Loss")
    assert not stages(out)


def test_debug_shows_the_traceback(usbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["usbench", "--debug", "run", "--loss", "simcrl"])
    hooks.registry.cache_clear()
    from usbench import UsbenchError, cli

    with pytest.raises(UsbenchError):
        cli.main()
