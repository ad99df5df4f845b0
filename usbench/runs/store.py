"""The store: one folder a finished stage, named by its key; finished or absent.

runs/store.json                 the schema
runs/stages/<kind>-<key>/       record.json and what the stage made
runs/stages/<kind>-<key>.part/  a stage in work, under a lease
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
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from usbench.errors import RunFailed, UsbenchError

SCHEMA = 1
STALE_SECONDS = 60.0  # a lease without a heartbeat for so long is taken over
BEAT_SECONDS = 10.0
RECORD, LEASE = "record.json", "lease.json"
WRITING_SECONDS = 1.0  # a lease that cannot be read and is older was cut short


def write_json(path: Path, value: Any) -> None:
    """Write JSON; the file is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def digests_of(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file that a stage made, by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in (RECORD, LEASE):
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
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
            probe = self.stages / f".probe-{os.getpid()}"
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
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsbenchError(f"{path} cannot be read ({error}): restore it or start a new store.") from None
        if schema > SCHEMA:
            raise UsbenchError(
                f"{self.root} has store schema {schema}, newer than the {SCHEMA} known here: update usbench."
            )
        return self

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
        except (OSError, ValueError) as error:
            raise UsbenchError(f"{path} is damaged ({error}): delete its folder and run again.") from None

    def records(self, kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Every finished stage of a kind, by name."""
        for path in sorted(self.stages.glob(f"{kind}-*/record.json")):
            if path.parent.suffix != ".part":
                yield path.parent, self.record(path.parent.name)

    @contextlib.contextmanager
    def work(self, stage_id: str) -> Iterator[Path]:
        """A folder to make a stage in; renamed to its final name by `finish`. One process at a time."""
        part = self.stages / f"{stage_id}.part"
        try:
            with _lease(part / LEASE, stage_id):
                yield part
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
                raise UsbenchError(
                    f"the disk of {self.root} is full: make room and run the same command again; "
                    f"finished stages are kept, and {stage_id} goes on from its last checkpoint."
                ) from error
            raise
        finally:
            with contextlib.suppress(OSError):
                part.rmdir()  # where nothing was made yet

    def finish(self, stage_id: str, record: dict[str, Any]) -> None:
        """Write the record, sealed and with a digest of every file, and make the stage visible in one step."""
        part = self.stages / f"{stage_id}.part"
        whole = {**record, "files": digests_of(part)}
        write_json(part / RECORD, {**whole, "seal": seal_of(whole)})
        (part / LEASE).unlink(missing_ok=True)
        if self.folder(stage_id).exists():
            shutil.rmtree(self.folder(stage_id))
        part.rename(self.folder(stage_id))


@contextlib.contextmanager
def _lease(path: Path, stage_id: str) -> Iterator[None]:
    """Hold the lease with a heartbeat; take over one whose owner is gone."""
    me = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                json.dump(me, file)
            break
        except FileNotFoundError:  # another process tidied the folder away just now
            continue
        except FileExistsError:
            owner = _owner(path)
            if owner is not None:
                raise RunFailed(
                    f"{stage_id} is being computed by process {owner['pid']} on {owner['host']}: "
                    "wait for it, or stop it and run again."
                ) from None
            path.unlink(missing_ok=True)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_SECONDS):
            try:
                os.utime(path)
            except FileNotFoundError:
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        path.unlink(missing_ok=True)


def _owner(path: Path) -> dict[str, Any] | None:
    """Who holds the lease, or None if they are gone."""
    while True:
        try:
            text, age = path.read_text("utf-8"), time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return None
        try:
            owner = json.loads(text)
            host, pid = str(owner["host"]), int(owner["pid"])
            break
        except (ValueError, KeyError, TypeError):
            if age > WRITING_SECONDS:
                return None
            time.sleep(WRITING_SECONDS / 20)
    if host != socket.gethostname():
        return owner if age < STALE_SECONDS else None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        return owner
    # A process id may have been given to somebody else since; the heartbeat has not.
    return owner if pid != os.getpid() and age < STALE_SECONDS else None
