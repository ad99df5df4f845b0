"""A file that HDF5 can write to on a full disk: the library crashes where a write fails while it closes a file."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Given = TypeVar("Given")


class Sink(io.RawIOBase):
    """Takes everything and remembers the first failure; `check` raises it, also after HDF5 has closed its file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def check(self) -> None:
        """Raise what went wrong so far."""
        if self.error is not None:
            raise self.error

    def _tried(self, call: Callable[[], Given], otherwise: Given) -> Given:
        try:
            return call() if self.error is None else otherwise
        except OSError as error:
            self.error = error
            return otherwise

    def write(self, data: Any) -> int:
        """Write all of it, or remember why not."""
        view, at = memoryview(data).cast("B"), 0
        while at < len(view):
            at += self._tried(functools.partial(self.file.write, view[at:]), len(view) - at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        """What was written; zeros where nothing is."""
        view = memoryview(buffer).cast("B")
        found = self._tried(lambda: self.file.readinto(view), 0) or 0
        view[found:] = bytes(len(view) - found)
        return len(view)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self.file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Make it so long, or remember why not."""
        return self._tried(lambda: self.file.truncate(size), size or 0)

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close the file."""
        self.file.close()
        super().close()
