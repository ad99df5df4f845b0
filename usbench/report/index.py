"""The index: what was read of a store's records and what was made of their scores, so that neither is done twice.

It is a file beside the store's stages that may be deleted at any time. A record counts as read while its files have
the same size and time of change; a number is found by the digests of the score files that it was made of. All of it is
forgotten when the code that makes the numbers changes. `usbench verify` never looks at it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from usbench.evaluate import classification, segmentation, statistics
from usbench.report import cells, columns, differences, folds, results, scores
from usbench.report.cells import Memo
from usbench.report.results import SCORES, Result, evaluations, whole
from usbench.runs.store import Store
from usbench.whole import written

NAME = "index.json"
LENGTHS = (1, 4, 7)  # of a mean, of an interval and of the counts


@functools.cache
def made_by() -> str:
    """A digest of the code that reads records and makes numbers."""
    digest = hashlib.sha256()
    for module in (classification, segmentation, statistics, cells, columns, differences, folds, results, scores):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


class Index:
    """Every evaluation of some stores, a word on each that is half-written, and the numbers known so far."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = stores
        self.results: list[Result] = []
        self.broken: list[str] = []
        self.memo = Memo()
        self._stamps: dict[Path, list[int]] = {}
        self._read = 0  # how many evaluations no index knew
        self._loaded: list[dict[str, list[float]]] = []
        for store in stores:
            records, numbers = _load(store)
            self._loaded.append(numbers)
            self.memo.update(numbers)
            for folder in evaluations(store):
                self._add(store, folder, records.get(folder.name))
        self._numbers = set(self.memo)

    def _add(self, store: Store, folder: Path, entry: dict[str, Any] | None) -> None:
        with contextlib.suppress(OSError):
            self._stamps[folder] = _stamp(folder)  # before anything is read: what changes meanwhile is read again
        result: Result | str | None = _known(folder, entry, self._stamps.get(folder))
        if result is None:
            result = whole(store, folder)
            self._read += 1
        if isinstance(result, str):
            self.broken.append(result)
        else:
            self.results.append(result)

    def save(self) -> None:
        """Remember the records, each in its store, and the numbers that were asked for, in the first one; the others
        keep theirs.

        Where nothing was read or made anew, nothing is written. A store that cannot be written has no index, and is
        read again the next time.
        """
        if not self._read and self.memo.keys() == self._numbers:
            return
        for place, store in enumerate(self.stores):
            asked = {key: self.memo[key] for key in sorted(self.memo.asked)}
            numbers = asked if place == 0 else self._loaded[place]
            records = {r.folder.name: self._entry(r) for r in self.results if r.folder.parent == store.stages}
            # One without its trainings may still be on its way from another machine.
            records = {name: entry for name, entry in records.items() if entry["recipe"]}
            text = json.dumps({"made_by": made_by(), "records": records, "numbers": numbers})
            path = store.root / NAME
            with contextlib.suppress(OSError), written(path) as temporary:
                temporary.write_text(text, "utf-8")

    def _entry(self, result: Result) -> dict[str, Any]:
        parts = {f.name: getattr(result, f.name) for f in fields(result) if f.name != "folder"}
        return {**parts, "digest": result.digest, "stamp": self._stamps.get(result.folder)}


def _load(store: Store) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The records and numbers of a store's index, or none where it is missing, damaged or of other code."""
    try:
        index = json.loads((store.root / NAME).read_text("utf-8"))
        fits = index["made_by"] == made_by() and all(
            isinstance(numbers, list) and len(numbers) in LENGTHS and all(isinstance(x, float | int) for x in numbers)
            for numbers in index["numbers"].values()
        )
        return (dict(index["records"]), dict(index["numbers"])) if fits else ({}, {})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}, {}


def _stamp(folder: Path) -> list[int]:
    """Size and time of change of what is read of an evaluation."""
    facts = [(folder / name).stat() for name in ("record.json", SCORES)]
    return [number for fact in facts for number in (fact.st_size, fact.st_mtime_ns)]


def _known(folder: Path, entry: dict[str, Any] | None, stamp: list[int] | None) -> Result | None:
    """The evaluation as it was read before, if its files are still the same."""
    with contextlib.suppress(KeyError, TypeError):
        if entry is not None and stamp is not None and entry["stamp"] == stamp:
            parts = {f.name: entry[f.name] for f in fields(Result) if f.name != "folder"}
            lists = {name: tuple(parts[name]) for name in ("budget", "processors")}
            result = Result(folder, **{**parts, **lists})
            result.__dict__["digest"] = str(entry["digest"])  # what the cached property would find
            return result
    return None
