"""A published result: the table, and a zip of the records and per-image scores that it can be made again from.

The zip holds a store that has no weights, no masks and no place of this machine.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import lzma
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from usbench.errors import UsbenchError
from usbench.report.tables import BESIDE, BOARD, stages_of
from usbench.report.upkeep import Upkeep
from usbench.runs.records import RECORD
from usbench.runs.store import SCHEMA, Store
from usbench.share.columns import FEW, joined, parted
from usbench.share.origin import PACKS, bare
from usbench.whole import written

ARCHIVE = "scores.zip"
LEFT_OUT = (".safetensors",)  # ends the names of weights, masks and checkpoints
TABLES = (BOARD, *BESIDE)
KINDS = ("run.json", "suite.json")  # says what folder it is
MEMBER = re.compile(r"store\.json|(stages/)?[\w.-]+/[\w.-]+", re.ASCII)
MOST = 2 << 30  # bytes, unpacked
_until_the_end = contextlib.ExitStack()  # what was unpacked for this process
atexit.register(_until_the_end.close)
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member


def publish(source: Path, output: Path) -> list[Path]:
    """Write what a run's or suite's folder stands on into a folder; returns the files."""
    kind = next((name for name in KINDS if (source / name).is_file()), None)
    if kind is None:
        raise UsbenchError(f"{source} is no run's or suite's folder (it has no {' and no '.join(KINDS)}): name one.")
    if output.resolve() == source.resolve():
        raise UsbenchError(f"-o {output} is the folder that is published: name another.")
    store = Store(source.resolve().parent).check_schema()
    upkeep = Upkeep(store)
    there = [source / name for name in (kind, *TABLES) if (source / name).is_file()]
    pictures = _pictures(source)
    members = {f"{kind.partition('.')[0]}/{path.name}": path for path in there}
    for stage_id in stages_of(source / kind):
        if not store.has(stage_id):
            raise UsbenchError(f"{store.root} has no finished stage {stage_id}: run the same command again.")
        if wrong := upkeep.broken(store.folder(stage_id), LEFT_OUT):
            raise UsbenchError(f"{store.folder(stage_id) / wrong[0]}: nothing is published.")
        made = [path for path in store.folder(stage_id).iterdir() if path.is_file() and path.suffix not in LEFT_OUT]
        if (recorded := store.record(stage_id).get("files")) is not None:  # old records name no files
            made = [path for path in made if path.name in (RECORD, *recorded)]
        members |= {f"stages/{stage_id}/{path.name}": path for path in made}
    output.mkdir(parents=True, exist_ok=True)
    try:
        with written(output / ARCHIVE) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr(_member("store.json"), json.dumps({"schema": SCHEMA, "left_out": LEFT_OUT}))
            for name, content in _contents(members, source / kind).items():
                archive.writestr(_member(name), content)
        there += pictures
        for path in there[1:]:
            shutil.copyfile(path, output / path.name)
        for name in TABLES:
            if not (source / name).is_file():  # of what was published here before
                (output / name).unlink(missing_ok=True)
    except OSError as error:
        raise UsbenchError(f"-o {output} cannot be written ({error.strerror}): name another folder.") from None
    return [*(output / path.name for path in there[1:]), output / ARCHIVE]


def _contents(members: dict[str, Path], said: Path) -> dict[str, bytes]:
    """What the zip's members hold, by name: the tables of stages as few, all else as it is."""
    found: dict[str, bytes] = {}
    tables: dict[str, bytes] = {}
    for name, path in sorted(members.items()):
        is_table = name.startswith("stages/") and path.suffix == ".csv"
        (tables if is_table else found)[name] = _without_places(path) if path == said else path.read_bytes()
    return found | joined(tables)


def _pictures(source: Path) -> list[Path]:
    """The pictures that no image of a data set is in."""
    table, known = source / TABLES[0], {"differences", "ranks", "robustness"}
    if table.is_file():
        try:
            known |= set(pd.read_csv(table)["primary"].astype(str))
        except (OSError, ValueError, KeyError) as error:
            raise UsbenchError(f"{table} cannot be read ({error}): run the same command again.") from None
    return [path for path in sorted(source.glob("*.png")) if path.stem in known]


def _without_places(path: Path) -> bytes:
    """What a run or suite says of itself, with files by their names alone: where they lay concerns nobody else."""

    def named(value: Any, field: str) -> Any:
        if isinstance(value, dict):
            return {key: named(each, field if field == PACKS else key) for key, each in value.items()}
        if isinstance(value, list):
            return [named(each, field) for each in value]
        return bare(field, value) if isinstance(value, str) else value

    return json.dumps(named(json.loads(path.read_text("utf-8")), ""), indent=1, sort_keys=True).encode("utf-8")


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Store]:
    """The store in a published zip, in a folder that goes away."""
    with tempfile.TemporaryDirectory(prefix="usbench-") as place:
        unpack(archive, Path(place))
        yield Store(Path(place), str(archive)).check_schema()


def unpack(archive: Path, place: Path) -> None:
    """Write the store in a published zip into a folder."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = zipped.infolist()
            _check(archive, (member.filename for member in members), sum(member.file_size for member in members))
            zipped.extractall(place)
        size = 0
        for path in sorted(place.glob(f"{FEW}*")):
            for name, content in parted(f"{FEW}{path.name}", path.read_bytes()):
                _check(archive, [name], size := size + len(content))
                (place / name).write_bytes(content)
            path.unlink()
        with contextlib.suppress(FileNotFoundError):
            (place / FEW).rmdir()
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError) as error:
        raise UsbenchError(f"{archive} cannot be unpacked ({error}): download it again, or make room.") from None


def _check(archive: Path, names: Iterable[str], size: int) -> None:
    """Refuse what no publication has."""
    for name in names:
        if not MEMBER.fullmatch(name) or ".." in name:
            raise UsbenchError(f"{archive} has the member {name[:80]!r}: it is none of 'usbench publish'.")
    if size > MOST:
        raise UsbenchError(f"{archive} unpacks to more than {MOST >> 30} GiB: it is not trusted.")


def unpack_into(source: Path, output: Path) -> Store:
    """The store of a published result, in a new folder, to go on with."""
    archive = source / ARCHIVE if source.is_dir() else source
    if not archive.is_file():
        raise UsbenchError(f"there is no published result at {source}: name the folder of its {ARCHIVE}, or that file.")
    if output.exists():
        raise UsbenchError(f"-o {output} is there already: name a new folder.")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as place:
            unpack(archive, Path(place) / "store")
            (Path(place) / "store").rename(output)
    except OSError as error:
        raise UsbenchError(f"-o {output} cannot be written ({error.strerror}): name another folder.") from None
    return Store(output).check_schema()


def opened(folder: Path) -> Store:
    """The store in a folder; of a published result what its archive unpacks into, once, until this process ends."""
    if not is_published(folder):
        return Store(folder).check_schema()
    state = (folder / ARCHIVE).stat()
    return _opened((folder / ARCHIVE).resolve(), state.st_size, state.st_mtime_ns)


def is_published(folder: Path) -> bool:
    """Whether a folder holds a published result, and is no store itself."""
    return (folder / ARCHIVE).is_file() and not (folder / "store.json").exists()


@functools.cache
def _opened(archive: Path, *state: int) -> Store:
    return _until_the_end.enter_context(unpacked(archive))


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.compress_type, info.external_attr = zipfile.ZIP_LZMA, 0o644 << 16
    return info
