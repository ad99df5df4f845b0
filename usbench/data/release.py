"""A release: the files of a data set as the official site gave them, in a folder or a zip; nothing is extracted."""

from __future__ import annotations

import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath

import pandas as pd

from usbench.errors import UsbenchError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")
MAX_FILES = 2_000_000
MAX_MEMBER = 2**30  # bytes that one file of a zip may unpack to
MAX_TOTAL = 2**39
MAX_RATIO = 100  # bytes unpacked for a byte of the zip, where the whole is more than a table or two
SMALL = 2**26
MAX_COLUMNS = 1000  # of a table


Reader = Callable[[int | None], bytes]  # of a whole file, or of its first bytes


class NotThisSet(UsbenchError):
    """Nothing of the data set lies where the user pointed: another importer may fit."""


class Undecodable(UsbenchError):
    """A file that cannot be turned into an image or a mask; `--skip-broken` leaves it out."""


class Release:
    """Files by their path inside the release, sorted; each is read when asked for."""

    def __init__(self, path: Path, files: dict[str, Reader]) -> None:
        self.path = path
        self.files = dict(sorted(files.items()))

    @property
    def images(self) -> list[str]:
        """Every file that looks like an image."""
        return [name for name in self.files if name.lower().endswith(IMAGES)]

    def match(self, pattern: str) -> Iterator[re.Match[str]]:
        """The files whose whole path matches a regular expression, as matches."""
        compiled = re.compile(pattern)
        yield from filter(None, map(compiled.fullmatch, self.files))

    def read(self, name: str, most: int | None = None) -> bytes:
        """The bytes of one file, or its first ones."""
        if name not in self.files:
            raise UsbenchError(f"{self.path} has no file '{name}': is it the whole official release?")
        try:
            return self.files[name](most)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError) as error:
            raise Undecodable(f"it cannot be unpacked ({error})") from error
        except OSError as error:
            if error.filename is not None:  # the file itself, and not what the zip says of it
                raise
            raise Undecodable(f"it cannot be unpacked ({error})") from error

    def within(self, root: str) -> Release:
        """The files below a folder of the release."""
        below = {name.removeprefix(root): opener for name, opener in self.files.items() if name.startswith(root)}
        return Release(self.path, below)

    def table(self, wanted: str, columns: tuple[str, ...]) -> pd.DataFrame:
        """The one CSV or Excel file called so in any case (`*`: anything), all cells as text; `columns` are in it.

        One at the root is preferred to one below.
        """
        called = [name for name in self.files if fnmatchcase(PurePosixPath(name).name.lower(), wanted.lower())]
        found = [name for name in called if "/" not in name] or called
        if len(found) != 1:
            count = "no table" if not found else f"{len(found)} tables"
            raise UsbenchError(f"{self.path} has {count} called '{wanted}': keep the official one there, and no other.")
        try:
            raw = self.read(found[0])
            if found[0].lower().endswith("x"):
                table = _book(raw)
            else:
                text = decode_text(raw)
                separator = max(",;\t", key=text.partition("\n")[0].count)
                table = pd.read_csv(io.StringIO(text), sep=separator, dtype=str, na_filter=False)
        except (ValueError, OSError, Undecodable) as error:
            raise UsbenchError(
                f"the table '{found[0]}' of {self.path} cannot be read ({error}): download it again, or mend it."
            ) from error
        if len(table.columns) > MAX_COLUMNS:
            raise UsbenchError(f"the table '{found[0]}' of {self.path} has {len(table.columns):,} columns: mend it.")
        table.columns = [str(column).strip() for column in table.columns]
        if missing := [column for column in columns if column not in table.columns]:
            raise UsbenchError(
                f"the table '{found[0]}' of {self.path} has no column '{missing[0]}': "
                f"its columns are {', '.join(table.columns)}."
            )
        return table.apply(lambda column: column.str.strip())

    def lookup(self, wanted: str, key: str, value: str) -> Mapping[str, str]:
        """What a table says of each `key`: a column by another one, as text. A key that it lacks is refused."""
        table = self.table(wanted, (key, value))
        return _Lookup(f"the table '{wanted}' of {self.path}", key, zip(table[key], table[value], strict=True))


