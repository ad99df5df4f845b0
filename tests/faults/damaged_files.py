"""Damages that need to know a format: packs, images, zips, folders of a release."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from mutate import BYTES, Damage, Rng
from PIL import Image

# Packs

NUMBERS = ("label", "frame", "time", "fps", "fold", "group", "native_height", "native_width", "scale", "offset_y",
           "pixel_mm", "has_mask")  # fmt: skip
WORDS = ("tag", "patient", "video", "device", "name")
PLANES = ("images", "mask", "sector")


def _h5(change: Callable[[h5py.File, Rng], None]) -> Damage:
    def damage(path: Path, rng: Rng) -> None:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        with h5py.File(path, "r+") as file:
            change(file, rng)

    return damage


def _one(rng: Rng, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def _put(names: tuple[str, ...], made: Callable[[Any, Rng], Any], **options: Any) -> Damage:
    """One of the data sets replaced by what is made of it."""

    def change(file: h5py.File, rng: Rng) -> None:
        name = _one(rng, names)
        value = made(file[name][:], rng)
        del file[name]
        file.create_dataset(name, data=value, **options)

    return _h5(change)


def _linked(link: Callable[[Path], Any]) -> Damage:
    def change(file: h5py.File, rng: Rng) -> None:
        name = _one(rng, (*PLANES, *NUMBERS, *WORDS))
        file.move(name, f"other_{name}")
        file[name] = link(Path(file.filename))

    return _h5(change)


def _external_link(path: Path) -> h5py.ExternalLink:
    other = path.with_name("elsewhere.h5")
    with h5py.File(other, "w") as file:
        file["there"] = np.zeros(3)
    return h5py.ExternalLink(str(other), "/there")


def _stored_elsewhere(file: h5py.File, rng: Rng) -> None:
    name, shape = _one(rng, PLANES), file["images"].shape
    del file[name]
    secret = [("/etc/passwd", 0, int(np.prod(shape)))]
    file.create_dataset(name, shape, np.bool_ if name != "images" else np.uint8, external=secret)


def _virtual(file: h5py.File, rng: Rng) -> None:
    name = _one(rng, PLANES)
    shape, dtype = file[name].shape, file[name].dtype
    layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def _absurd(chunks: bool) -> Damage:
    def change(file: h5py.File, rng: Rng) -> None:
        name = _one(rng, PLANES)
        count, size = (2**40, 64) if rng.random() < 0.5 else (len(file["label"]), 2**20)
        dtype = file[name].dtype
        del file[name]
        shape = (count, size, size)
        file.create_dataset(name, shape, dtype, chunks=(1, 64, 64) if chunks else None)

    return _h5(change)


def _all_absurd(file: h5py.File, rng: Rng) -> None:
    """Every data set says that there are so many images, and none of them is there."""
    count = 2**40
    for name in (*PLANES, *NUMBERS, *WORDS, "offset_x"):
        dtype, shape = file[name].dtype, file[name].shape
        del file[name]
        file.create_dataset(name, (count, *shape[1:]), dtype, chunks=(1024,) if len(shape) == 1 else None)


def _nobody(file: h5py.File, rng: Rng) -> None:
    for name in list(file):
        dtype, shape = file[name].dtype, file[name].shape
        del file[name]
        file.create_dataset(name, (0, *shape[1:]), dtype)


def _attribute(value: Callable[[Rng], Any]) -> Damage:
    def change(file: h5py.File, rng: Rng) -> None:
        names = ("schema", "dataset", "source", "licence", "version", "classes", "digest", "skipped", "people",
                 "generated")  # fmt: skip
        file.attrs[_one(rng, names)] = value(rng)

    return _h5(change)


def _no_attribute(file: h5py.File, rng: Rng) -> None:
    del file.attrs[_one(rng, tuple(file.attrs))]


def _nested(file: h5py.File, rng: Rng) -> None:
    del file["label"]
    file["/".join(["label"] * 2000)] = np.zeros(3)


def _grouped(file: h5py.File, rng: Rng) -> None:
    name = _one(rng, (*PLANES, *NUMBERS))
    file.move(name, "was")
    file.create_group(name)


def _number() -> Callable[[Any, Rng], Any]:
    def made(old: Any, rng: Rng) -> Any:
        new = np.array(old)
        if new.dtype == np.bool_:
            return ~new
        chosen: Any = rng.choice(np.array([-1, 0, 1, -32768, 32767]))
        if new.dtype.kind == "f":
            chosen = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e30, 1e-30]))
        new[: len(new) if rng.random() < 0.5 else 1] = chosen
        return new

    return made


def _words(old: Any, rng: Rng) -> Any:
    new = np.array(old, object)
    texts = [b"", b"same", b"a\x1b[31m\nb", b"\xff\xfe", b"../../x", b"x" * 100_000, "\u2028\u202e".encode()]
    new[: len(new) if rng.random() < 0.5 else 2] = texts[int(rng.integers(len(texts)))]
    return new


TEXT = h5py.string_dtype()
PACKS: dict[str, Damage] = {
    "a data set missing": _h5(lambda file, rng: file.__delitem__(_one(rng, (*PLANES, *NUMBERS, *WORDS)))),
    "numbers as floats": _put(NUMBERS, lambda old, rng: old.astype(np.float64) + 0.5),
    "numbers as words": _put(NUMBERS, lambda old, rng: np.array([b"x"] * len(old))),
    "numbers as complex": _put(NUMBERS, lambda old, rng: old.astype(np.complex128)),
    "words as numbers": _put(WORDS, lambda old, rng: np.zeros(len(old))),
    "a plane as floats": _put(PLANES, lambda old, rng: old.astype(np.float32)),
    "a plane of records": _put(PLANES, lambda old, rng: np.zeros(len(old), [("a", "i4"), ("b", "f4")])),
    "a scalar": _put((*PLANES, *NUMBERS, *WORDS), lambda old, rng: 3),
    "one more": _put((*PLANES, *NUMBERS), lambda old, rng: np.concatenate([old, old[:1]])),
    "two dimensions": _put((*PLANES, *NUMBERS), lambda old, rng: old.reshape(len(old), -1)[:, :1]),
    "three dimensions": _put(NUMBERS, lambda old, rng: old.reshape(-1, 1, 1)),
    "other sides": _put(PLANES, lambda old, rng: old[:, :30, :20]),
    "no pixels": _put(PLANES, lambda old, rng: old[:, :0, :0]),
    "images in chunks": _put(("images",), lambda old, rng: old, chunks=True),
    "odd numbers": _put(NUMBERS, _number()),
    "more odd numbers": _put(NUMBERS, _number()),
    "still more odd numbers": _put(NUMBERS, _number()),
    "odd words": _put(WORDS, _words, dtype=TEXT),
    "more odd words": _put(WORDS, _words, dtype=TEXT),
    "a group": _h5(_grouped),
    "a link to nowhere": _linked(lambda path: h5py.SoftLink("/nowhere")),
    "a link to itself": _linked(lambda path: h5py.SoftLink("/")),
    "a link outside": _linked(_external_link),
    "a link to a device": _linked(lambda path: h5py.ExternalLink("/dev/zero", "/x")),
    "stored elsewhere": _h5(_stored_elsewhere),
    "virtual": _h5(_virtual),
    "absurd chunks": _absurd(True),
    "everything absurd": _h5(_all_absurd),
    "nobody": _h5(_nobody),
    "nested deeply": _h5(_nested),
    "an attribute missing": _h5(_no_attribute),
    "an attribute as array": _attribute(lambda rng: np.arange(5)),
    "an attribute as number": _attribute(lambda rng: float("nan") if rng.random() < 0.5 else -7),
    "an attribute as path": _attribute(lambda rng: "../../../outside"),
    "an attribute as bytes": _attribute(lambda rng: np.void(b"\xff\0\1")),
    "an attribute as noise": _attribute(lambda rng: "\x1b[31m\n" * 200),
    "an attribute as JSON": _attribute(lambda rng: '{"count": "x", "reasons": 3}' if rng.random() < 0.5 else "[]"),
    **BYTES,
}  # fmt: skip

# Images


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int = 8, colour: int = 0, *between: bytes, data: bytes = b"") -> bytes:
    """A PNG that says what it is told to."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = _chunk(b"IDAT", zlib.compress(data or bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(between) + pixels + _chunk(b"IEND", b"")


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _noise(rng: Rng, *shape: int, kind: Any = np.uint8) -> np.ndarray:
    return rng.integers(0, np.iinfo(kind).max, (48, 64, *shape)).astype(kind)


