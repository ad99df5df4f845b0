"""Images of a user's own: which files a few words name, what each result is called, and grey values out of any file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image as PILImage

from usbench.data.pixels import grey_of, read_image, turned_upright
from usbench.data.release import IMAGES, Undecodable
from usbench.errors import UsbenchError, listed

MORE = (".pgm", ".ppm", ".pnm", ".jp2", ".jfif", ".tga")
WILD = "*?["
MAX_BYTES = 2**30
TURNED, FIRST = "turned upright", "first of several frames"


@dataclass(frozen=True)
class Found:
    """A file, and what it is called: its path below the folder that was named, or its name."""

    path: Path
    name: str  # with suffix, parted by /


def find_images(words: Sequence[str], out: Path) -> list[Found]:
    """The files that words name (files, folders with all below, patterns), each once; none of `out` itself."""
    found: dict[Path, Found] = {}
    for word in words:
        named = _named(word)
        if not named:
            raise UsbenchError(f"there is no image at {word}: name files, folders or patterns such as 'scans/*.png'.")
        for each in named:
            place = each.path.resolve()
            if out.resolve() not in place.parents:
                found.setdefault(place, each)
    if not found:
        raise UsbenchError(f"all images at {listed(words)} are results in {out}: name others.")
    return list(found.values())


def _named(word: str) -> list[Found]:
    path = Path(word)
    if path.is_dir():
        return _below(path)
    if path.is_file():
        return [Found(path, path.name)]
    if path.exists():
        raise UsbenchError(f"{word} is no file that can be read to its end: name files, folders or patterns.")
    if any(letter in word for letter in WILD):
        root = path.parent
        while any(letter in str(root) for letter in WILD):
            root = root.parent
        try:
            matches = [m for m in sorted(root.glob(str(path.relative_to(root)))) if m.is_file() and _is_image(m.name)]
        except (ValueError, NotImplementedError):
            raise UsbenchError(
                f"{word} is no pattern: '**' means folders and stands alone between slashes, as in 'scans/**/*.png'."
            ) from None
        return [Found(match, match.relative_to(root).as_posix()) for match in matches]
    raise UsbenchError(f"there is no file or folder {word}: name files, folders or patterns such as 'scans/*.png'.")


def _below(folder: Path) -> list[Found]:
    """Every image of a folder and of those in it, in order; links to folders are not followed."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if _is_image(name) and path.is_file():  # a pipe or a device may never end
                found.append(Found(path, path.relative_to(folder).as_posix()))
    return found


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith((*IMAGES, *MORE))


def result_names(found: Sequence[Found]) -> list[str]:
    """What the results of each file are called, without suffix; no two alike, even where case does not count.

    The stem below the folder that was named; where that is taken, with the file's suffix; where that is too, with the
    folders above.
    """
    names = [str(PurePosixPath(each.name).with_suffix("")) for each in found]
    names = _apart(names, lambda place: found[place].name)
    whole = [each.path.resolve() for each in found]
    common = Path(os.path.commonpath([path.parent for path in whole])) if whole else Path()
    names = _apart(names, lambda place: whole[place].relative_to(common).as_posix())
    taken: Counter[str] = Counter()
    for place, name in enumerate(names):  # a.png.png beside a.png and a.jpg, say
        while taken[name.casefold()]:
            name += "_"
        taken[name.casefold()] += 1
        names[place] = name
    return names


def _apart(names: list[str], longer: Callable[[int], str]) -> list[str]:
    times = Counter(name.casefold() for name in names)
    return [longer(place) if times[name.casefold()] > 1 else name for place, name in enumerate(names)]


def read_scan(path: Path) -> tuple[np.ndarray, list[str]]:
    """(H, W) uint8 of an image file, upright, and what was done to it; one that cannot be read raises Undecodable."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Undecodable("it has more than 1 GiB")
        data = path.read_bytes()
    except OSError as error:
        raise Undecodable(f"it cannot be read ({error.strerror})") from None
    try:
        image, notes = read_image(data), []
        if getattr(image, "is_animated", False):
            image.seek(0)  # asking went to the next frame
            notes.append(FIRST)
        upright = turned_upright(image)
        if upright is not None:
            notes.append(TURNED)
        return _grey(upright or image), notes
    except Undecodable:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, IndexError, KeyError, TypeError) as error:
        raise Undecodable(f"it does not decode as an image ({type(error).__name__})") from None


def _grey(image: PILImage.Image) -> np.ndarray:
    if image.mode != "F":
        return grey_of(image)
    values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
    if values.max() <= 1.0:  # floating-point images mostly lie in [0, 1]; else they are whole numbers of some depth
        return (values.clip(0) * 255).round().astype(np.uint8)
    return grey_of(PILImage.fromarray(values.clip(0, 2**31 - 1).round().astype(np.int32)))