class _Lookup(dict[str, str]):
    """A column by another one; what is not in it is refused by name."""

    def __init__(self, table: str, key: str, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        self.table, self.key = table, key
        for name, value in pairs:
            if self.setdefault(name, value) != value:
                both = f"'{self[name]}' and '{value}'"
                raise UsbenchError(f"{table} has the {key} '{name}' twice, with {both}: mend the table.")

    def __missing__(self, name: str) -> str:
        raise UsbenchError(f"{self.table} has no {self.key} '{name}', and an image is of it: mend the table.")


def _book(raw: bytes) -> pd.DataFrame:
    """The first sheet of an Excel file, all cells as text."""
    try:
        return pd.read_excel(io.BytesIO(raw), dtype=str, na_filter=False)
    except ImportError:
        raise
    except Exception as error:  # of a damaged file, its reader raises almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Undecodable(f"it is damaged: {reason}") from error


def decode_text(raw: bytes) -> str:
    """Text as UTF-8, with or without its mark, else as Latin-1."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def open_release(path: Path, layout: str, *, example: str = "", exact: bool = False) -> Release:
    """The release at or about `path`, rooted so that `layout` matches its images, such as `example`.

    The user may have pointed one or more folders above the root, at a folder inside it, at the zip, or at a folder in
    which the zip still lies packed.
    """
    release = _zip(path) if path.is_file() else _folder(path)
    if path.is_dir() and not exact:
        inside = re.compile(layout)
        if any(inside.fullmatch(f"{path.resolve().name}/{name}") for name in release.files):
            return _folder(path.resolve().parent)
    if (found := _rooted(release, layout)) is not None:
        return found
    if path.is_dir() and (packed := sorted(path.glob("*.zip"))):
        files = dict(release.files)
        for archive in packed:
            files.update(_zip(archive).files)
        if (found := _rooted(Release(path, files), layout)) is not None:
            return found
    if not release.images:
        raise NotThisSet(f"there is no image in {path}.")
    raise NotThisSet(f"{path} has no image called like '{example or layout}'.")


def _rooted(release: Release, layout: str) -> Release | None:
    compiled = re.compile(f"(?:^|/)(?={layout}$)")
    roots = sorted({name[: found.end()] for name in release.files if (found := compiled.search(name))})
    if len(roots) > 1:
        raise UsbenchError(
            f"{release.path} holds the set {len(roots)} times, in '{roots[0] or '.'}' and '{roots[1]}': name one."
        )
    return release.within(roots[0]) if roots else None


def _folder(path: Path) -> Release:
    files: dict[str, Reader] = {}
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(f for f in folders if not _hidden(f))
        for name in names:
            file = Path(folder, name)
            if not _hidden(name) and file.is_file():  # a pipe or a device may never end
                files[file.relative_to(path).as_posix()] = partial(_bytes_of, file)
        if len(files) > MAX_FILES:
            raise UsbenchError(f"{path} holds more than {MAX_FILES:,} files: name the folder of one release.")
    return Release(path, files)


def _bytes_of(file: Path, most: int | None) -> bytes:
    if most is None and file.stat().st_size > MAX_MEMBER:
        raise Undecodable(f"it has more than {MAX_MEMBER:,} bytes")
    with file.open("rb") as opened:
        return opened.read(-1 if most is None else most)


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int | None) -> bytes:
    with archive.open(member) as opened:
        return opened.read(-1 if most is None else most)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _zip(path: Path) -> Release:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UsbenchError(f"{path} is neither a folder nor a whole zip ({error}): download it again.") from error
    files: dict[str, Reader] = {}
    total = 0
    for member in archive.infolist():
        name = member.orig_filename.replace("\\", "/")
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or ":" in parts[0] or "\0" in name:
            raise UsbenchError(f"the zip {path} has the member '{name}', which points outside of it: do not trust it.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UsbenchError(f"the zip {path} has the member '{name}', which is a link: do not trust it.")
        if member.flag_bits & 1:
            raise UsbenchError(f"the zip {path} is protected by a password: unpack it and name the folder.")
        total += member.file_size
        if member.is_dir() or any(map(_hidden, parts)):
            continue
        name = "/".join(parts)
        if name in files:
            raise UsbenchError(f"the zip {path} has two members called '{name}': download it again.")
        if member.file_size > MAX_MEMBER:
            raise UsbenchError(f"the zip {path} has the member '{name}' of {member.file_size:,} bytes: a bomb?")
        files[name] = partial(_unpacked, archive, member)
    if total > MAX_TOTAL or (total > SMALL and total > MAX_RATIO * max(1, path.stat().st_size)):
        raise UsbenchError(f"the zip {path} would unpack to {total:,} bytes: it is a bomb, or no release.")
    return Release(path, files)