def _frames(rng: Rng, form: str) -> bytes:
    first, *rest = (Image.fromarray(_noise(rng)) for _ in range(3))
    return _saved(first, form, save_all=True, append_images=rest)


def _turned(rng: Rng) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(0, 300))
    return _saved(Image.fromarray(_noise(rng)), "JPEG", exif=exif)


def _made(make: Callable[[Rng], bytes]) -> Damage:
    def damage(path: Path, rng: Rng) -> None:
        path.unlink()
        path.write_bytes(make(rng))

    return damage


def _then(form: str, damage: Damage) -> Damage:
    """A good image of another form, damaged."""
    options = {"compression": "tiff_lzw"} if form == "TIFF" else {}

    def both(path: Path, rng: Rng) -> None:
        _made(lambda rng: _saved(Image.fromarray(_noise(rng)), form, **options))(path, rng)
        damage(path, rng)

    return both


BINARY = [name for name in BYTES if name not in ("empty", "text", "noise")]
ODD_EXIF = b"Exif\0\0MM\0*\xff\xff\xff\xff"
IMAGES: dict[str, Damage] = {
    "a bomb": _made(lambda rng: png(60_000, 60_000)),
    "a bomb of pixels": _made(lambda rng: png(20_000, 20_000, data=bytes(10_000_000))),
    "no width": _made(lambda rng: png(0, 10)),
    "no height": _made(lambda rng: png(10, 0)),
    "a side of 2^31": _made(lambda rng: png(2**31 - 1, 1)),
    "an odd depth": _made(lambda rng: png(8, 8, 7)),
    "an odd colour": _made(lambda rng: png(8, 8, 8, 5)),
    "a palette that is missing": _made(lambda rng: png(8, 8, 8, 3)),
    "a bomb of text": _made(lambda rng: png(8, 8, 8, 0, _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8))))),
    "a bomb of a profile": _made(lambda rng: png(8, 8, 8, 0, _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**7))))),
    "one pixel": _made(lambda rng: _saved(Image.new("L", (1, 1)), "PNG")),
    "a line": _made(lambda rng: _saved(Image.new("L", (1, 20_000)), "PNG")),
    "16 bits": _made(lambda rng: _saved(Image.fromarray(_noise(rng, kind=np.uint16)), "PNG")),
    "32 bits": _made(lambda rng: _saved(Image.fromarray(_noise(rng, kind=np.int32)), "TIFF")),
    "floats": _made(lambda rng: _saved(Image.fromarray(_noise(rng).astype(np.float32) * np.nan), "TIFF")),
    "CMYK": _made(lambda rng: _saved(Image.fromarray(_noise(rng, 4), "CMYK"), "JPEG")),
    "palette and alpha": _made(lambda rng: _saved(Image.fromarray(_noise(rng)).convert("P"), "PNG", transparency=3)),
    "grey and alpha": _made(lambda rng: _saved(Image.fromarray(_noise(rng, 4)).convert("LA"), "PNG")),
    "one bit": _made(lambda rng: _saved(Image.fromarray(_noise(rng)).convert("1"), "PNG")),
    "YCbCr": _made(lambda rng: _saved(Image.fromarray(_noise(rng, 3), "YCbCr"), "JPEG")),
    "LAB": _made(lambda rng: _saved(Image.fromarray(_noise(rng, 3), "LAB"), "TIFF")),
    "animated GIF": _made(lambda rng: _frames(rng, "GIF")),
    "animated PNG": _made(lambda rng: _frames(rng, "PNG")),
    "animated WebP": _made(lambda rng: _frames(rng, "WEBP")),
    "pages": _made(lambda rng: _frames(rng, "TIFF")),
    "turned": _made(_turned),
    "damaged EXIF": _made(lambda rng: _saved(Image.fromarray(_noise(rng)), "JPEG", exif=ODD_EXIF)),
    **{f"a JPEG: {name}": _then("JPEG", BYTES[name]) for name in BINARY},
    **{f"a TIFF: {name}": _then("TIFF", BYTES[name]) for name in BINARY},
    **BYTES,
}  # fmt: skip

