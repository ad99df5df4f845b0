"""What a user reads when something cannot be done: one sentence that says what, where and the mend."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Iterable, Iterator
from typing import Any

SHOWN = 12  # names of a long list that a sentence holds


class UsbenchError(Exception):
    """Bad input: the command line prints the sentence and leaves with exit code 2."""

    exit_code = 2


class Refused(UsbenchError):
    """What a stage is made of cannot be built so: a bad option."""


class RunFailed(UsbenchError):
    """A run or a check that began and could not end well: exit code 1."""

    exit_code = 1


class OutOfMemory(RunFailed):
    """The memory of the device did not do."""


class NotSparing(OutOfMemory):
    """A training cannot be done in less memory without being another one; says why, not as a sentence."""


class Halt(UsbenchError):
    """Nothing else could be done either, as on a full disk: all work stops."""


class Interrupted(UsbenchError):
    """The user asked to stop, and what was done so far is saved: exit code 130, or 143 after SIGTERM."""

    exit_code = 130


@contextlib.contextmanager
def about(what: str, path: object) -> Iterator[None]:
    """Let the sentence of an error begin with the file that it comes from, where it does not name it."""
    try:
        yield
    except UsbenchError as error:
        if path is not None and str(path) not in str(error):
            error.args = (f"{what} {path}: {error}",)
        raise


def listed(names: Iterable[str]) -> str:
    """Names for a sentence: the first of them where there are many."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return (", ".join(every[:SHOWN]) + more) or "nothing"


def unknown(what: str, name: str, known: Iterable[str], *, where: str = "") -> UsbenchError:
    """The error for a name nobody knows, with the nearest known one offered."""
    choices = sorted(known)
    lower = {choice.lower(): choice for choice in choices}
    near = [lower[found] for found in difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)]
    if near:
        mend = f"did you mean '{near[0]}'?"
    elif choices:
        mend = f"known: {listed(choices)}."
    else:
        mend = "there is none."
    return UsbenchError(f"unknown {what} '{name}'{' ' + where if where else ''}: {mend}")


def text_of(value: Any, what: str) -> str:
    """A text or path from Python as text; a sentence where it is neither."""
    try:
        return os.fsdecode(value)
    except TypeError:
        raise UsbenchError(f"{what} {value!r}: give a text or a path.") from None


def texts_of(value: Any, what: str) -> list[str]:
    """One text or path, or several; none where nothing is given."""
    if value is None:
        return []
    alone = isinstance(value, str | bytes | os.PathLike) or not isinstance(value, Iterable)
    return [text_of(each, what) for each in ([value] if alone else value)]


def of_system(error: OSError) -> UsbenchError:
    """The error for a file or folder that the system refused."""
    what = error.filename or "a file"
    return UsbenchError(f"{what} cannot be used ({error.strerror or error}): mend that and run it again.")


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """Let what the system refuses be a sentence; a reader that went away is none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise of_system(error) from error
