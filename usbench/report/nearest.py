"""The runs that somebody may have meant, where none has the name that was typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

MOST = 3  # that a sentence names
LIKE = 0.5  # of two names, from 0 to 1


def runs_meant(text: str, places: Iterable[Path], *, any_name: bool = False) -> str:
    """The folders of the runs in some stores whose names are nearest to a text, as a sentence ends with them.

    `any_name`: where none is near, the last that were written. Empty where there is none at all.
    """
    found: dict[str, Path] = {}
    for place in places:
        for file in sorted(place.glob("*/run.json")) if place.is_dir() else ():
            found.setdefault(file.parent.name.lower(), file.parent)
    names = difflib.get_close_matches(Path(text).name.lower(), found, n=MOST, cutoff=LIKE)
    folders = [found[name] for name in names]
    if not folders and any_name:
        folders = sorted(found.values(), key=lambda folder: (folder / "run.json").stat().st_mtime, reverse=True)[:MOST]
    *first, last = [str(folder) for folder in folders] or [""]
    return f"{', '.join(first)} or {last}" if first else last