# Zips


def _zip(change: Callable[[zipfile.ZipFile, Rng], None], **options: Any) -> Damage:
    """The zip with more in it."""

    def damage(path: Path, rng: Rng) -> None:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        with zipfile.ZipFile(path, "a", **options) as archive:
            change(archive, rng)

    return damage


def _member(name: str, data: bytes = b"x") -> Damage:
    return _zip(lambda archive, rng: archive.writestr(name, data))


def _link(archive: zipfile.ZipFile, rng: Rng) -> None:
    member = zipfile.ZipInfo("images/link.png")
    member.create_system, member.external_attr = 3, 0o120777 << 16
    archive.writestr(member, "/etc/passwd")


def _patched(old: bytes, new: bytes, every: bool = True) -> Damage:
    """Bytes of the archive's own tables changed."""

    def damage(path: Path, rng: Rng) -> None:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data.replace(old, new) if every else data.replace(old, new, 1))

    return damage


def _heads(offset: int, value: bytes) -> Damage:
    """A field of every member's entry in the central directory."""

    def damage(path: Path, rng: Rng) -> None:
        data, at = bytearray(path.read_bytes()), -1
        while (at := data.find(b"PK\1\2", at + 1)) >= 0:
            data[at + offset : at + offset + len(value)] = value
        path.unlink()
        path.write_bytes(data)

    return damage


