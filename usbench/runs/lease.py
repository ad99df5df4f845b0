"""Who works on a stage: a lease with a heartbeat, right on any number of machines that share a folder.

part/lease/owner.json           the first owner
part/lease-<token>/owner.json   who took over from the owner with this token, who was gone

The holder is the end of this chain. A link is made elsewhere and put in its place by renaming its folder: that fails
where the link is there already, shows the file whole, and is the one thing that is atomic on every file system. Nobody
ever removes another's link, so a process that slept through a takeover cannot break the lease of whoever came after: it
makes a link that hangs on nothing.

Whether an owner is gone is never told by a clock. On this machine its process is asked after; of others, the heartbeat
must have stood still for as long as we watched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from usbench.errors import RunFailed
from usbench.runs.owner import Owner, ended, held, myself

STALE_SECONDS = 60.0  # a heartbeat that stands still for so long has stopped
BEAT_SECONDS = 10.0
LEASE, OWNER = "lease", "owner.json"

watched: dict[str, tuple[int, float]] = {}  # token → its last beat, and since when no later one was seen


def seen() -> dict[str, list[float]]:
    """What this process has watched, for another one to know: of each token its last beat, and how long ago it was."""
    now = time.monotonic()
    return {token: [beat, now - since] for token, (beat, since) in watched.items()}


def believe(others: dict[str, list[float]]) -> None:
    """Take over what another process has seen; its clock is not ours."""
    now = time.monotonic()
    watched.update({token: (int(beat), now - ago) for token, (beat, ago) in others.items()})


class Taken(RunFailed):
    """Another process works on the stage: do something else meanwhile, and look again."""


def is_lease(path: Path) -> bool:
    """Whether a path in a stage's folder belongs to a lease and not to what the stage made."""
    return path.parts[0] == LEASE or path.parts[0].startswith(f"{LEASE}-")


def links(part: Path) -> list[tuple[Path, Owner]]:
    """The chain of a stage's folder: who began, who took over, and last who holds the lease now."""
    found: list[tuple[Path, Owner]] = []
    link = part / LEASE
    while (owner := _read(link / OWNER)) is not None:
        found.append((link, owner))
        link = part / f"{LEASE}-{owner.token}"
    return found


def holder(part: Path) -> Owner | None:
    """Who works on a stage now, as far as we know; None where nobody does."""
    chain = links(part)
    return chain[-1][1] if chain and not gone(*chain[-1]) else None


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError):  # not written by us: whoever it was holds nothing
        return Owner(hashlib.sha256(path.parent.name.encode()).hexdigest()[:32], "", "", 0, released=True)


def gone(link: Path, owner: Owner) -> bool:
    """Whether the owner of a link works no longer."""
    if owner.released:
        return True
    if owner.token in held:
        return False
    if ended(owner):
        return True
    # Another machine; or a process id that may have been given to somebody else since.
    beat, now = last_beat(link), time.monotonic()
    known, since = watched.setdefault(owner.token, (beat, now))
    if beat != known:
        watched[owner.token] = beat, now
        return False
    return now - since >= STALE_SECONDS


def last_beat(link: Path) -> int:
    """When the owner of a link was last heard of, by the clock of the file system, in nanoseconds."""
    try:
        with (link / OWNER).open("rb") as file:  # opening asks the server, not a cache
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return 0


class Lease:
    """One that this process holds, until `release` or until somebody took it over."""

    def __init__(self, part: Path, link: Path, me: Owner) -> None:
        self.part, self.link, self.me = part, link, me
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.utime(self.link / OWNER)

    def lost(self) -> bool:
        """Whether it is another's: they saw no heartbeat of ours, and took over."""
        chain = links(self.part)
        return not chain or chain[-1][1] != self.me

    def release(self) -> None:
        """Give it back; a folder in which nothing was made goes too."""
        self._done.set()
        self._thread.join()
        try:
            if self.lost():
                return
            if all(is_lease(path.relative_to(self.part)) for path in self.part.iterdir()):
                trash = self.part.with_name(f".{uuid.uuid4().hex}.trash")
                self.part.rename(trash)
                _remove(trash)
                return
            mark = self.link / f".{OWNER}.tmp"
            mark.write_text(json.dumps({**asdict(self.me), "released": True}), "utf-8")
            mark.replace(self.link / OWNER)
        except OSError:
            pass  # the folder is finished and renamed, or the disk is full: our process id tells that we are gone
        finally:
            held.discard(self.me.token)


def _remove(trash: Path) -> None:
    """Remove a folder into which others may still put a link: a rename that has begun ends in it, whatever its name."""
    for _ in range(10):
        shutil.rmtree(trash, ignore_errors=True)
        if not trash.exists():
            return


def take(part: Path, stage_id: str) -> Lease:
    """Take the lease of a stage's folder, which is made where needed; `Taken` while somebody else has it."""
    me = myself()
    while True:
        try:
            part.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            if part.is_file():
                raise
            continue  # it was there, and was finished before it could be seen what it is
        chain = links(part)
        if chain and not gone(*chain[-1]):
            raise Taken(f"{stage_id} is being computed by {chain[-1][1]}: wait for it, or stop it and run again.")
        place = part / (f"{LEASE}-{chain[-1][1].token}" if chain else LEASE)
        held.add(me.token)
        if _put(place, me):
            if (place, me) in links(part)[-1:]:
                return Lease(part, place, me)
            if place.name != LEASE:  # the folder became another one meanwhile, and our link hangs on nothing
                shutil.rmtree(place, ignore_errors=True)
        held.discard(me.token)


def _put(place: Path, me: Owner) -> bool:
    """Put our link in its place; False where somebody else was faster, or the folder is no longer there."""
    ready = place.parent.with_name(f".{me.token}.lease")
    ready.mkdir(exist_ok=True)
    try:
        with (ready / OWNER).open("w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(me)))
            file.flush()
            os.fsync(file.fileno())  # a machine that loses its power leaves no empty link
        ready.rename(place)
    except OSError as error:
        # A server that repeats a rename whose answer was lost says that it failed: what counts is who stands there.
        found = _read(place / OWNER)
        if found is None and place.parent.is_dir() and not isinstance(error, FileNotFoundError | FileExistsError):
            raise
        return found == me
    finally:
        shutil.rmtree(ready, ignore_errors=True)
    return True


@contextlib.contextmanager
def leased(part: Path, stage_id: str) -> Iterator[Lease]:
    """Hold the lease of a stage's folder."""
    lease = take(part, stage_id)
    try:
        yield lease
    finally:
        lease.release()
