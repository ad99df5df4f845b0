"""The store: one folder a finished stage, named by its key; finished or absent.

runs/store.json                 the schema
runs/stages/<kind>-<key>/       record.json and what the stage made
runs/stages/<kind>-<key>.part/  a stage in work, under a lease
runs/failed/<kind>-<key>.json   why a stage failed the last time
runs/begun/<key>-<token>.json   the stages of work that was begun and has not ended well yet, by whom
runs/starts/<name>              the digest of the ImageNet weights that stages started from
runs/<name>-<key>/              a run's spec, table and pictures, derived from its stages
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from usbench.errors import Halt, Interrupted, UsbenchError
from usbench.runs.begun import Begun
from usbench.runs.lease import Lease, Taken, holder, is_lease, leased
from usbench.runs.owner import Owner
from usbench.runs.records import RECORD, STATE, WEIGHTS, digest_of, digests_of, is_stage, seal_of, tidy, write_json

SCHEMA = 1
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _taken_over(stage_id: str) -> Taken:
    return Taken(f"{stage_id} was taken over by another process, which heard nothing of this one for too long.")


class Store:
    """Results by key, in a folder that may be shared."""

    def __init__(self, root: Path, name: str = "") -> None:
        self.root = root
        self.name = name or str(root)  # by which a reader knows it, who may never have seen the folder
        self.stages = root / "stages"
        self.failed = root / "failed"
        self.begun = root / "begun"
        self._leases: dict[str, Lease] = {}
        self._begun = Begun(self.begun, self.has)

    @property
    def there(self) -> bool:
        """Whether a store was begun here."""
        return (self.root / "store.json").exists()

    def check_place(self) -> None:
        """Refuse a place where no store can be, as far as that shows without writing."""
        present = next(place for place in (self.root, *self.root.absolute().parents) if place.exists())
        if not present.is_dir():
            raise UsbenchError(f"--out {self.root}: {present} is a file; name a folder.")
        if self.there:
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
            raise UsbenchError(f"{self.name} is no usbench store (it has no store.json): name the --out of a run.")
        try:
            schema = int(json.loads(path.read_text("utf-8"))["schema"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsbenchError(f"{path} cannot be read ({error}): restore it or start a new store.") from None
        if schema > SCHEMA:
            raise UsbenchError(
                f"{self.name} has store schema {schema}, newer than the {SCHEMA} known here: update usbench."
            )
        return self

    def leaves_out(self, name: str) -> bool:
        """Whether files of this name were left out when the store was published."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            said = json.loads((self.root / "store.json").read_text("utf-8")).get("left_out", [])
            return name.endswith(tuple(map(str, said)))
        return False

    def folder(self, stage_id: str) -> Path:
        """Where a finished stage lies; a text that is no stage's name leads nowhere."""
        if not is_stage(stage_id):
            raise UsbenchError(
                f"'{stage_id}' is no name of a stage (as finetune-0123456789abcdef is one): something that names the "
                f"stages of {self.root} was changed by hand; run what made it again."
            )
        return self.stages / stage_id

    def has(self, stage_id: str) -> bool:
        """Whether the stage is finished."""
        return (self.folder(stage_id) / RECORD).is_file()

    def ready(self, stage_id: str) -> bool:
        """Whether the stage is finished and others can go on from it: what was published has no weights."""
        if not self.has(stage_id):
            return False
        if (self.folder(stage_id) / WEIGHTS).is_file() or not self.leaves_out(WEIGHTS):
            return True
        return WEIGHTS not in (self.record(stage_id).get("files") or {})

    def file(self, stage_id: str, name: str) -> Path:
        """A file that a finished stage made, once it is seen to be what was recorded."""
        path = self.folder(stage_id) / name
        files = dict(self.record(stage_id).get("files") or {})
        try:
            whole = path.is_file() and (name not in files or files[name] == digest_of(path))
        except OSError:
            whole = False
        if not whole:
            what = "is not what was recorded" if path.exists() else "is missing"
            raise UsbenchError(
                f"{path} {what}: delete the folder {path.parent} and run the same command again, which makes it anew; "
                f"'usbench store check {self.root}' says what else is not whole."
            )
        return path

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
            if is_stage(path.parent.name):
                yield path.parent, self.record(path.parent.name)

    def part(self, stage_id: str) -> Path:
        """Where a stage lies while it is worked on."""
        return self.folder(stage_id).with_suffix(".part")

    def holder(self, stage_id: str) -> Owner | None:
        """Who works on a stage now; None where nobody does."""
        return holder(self.part(stage_id))

    @contextlib.contextmanager
    def work(self, stage_id: str) -> Iterator[Path]:
        """A folder to make a stage in; renamed to its final name by `finish`. One process at a time, else `Taken`."""
        try:
            with leased(self.part(stage_id), stage_id) as lease:
                self._leases[stage_id] = lease
                tidy(self.part(stage_id))
                try:
                    yield self.part(stage_id)
                except Exception as error:  # whatever it is, where another process may have finished the folder
                    if not isinstance(error, Interrupted | Taken) and lease.lost():
                        raise _taken_over(stage_id) from error
                    raise
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
        tidy(part)
        whole = {**record, "files": digests_of(part)}
        write_json(part / RECORD, {**whole, "seal": seal_of(whole)})
        if self._leases[stage_id].lost():
            raise _taken_over(stage_id)
        (part / STATE).unlink(missing_ok=True)
        if final.exists():
            shutil.rmtree(final)
        part.rename(final)
        for path in final.iterdir():
            if is_lease(path.relative_to(final)):
                shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._why(stage_id).unlink(missing_ok=True)

    def wanting(
        self, stage_ids: Iterable[str], name: str = "", titles: Mapping[str, str] | None = None
    ) -> contextlib.AbstractContextManager[None]:
        """Note what work that begins now wants, until it ends well."""
        return self._begun.wanting(stage_ids, name, titles or {})

    def _why(self, stage_id: str) -> Path:
        return self.failed / f"{self.folder(stage_id).name}.json"

    def note_failure(self, stage_id: str, title: str, why: str) -> None:
        """Keep why a stage failed, until it succeeds."""
        with contextlib.suppress(OSError):
            self.failed.mkdir(exist_ok=True)
            note = {"title": title, "why": why, "when": datetime.now(UTC).isoformat(timespec="seconds")}
            write_json(self._why(stage_id), {**note, "host": socket.gethostname()})

    def failure(self, stage_id: str) -> str:
        """Why a stage failed the last time; empty where it did not, or is finished since."""
        try:
            note = json.loads(self._why(stage_id).read_text("utf-8"))
            return "" if self.has(stage_id) else str(note["why"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