def _packed(method: int) -> Damage:
    """All members by another method, and one of them damaged."""

    def damage(path: Path, rng: Rng) -> None:
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        path.unlink()
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
            at = archive.infolist()[0].header_offset
        data = bytearray(path.read_bytes())
        for place in range(at + 60, at + 120):
            data[place] ^= 0x5A
        path.write_bytes(data)

    return damage


def _bomb(archive: zipfile.ZipFile, rng: Rng) -> None:
    archive.writestr("images/bomb.png", bytes(100_000_000), zipfile.ZIP_DEFLATED)


def _inside(archive: zipfile.ZipFile, rng: Rng) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as inner:
        inner.writestr("images/a.png", b"x")
    archive.writestr("images/inner.zip", file.getvalue())


def _many(archive: zipfile.ZipFile, rng: Rng) -> None:
    for number in range(20_000):
        archive.writestr(f"images/{number}.txt", b"")


ZIPS: dict[str, Damage] = {
    **{f"a member {name!r}": _member(name) for name in (
        "../outside.png", "images/../../outside.png", "/etc/outside.png", "C:\\outside.png", "..\\outside.png",
        "images/a\x1b[31m.png", "images/CON.png", "images/" + "x" * 3000 + ".png", "images/a.png/b.png",
        "images//b.png",
        "images/b\nc.png", "\\\\server\\share\\a.png", "images/.../c.png",
    )},
    "a member twice": _zip(lambda archive, rng: archive.writestr(archive.namelist()[0], b"other")),
    "a case clash": _zip(lambda archive, rng: archive.writestr(archive.namelist()[0].upper(), b"other")),
    "a link": _zip(_link),
    "a bomb": _zip(_bomb),
    "a zip inside": _zip(_inside),
    "many members": _zip(_many),
    "encrypted": _heads(8, b"\1\0"),
    "an unknown method": _heads(10, b"\x63\0"),
    "sizes that lie": _heads(24, b"\xff\xff\0\0"),
    "gigantic sizes": _heads(24, b"\xfe\xff\xff\x7f"),
    "checksums that lie": _heads(16, b"\1\2\3\4"),
    "places that lie": _heads(42, b"\xff\xff\0\0"),
    "bzip2, damaged": _packed(zipfile.ZIP_BZIP2),
    "LZMA, damaged": _packed(zipfile.ZIP_LZMA),
    "deflate, damaged": _packed(zipfile.ZIP_DEFLATED),
    "names that are no UTF-8": _patched(b"images/p", b"images/\xff"),
    "names with NUL": _patched(b"images/p", b"images/\0"),
    **BYTES,
}  # fmt: skip

# The files of a release


def _instead(make: Callable[[Path], Any]) -> Damage:
    def damage(path: Path, rng: Rng) -> None:
        path.unlink()
        make(path)

    return damage


def _case(path: Path, rng: Rng) -> None:
    path.with_name(path.name.upper()).write_bytes(path.read_bytes())


FOLDERS: dict[str, Damage] = {
    "a folder": _instead(lambda path: path.mkdir()),
    "a link to nowhere": _instead(lambda path: path.symlink_to("nowhere.png")),
    "a link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "a link to a device without end": _instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to a terminal": _instead(lambda path: path.symlink_to("/dev/tty")),
    "a pipe": _instead(os.mkfifo),
    "a link up": _instead(lambda path: path.symlink_to("..")),
    "another case": _case,
    "another suffix": lambda path, rng: path.with_suffix(".jpg").write_bytes(path.read_bytes()) and None,
    "a name with a line": lambda path, rng: path.rename(path.with_name("a\nb\x1b[31m.png")) and None,
    "a name that is no UTF-8": lambda path, rng: path.rename(path.with_name(os.fsdecode(b"\xff\xfe.png"))) and None,
    "a name of 250 letters": lambda path, rng: path.rename(path.with_name("x" * 246 + ".png")) and None,
    "a name like an option": lambda path, rng: path.rename(path.with_name("--out=x.png")) and None,
    "a name like a formula": lambda path, rng: path.rename(path.with_name("=1+1.png")) and None,
    "gone": lambda path, rng: path.unlink(),
}
