"""Whether a pack holds what its digest says: read whole once, and remembered in the data home until it changes."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from usbench.data.pack import Pack
from usbench.data.place import data_home
from usbench.whole import written

_here: set[str] = set()  # what this process has seen to be whole


def check_once(pack: Pack) -> None:
    """Refuse a pack that was changed after it was written, since keys are made of its digest."""
    path = pack.path.resolve()
    state = path.stat()
    seen = f"{path}\n{state.st_size} {state.st_mtime_ns} {state.st_ino} {pack.digest}\n"
    note = data_home() / "checked" / hashlib.sha256(str(path).encode()).hexdigest()[:32]
    if seen in _here:
        return
    with suppress(OSError, ValueError):
        if note.read_text("utf-8") == seen:
            return
    pack.check()
    _here.add(seen)
    with suppress(OSError, ValueError):  # where nothing can be kept the next process reads it again
        note.parent.mkdir(parents=True, exist_ok=True)
        with written(note) as temporary:
            temporary.write_text(seen, "utf-8")
