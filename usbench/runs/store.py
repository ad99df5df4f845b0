"""The store: one folder a finished stage, named by its key; finished or absent.

runs/store.json                 the schema
runs/stages/<kind>-<key>/       record.json and what the stage made
runs/stages/<kind>-<key>.part/  a stage in work, under a lease
runs/failed/<kind>-<key>.json   why a stage failed the last time
runs/begun/<key>.json           the stages of work that was begun and has not ended well yet
runs/<name>-<key>/              a run's spec, table and pictures, derived from its stages
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from usbench.errors import Halt, UsbenchError
from usbench.runs.lease import Lease, Owner, Taken, holder, is_lease, leased

SCHEMA = 1
RECORD = "record.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_json(path: Path, value: Any) -> None:
    """Write JSON; the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def digests_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file that a stage made, by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and name.as_posix() != RECORD and not is_lease(name):
            with path.open("rb") as file:
                found[name.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def seal_of(record: dict[str, Any]) -> str:
    """The SHA-256 of a record without its seal."""
    text = json.dumps({k: v for k, v in record.items() if k != "seal"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class Store:
    """Results by key, in a folder that may be shared."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stages = root / "stages"
        self.failed = root / "failed"
        self.begun = root / "begun"
        self._leases: dict[str, Lease] = {}

    def check_place(self) -> None:
        """Refuse a place where no store can be, as far as that shows without writing."""
        present = next(place for place in (self.root, *self.root.absolute().parents) if place.exists())
        if not present.is_dir():
            raise UsbenchError(f"--out {self.root}: {present} is a file; name a folder.")
        if (self.root / "store.json").exists():
            self.check_schema()

    def open(self) -> Store:
        """Make the folder if needed and check that it can be used."""
        self.check_place()
        try:
            self.stages.mkdir(parents=True, exist_ok=True)
            if not (self.root / "store.json").exists():
                write_json(self.root / "store.json", {"schema": SCHEMA})
            probe = self.stages / f".probe-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UsbenchError(
                f"--out {self.root} cannot be written ({error.strerror}): name another folder."
            ) from None
        return self.check_schema()

    def check_schema(self) -> Store:
        """Refuse a store that a newer usbench wrote."""
        path = self.root / "store.json"
        if not path.is_file():
            raise UsbenchError(f"{self.root} is no usbench store (it has no store.json): name the --out of a run.")
        try:
            schema = int(json.loads(path.read_text("utf-8"))["schema"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsbenchError(f"{path} cannot be read ({error}): restore it or start a new store.") from None
        if schema > SCHEMA:
            raise UsbenchError(
                f"{self.root} has store schema {schema}, newer than the {SCHEMA} known here: update usbench."
            )
        return self

    def leaves_out(self, name: str) -> bool:
        """Whether files of this name were left out when the store was published."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            said = json.loads((self.root / "store.json").read_text("utf-8")).get("left_out", [])
            return name.endswith(tuple(map(str, said)))
        return False

    def folder(self, stage_id: str) -> Path:
        """Where a finished stage lies."""
        return self.stages / stage_id

    def has(self, stage_id: str) -> bool:
        """Whether the stage is finished."""
        return (self.folder(stage_id) / RECORD).is_file()

    def record(self, stage_id: str) -> dict[str, Any]:
        """What is recorded of a finished stage."""
        path = self.folder(stage_id) / RECORD
        try:
            return json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UsbenchError(f"{path} is damaged ({error}): delete its folder and run again.") from None

    def records(self, kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every finished stage of a kind, by name."""
        for path in sorted(self.stages.glob(f"{kind}-*/record.json")):
            if path.parent.suffix != ".part":
                yield path.parent, self.record(path.parent.name)

    def part(self, stage_id: str) -> Path:
        """Where a stage lies while it is worked on."""
        return self.stages / f"{stage_id}.part"

    def holder(self, stage_id: str) -> Owner | None:
        """Who works on a stage now; None where nobody does."""
        return holder(self.part(stage_id))

    @contextlib.contextmanager
    def work(self, stage_id: str) -> Iterator[Path]:
        """A folder to make a stage in; renamed to its final name by `finish`. One process at a time, else `Taken`."""
        try:
            with leased(self.part(stage_id), stage_id) as lease:
                self._leases[stage_id] = lease
                yield self.part(stage_id)
        except OSError as error:
            if error.errno in FULL or any(os.strerror(code) in str(error) for code in FULL):
                raise Halt(
                    f"the disk of {self.root} is full: make room and run the same command again; "
                    f"finished stages are kept, and {stage_id} goes on from its last checkpoint."
                ) from error
            if error.errno == errno.EROFS:
                raise Halt(
                    f"{self.root} can no longer be written: mend that and run the same command again."
                ) from error
            raise
        finally:
            self._leases.pop(stage_id, None)
            with contextlib.suppress(OSError):
                self.part(stage_id).rmdir()  # where not even a lease could be written

    def finish(self, stage_id: str, record: dict[str, Any]) -> None:
        """Write the record, sealed and with a digest of every file, and make the stage visible in one step."""
        part, final = self.part(stage_id), self.folder(stage_id)
        whole = {**record, "files": digests_of(part)}
        write_json(part / RECORD, {**whole, "seal": seal_of(whole)})
        if self._leases[stage_id].lost():
            raise Taken(f"{stage_id} was taken over by another process, which heard nothing of this one for too long.")
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        for path in final.iterdir():
            if is_lease(path.relative_to(final)):
                shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            (self.failed / f"{stage_id}.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def wanting(
        self, stage_ids: Iterable[str], name: str = "", titles: Mapping[str, str] | None = None
    ) -> Iterator[None]:
        """Note which stages work that begins now wants, until it ends well: nobody may clear them away."""
        wanted = sorted(set(stage_ids))
        said = {"stages": wanted, "name": name, "titles": dict(titles or {})}
        path = self.begun / f"{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:16]}.json"
        with contextlib.suppress(OSError):
            self.begun.mkdir(exist_ok=True)
            if not path.exists():  # what a suite has done in turn is noted by the suite
                write_json(path, {**said, "when": datetime.now(UTC).isoformat(timespec="seconds")})
        yield
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.begun.rmdir()

    def note_failure(self, stage_id: str, title: str, why: str) -> None:
        """Keep why a stage failed, until it succeeds."""
        with contextlib.suppress(OSError):
            self.failed.mkdir(exist_ok=True)
            note = {"title": title, "why": why, "when": datetime.now(UTC).isoformat(timespec="seconds")}
            write_json(self.failed / f"{stage_id}.json", {**note, "host": socket.gethostname()})

    def failure(self, stage_id: str) -> str:
        """Why a stage failed the last time; empty where it did not, or is finished since."""
        try:
            note = json.loads((self.failed / f"{stage_id}.json").read_text("utf-8"))
            return "" if self.has(stage_id) else str(note["why"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
