"""Who works on something: a process, so named that it is told from any other on machines that share a folder."""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BOOT = Path("/proc/sys/kernel/random/boot_id")  # another one on each machine, and after each start of it

held: set[str] = set()  # the tokens of this process


@dataclass(frozen=True)
class Owner:
    """Who holds a lease."""

    token: str
    host: str
    space: str  # of process ids: two containers, or two machines, may have one host name
    pid: int
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def space_of_ids() -> str:
    """The process ids that are known here: those of a namespace, since this machine was started."""
    said = []
    with contextlib.suppress(OSError):
        said.append(str(Path("/proc/self/ns/pid").readlink()))
    with contextlib.suppress(OSError):
        said.append(BOOT.read_text("utf-8").strip())
    return " ".join(said)


def myself() -> Owner:
    """This process, as an owner that nobody else is."""
    return Owner(uuid.uuid4().hex, socket.gethostname(), space_of_ids(), os.getpid())


def ended(owner: Owner, *, elsewhere: bool = False) -> bool:
    """Whether an owner's process is no more, which is known on this machine only; `elsewhere` is what else is said."""
    if (owner.host, owner.space) != (socket.gethostname(), space_of_ids()):
        return elsewhere
    if owner.pid == os.getpid():
        return owner.token not in held  # the process id of somebody who is no more came to us
    try:
        os.kill(owner.pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


@contextlib.contextmanager
def working(me: Owner) -> Iterator[None]:
    """Meanwhile an owner that this process made counts as being there."""
    held.add(me.token)
    try:
        yield
    finally:
        held.discard(me.token)
