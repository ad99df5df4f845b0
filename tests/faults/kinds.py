"""Every kind of file that usbench is given, a good one of each, how it is damaged, and the commands that read it."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from damaged_files import FOLDERS, IMAGES, PACKS, ZIPS
from entry import call, faults, files_below
from mutate import BYTES, CSV, JSON, TEXTS, TOML, Damage
from PIL import Image
from safetensors.numpy import load_file, save_file

TINY = [
    "--aug", "spatial", "--backbone", "unet-tiny", "--size", "32", "--labels", "100", "--device", "cpu",
    "--precision", "float32", "--threads", "1",
]  # fmt: skip
STEPS = [
    *("--set", "pretrain.steps=2", "--set", "pretrain.batch=8"),
    *("--set", "finetune.steps=2", "--set", "finetune.batch=4"),
]


@dataclass(frozen=True)
class World:
    """Good files of every kind, made once by the commands themselves."""

    release: Path
    pack: Path
    store: Path
    run: Path
    exported: Path
    baseline: str  # the key of a row without pretraining


def make_world(root: Path) -> World:
    """A release of 24 images, its pack, a run on it, and its export."""
    rng = np.random.default_rng(0)
    release = root / "release"
    (release / "images").mkdir(parents=True)
    (release / "masks").mkdir()
    rows = ["name,label,patient,video,frame,fold,pixel_mm"]
    for place in range(24):
        image = rng.rayleigh(90, (48, 64)).clip(0, 255).astype(np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        mask[10 + place % 7 : 30, 15 : 40 + place % 5] = 255
        Image.fromarray(image).save(release / "images" / f"p{place:02d}.png")
        Image.fromarray(mask).save(release / "masks" / f"p{place:02d}.png")
        rows.append(f"p{place:02d}.png,{('benign', 'malignant')[place % 2]},q{place // 2},,,,0.2")
    (release / "table.csv").write_text("\n".join(rows) + "\n")
    pack, store, exported = root / "own.h5", root / "store", root / "export"
    _done(call("data", "import", "folder:name=own", release, "-o", pack, "--size", "64", seconds=60))
    _done(call("run", "--loss", "simclr", *TINY, *STEPS, "--data", pack, "--out", store, seconds=300))
    run = next(path.parent for path in store.glob("*/run.json"))
    _done(call("export", run, "-o", exported, seconds=60))
    with (run / "leaderboard.csv").open() as file:
        baseline = next(row["key"] for row in csv.DictReader(file) if row["loss"] == "none")
    return World(release, pack, store, run, exported, baseline)


def _done(ended: object) -> None:
    if getattr(ended, "code", 1):
        raise RuntimeError(f"the good files could not be made: {ended}")


@dataclass(frozen=True)
class Kind:
    """A kind of file: `lay` puts good ones into a folder and returns the one to damage."""

    name: str
    lay: Callable[[World, Path, np.random.Generator], Path]
    damages: Mapping[str, Damage]
    commands: Sequence[Callable[[World, Path, Path], list[object]]]  # of the world, the folder and the file
    called: Callable[[Path], tuple[str, ...]] = field(default=lambda path: (path.name,))


@dataclass(frozen=True)
class Case:
    """One damaged file, and what a command said of it."""

    kind: str
    damage: str
    command: str
    code: int
    seconds: float
    said: str
    faults: list[str]
    trace: str


def try_case(kind: Kind, world: World, folder: Path, number: int, seed: int = 0) -> Case:
    """Damage number n of a kind: the damages in turn, then again at other places; the same every time."""
    rng = np.random.default_rng([seed, zlib.crc32(kind.name.encode()), number])
    name = list(kind.damages)[number % len(kind.damages)]
    folder.mkdir(parents=True)
    file = kind.lay(world, folder, rng)
    kind.damages[name](file, rng)
    command = kind.commands[number % len(kind.commands) if len(kind.damages) % len(kind.commands) else
                            (number + number // len(kind.damages)) % len(kind.commands)]  # fmt: skip
    words = command(world, folder, file)
    before = files_below(folder)
    ended = call(*words)
    found = faults(ended, kind.called(file), before, files_below(folder))
    said = (ended.err or ended.out).strip().replace(str(folder), "…")
    shutil.rmtree(folder)
    shown = " ".join(str(word).replace(str(folder), "…") for word in words[:3])
    return Case(kind.name, name, shown, ended.code, ended.seconds, said, found, ended.trace)


def _linked(source: Path, to: Path) -> Path:
    """A copy that shares what is not changed."""
    if source.is_dir():
        shutil.copytree(source, to, copy_function=os.link)
    else:
        os.link(source, to)
    return to


# Good ones


def _pack(world: World, folder: Path, rng: np.random.Generator) -> Path:
    return Path(shutil.copy(world.pack, folder / "damaged.h5"))


def _image(world: World, folder: Path, rng: np.random.Generator) -> Path:
    _linked(world.release, folder / "release")
    return folder / "release" / "images" / f"p{int(rng.integers(24)):02d}.png"


def _mask(world: World, folder: Path, rng: np.random.Generator) -> Path:
    _linked(world.release, folder / "release")
    return folder / "release" / "masks" / f"p{int(rng.integers(24)):02d}.png"


def _table(world: World, folder: Path, rng: np.random.Generator) -> Path:
    return _linked(world.release, folder / "release") / "table.csv"


def _zip(world: World, folder: Path, rng: np.random.Generator) -> Path:
    with zipfile.ZipFile(folder / "damaged.zip", "w") as archive:
        for path in sorted(world.release.rglob("*.*")):
            archive.write(path, path.relative_to(world.release))
    return folder / "damaged.zip"


def _suite(world: World, folder: Path, rng: np.random.Generator) -> Path:
    (folder / "damaged.toml").write_text(
        f'name = "s"\nabout = "a"\n[base]\npreset = "quick"\ndata = "{world.pack}"\nsize = 32\nlabels = [100]\n'
        'pretrain = { steps = 4, batch = 8 }\nfinetune = { steps = 4 }\ndevice = "cpu"\nthreads = 1\n'
        '[[runs]]\nover = { loss = ["simclr", "none"], aug = ["spatial"] }\n'
        '[[runs]]\nloss = "simclr"\naug = "spatial"\n'
        'select = { over = { "finetune.encoder_factor" = [1.0, 0.1] }, on = "inner" }\n'
    )
    return folder / "damaged.toml"


def _config(world: World, folder: Path, rng: np.random.Generator) -> Path:
    call("run", "--loss", "simclr", *TINY, *STEPS, "--data", world.pack, "--out", folder / "s", "--dry-run",
         "--save-config", folder / "damaged.toml")  # fmt: skip
    return folder / "damaged.toml"


def _split(world: World, folder: Path, rng: np.random.Generator) -> Path:
    call("data", "splits", world.pack, "-o", folder / "damaged.json")
    return folder / "damaged.json"


def _in_store(*patterns: str) -> Callable[[World, Path, np.random.Generator], Path]:
    def lay(world: World, folder: Path, rng: np.random.Generator) -> Path:
        store = _linked(world.store, folder / "store")
        (store / "index.json").unlink(missing_ok=True)
        found = sorted(path for pattern in patterns for path in store.glob(pattern))
        return found[int(rng.integers(len(found)))]

    return lay


def _weights(world: World, folder: Path, rng: np.random.Generator) -> Path:
    return Path(shutil.copy(world.exported / "encoder.safetensors", folder / "damaged.safetensors"))


def _exported(name: str) -> Callable[[World, Path, np.random.Generator], Path]:
    return lambda world, folder, rng: _linked(world.exported, folder / "export") / name


def _board(world: World, folder: Path, rng: np.random.Generator) -> Path:
    return Path(shutil.copy(world.run / "leaderboard.csv", folder / "damaged.csv"))


PLUGIN = """from usbench import Loss, hookimpl


