"""What was begun in a store and has not ended well yet: a note a process, so that nobody clears away what it wants."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from usbench.errors import UsbenchError
from usbench.runs.owner import Owner, ended, myself, working
from usbench.runs.records import write_json


class Begun:
    """The notes of a store; `has` tells whether a stage is finished."""

    def __init__(self, folder: Path, has: Callable[[str], bool]) -> None:
        self.folder, self.has = folder, has
        self._wanted: list[set[str]] = []  # what this process has noted

    @contextlib.contextmanager
    def wanting(self, stage_ids: Iterable[str], name: str, titles: Mapping[str, str]) -> Iterator[None]:
        """Note which stages work that begins now wants, until it ends well: nobody may clear them away.

        Each process has a note of its own. One that ends well takes away those of others that wanted the same and are
        no more, as far as that can be known: what they wanted is done.
        """
        wanted, me = set(stage_ids), myself()
        if any(wanted <= more for more in self._wanted):  # what a suite has done in turn is noted by the suite
            yield
            return
        name_of_all = hashlib.sha256(" ".join(sorted(wanted)).encode()).hexdigest()[:16]
        path = self.folder / f"{name_of_all}-{me.token}.json"
        said = {"stages": sorted(wanted), "name": name, "titles": dict(titles), "owner": asdict(me)}
        with contextlib.suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            write_json(path, {**said, "when": datetime.now(UTC).isoformat(timespec="seconds")})
        self._wanted.append(wanted)
        try:
            with working(me):
                yield
        except UsbenchError as error:
            if error.exit_code == UsbenchError.exit_code and not any(map(self.has, wanted)):
                path.unlink(missing_ok=True)  # it was refused, and no command goes on with it
            raise
        finally:
            self._wanted.remove(wanted)
        path.unlink(missing_ok=True)
        for other in self.folder.glob(f"{name_of_all}*.json"):
            if not _works_here(other):
                other.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def _works_here(note: Path) -> bool:
    """Whether who wrote a note is a process of this machine that is still there."""
    try:
        return not ended(Owner(**json.loads(note.read_text("utf-8"))["owner"]), elsewhere=True)
    except (OSError, ValueError, KeyError, TypeError):
        return False