class Mine(Loss):
    def objective(self, out, batch):
        return out.z[0].mean()


@hookimpl
def usbench_losses(register):
    register("mine", Mine, summary="a loss", options={"a": 1.0})
"""


def _plugin(world: World, folder: Path, rng: np.random.Generator) -> Path:
    (folder / "plugins").mkdir()
    (folder / "plugins" / "damaged.py").write_text(PLUGIN)
    return folder / "plugins" / "damaged.py"


def _instead(old: str, new: str) -> Damage:
    return lambda path, rng: path.write_text(PLUGIN.replace(old, new)) and None


PLUGINS: dict[str, Damage] = {
    "no Python": _instead("class", "clas"),
    "raises": _instead("class Mine", "raise KeyError('a')\nclass Mine"),
    "raises on two lines": _instead("class Mine", "raise ValueError('a\\nb')\nclass Mine"),
    "leaves": _instead("class Mine", "import sys; sys.exit(7)\nclass Mine"),
    "interrupts": _instead("class Mine", "raise GeneratorExit\nclass Mine"),
    "recurses": _instead("class Mine", "def f(): f()\nf()\nclass Mine"),
    "an import that is missing": _instead("class Mine", "import nothing_of_that_name\nclass Mine"),
    "no name": _instead('"mine"', "None"),
    "a number as name": _instead('"mine"', "3"),
    "a path as name": _instead('"mine"', '"../mine"'),
    "an empty name": _instead('"mine"', '""'),
    "a name with a line": _instead('"mine"', '"a\\nb"'),
    "no summary": _instead(', summary="a loss"', ""),
    "a summary that is none": _instead('summary="a loss"', "summary=3"),
    "a summary of control signs": _instead('"a loss"', '"\\x1b[2Ja\\nb"'),
    "options that are a list": _instead('{"a": 1.0}', "[1]"),
    "options that are a word": _instead('{"a": 1.0}', '"a"'),
    "options of objects": _instead('{"a": 1.0}', '{"a": object()}'),
    "options without names": _instead('{"a": 1.0}', "{1: 2}"),
    "needs of numbers": _instead("summary", "needs=3, summary"),
    "an argument nobody knows": _instead("summary", "sumary"),
    "a factory that is nothing": _instead("Mine, ", "3, "),
    "a factory that is not there": _instead("Mine, ", '"nowhere:Thing", '),
    "a hook nobody knows": _instead("usbench_losses", "usbench_loses"),
    "a hook without arguments": _instead("(register)", "()"),
    "a hook that raises": _instead("    register(", "    raise RuntimeError\n    register("),
    "a hook that is no function": _instead("@hookimpl", "usbench_augmentations = 3\n\n\n@hookimpl"),
    **{name: BYTES[name] for name in ("cut short", "a bit", "64 bits", "noise", "bytes cut out")},
    **{name: TEXTS[name] for name in ("not UTF-8", "UTF-16", "NUL")},
}


def _tensors(change: Callable[[dict[str, np.ndarray], str, np.random.Generator], None]) -> Damage:
    def damage(path: Path, rng: np.random.Generator) -> None:
        tensors = load_file(path)
        names = sorted(tensors)
        change(tensors, names[int(rng.integers(len(names)))], rng)
        path.unlink()
        save_file(tensors, path)

    return damage


def _header(change: Callable[[dict, np.random.Generator], object]) -> Damage:
    """What the file says of its tensors, changed; the tensors stay."""

    def damage(path: Path, rng: np.random.Generator) -> None:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        head = json.loads(data[8 : 8 + length])
        made = change(head, rng)
        text = json.dumps(head if made is None else made).encode()
        path.unlink()
        path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return damage


def _first(head: dict) -> dict:
    return next(value for key, value in head.items() if key != "__metadata__")


def _length(value: int) -> Damage:
    def damage(path: Path, rng: np.random.Generator) -> None:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(value.to_bytes(8, "little") + data[8:])

    return damage


SAFETENSORS: dict[str, Damage] = {
    "a header of 2^60 bytes": _length(2**60),
    "a header of 90 MB": _length(90_000_000),
    "no header": _length(0),
    "a header of seven bytes": _length(7),
    "NaN": _tensors(lambda t, name, rng: t[name].reshape(-1)[:1].fill(np.nan) if t[name].dtype.kind == "f" else None),
    "NaN everywhere": _tensors(
        lambda t, name, rng: [v.fill(np.nan) for v in t.values() if v.dtype.kind == "f"] and None
    ),
    "infinite": _tensors(
        lambda t, name, rng: t[name].reshape(-1)[:1].fill(np.inf) if t[name].dtype.kind == "f" else None
    ),
    "another shape": _tensors(lambda t, name, rng: t.update({name: np.zeros((3, 5), np.float32)})),
    "a tensor gone": _tensors(lambda t, name, rng: t.pop(name) is None or None),
    "a tensor more": _tensors(lambda t, name, rng: t.update({"more": np.zeros(3, np.float32)})),
    "another dtype": _tensors(lambda t, name, rng: t.update({name: t[name].astype(np.int64)})),
    "a scalar": _tensors(lambda t, name, rng: t.update({name: np.array(1.0, np.float32)})),
    "no tensors": _tensors(lambda t, name, rng: t.clear()),
    "a name with a path": _tensors(lambda t, name, rng: t.update({"../../x": t.pop(name)})),
    "an unknown dtype": _header(lambda head, rng: _first(head).update(dtype="X9")),
    "places that lie": _header(lambda head, rng: _first(head).update(data_offsets=[0, 2**50])),
    "places the wrong way": _header(lambda head, rng: _first(head).update(data_offsets=[100, 4])),
    "a shape that lies": _header(lambda head, rng: _first(head).update(shape=[2**40, 2**40])),
    "a negative shape": _header(lambda head, rng: _first(head).update(shape=[-1])),
    "metadata of numbers": _header(lambda head, rng: head.update(__metadata__={"usbench": 3})),
    "metadata that is no JSON": _header(lambda head, rng: head.update(__metadata__={"usbench": "{"})),
    "metadata that is a list": _header(lambda head, rng: head.update(__metadata__={"usbench": "[1]"})),
    "metadata nested deeply": _header(lambda head, rng: head.update(__metadata__={"usbench": "[" * 100_000})),
    "a header that is a list": _header(lambda head, rng: [head]),
    **BYTES,
}

# The table


def _run(*words: object) -> Callable[[World, Path, Path], list[object]]:
    return lambda world, folder, file: [
        "run", "--loss", "none", *TINY, *STEPS, "--out", folder / "out",
        *(file if word is Path else world.pack if word is World else word for word in words),
    ]  # fmt: skip


def _imported(at: Callable[[Path, Path], Path], *more: str) -> Callable[[World, Path, Path], list[object]]:
    return lambda world, folder, file: [
        "data",
        "import",
        "folder:name=x",
        at(folder, file),
        "-o",
        folder / "o.h5",
        "--size",
        "32",
        *more,
    ]


def _release(folder: Path, file: Path) -> Path:
    return folder / "release"


def _told(file: Path) -> tuple[str, ...]:
    """An image is named, or the folder that it was in."""
    return (file.name, file.stem, "release")


def _stored(file: Path) -> tuple[str, ...]:
    """A file of a store by its name and folder."""
    return (f"{file.parent.name}/{file.name}", file.parent.name, str(file))


def _record(file: Path) -> tuple[str, ...]:
    """A record by its folder; where it names another stage or row, that."""
    return (*_stored(file), "/record.json", "leaderboard.csv")


KINDS = [
    Kind("pack", _pack, PACKS, [
        lambda world, folder, file: ["data", "check", file],
        lambda world, folder, file: ["data", "info", file],
        lambda world, folder, file: ["data", "preview", file, "-o", folder / "o.png"],
        lambda world, folder, file: ["data", "leaks", file, world.pack, "-o", folder / "o.png"],
        lambda world, folder, file: ["data", "splits", file, "-o", folder / "o.json"],
        _run("--dry-run", "--data", Path),
    ]),
    Kind("image, imported", _image, IMAGES, [
        _imported(_release), _imported(_release, "--skip-broken"),
    ], _told),
    Kind("mask, imported", _mask, IMAGES, [
        _imported(_release, "--skip-broken"), _imported(_release),
    ], _told),
    Kind("image, predicted", _image, IMAGES, [
        lambda world, folder, file: ["predict", world.exported, file, "-o", folder / "o"],
    ]),
    Kind("zip", _zip, ZIPS, [
        _imported(lambda folder, file: file), _imported(lambda folder, file: file, "--skip-broken"),
    ]),
    Kind("file of a release", _image, FOLDERS, [
        _imported(_release),
        lambda world, folder, file: ["predict", world.exported, folder / "release" / "images", "-o", folder / "o"],
        _imported(_release, "--skip-broken"),
        lambda world, folder, file: ["predict", world.exported, file, "-o", folder / "o"],
    ], _told),
    Kind("table of a release", _table, CSV, [_imported(_release)], lambda file: ("table.csv", "release")),
    Kind("split", _split, JSON, [_run("--dry-run", "--data", World, "--split", Path)]),
    Kind("suite", _suite, TOML, [
        lambda world, folder, file: ["suite", "plan", file, "--out", folder / "out"],
        lambda world, folder, file: ["suite", "status", file, "--out", folder / "out"],
    ]),
    Kind("config", _config, TOML, [
        lambda world, folder, file: ["run", "--config", file, "--out", folder / "out", "--dry-run"],
    ]),
    Kind("run.json", _in_store("*/run.json"), JSON, [
        lambda world, folder, file: ["show", file.parent],
        lambda world, folder, file: ["compare", file.parent, world.baseline, "--in", folder / "store"],
        lambda world, folder, file: ["verify", folder / "store"],
        lambda world, folder, file: ["export", file.parent, "-o", folder / "o"],
        lambda world, folder, file: ["leaderboard", folder / "store", "--csv", folder / "o.csv"],
    ], lambda file: (file.name, file.parent.name, "is one row")),
    Kind("record.json", _in_store("stages/*/record.json"), JSON, [
        lambda world, folder, file: ["verify", folder / "store"],
        lambda world, folder, file: ["leaderboard", folder / "store", "--csv", folder / "o.csv", "--md", folder / "o.md"],  # noqa: E501
        lambda world, folder, file: ["show", folder / "store" / world.run.name],
        lambda world, folder, file: ["export", folder / "store" / world.run.name, "-o", folder / "o"],
        lambda world, folder, file: ["verify", folder / "store" / world.run.name / "leaderboard.csv"],
    ], _record),
    Kind("store.json", _in_store("store.json"), JSON, [
        lambda world, folder, file: ["leaderboard", folder / "store"],
        lambda world, folder, file: ["verify", folder / "store"],
    ], lambda file: ("store.json", str(file.parent))),
    Kind("scores.csv", _in_store("stages/evaluate-*/scores.csv"), CSV, [
        lambda world, folder, file: ["leaderboard", folder / "store", "--csv", folder / "o.csv"],
        lambda world, folder, file: ["verify", folder / "store"],
        lambda world, folder, file: ["show", folder / "store" / world.run.name],
    ], _stored),
    Kind("curve.csv", _in_store("stages/*/curve.csv"), CSV, [
        lambda world, folder, file: ["show", folder / "store" / world.run.name],
        lambda world, folder, file: ["verify", folder / "store"],
    ], _stored),
    Kind("weights of a stage", _in_store("stages/*/weights.safetensors"), SAFETENSORS, [
        lambda world, folder, file: ["predict", folder / "store" / world.run.name, world.release / "images" / "p00.png", "-o", folder / "o"],  # noqa: E501
        lambda world, folder, file: ["verify", folder / "store"],
        lambda world, folder, file: ["export", folder / "store" / world.run.name, "-o", folder / "o"],
    ], _stored),
    Kind("masks of a stage", _in_store("stages/*/masks.safetensors"), SAFETENSORS, [
        lambda world, folder, file: ["verify", folder / "store"],
        lambda world, folder, file: ["export", folder / "store" / world.run.name, "-o", folder / "o"],
    ], _stored),
    Kind("starting weights", _weights, SAFETENSORS, [
        _run("--data", World, "--init", Path),
    ], lambda file: (file.name, "became nan", "became inf")),
    Kind("leaderboard", _board, CSV, [
        lambda world, folder, file: ["verify", file, "--in", world.store],
    ]),
    Kind("config of an export", _exported("config.json"), JSON, [
        lambda world, folder, file: ["predict", folder / "export", world.release / "images" / "p00.png", "-o", folder / "o"],  # noqa: E501
    ]),
    Kind("weights of an export", _exported("unet.safetensors"), SAFETENSORS, [
        lambda world, folder, file: ["predict", file, world.release / "images" / "p00.png", "-o", folder / "o"],
    ]),
    Kind("plugin", _plugin, PLUGINS, [
        lambda world, folder, file: ["--plugins-dir", file.parent, "run", "--loss", "mine", *TINY, "--data", world.pack, "--dry-run", "--out", folder / "out"],  # noqa: E501
        lambda world, folder, file: ["--plugins-dir", file.parent, "plugins", "list"],
        lambda world, folder, file: ["--plugins-dir", file.parent, "plugins", "show", "mine"],
        lambda world, folder, file: ["--plugins-dir", file.parent, "plugins", "check", "mine"],
    ], lambda file: ("damaged", "mine")),
]  # fmt: skip
