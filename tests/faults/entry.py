"""The command line in this process, under limits of time and memory, and what must hold however it ends."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from usbench import cli, hooks
from usbench.runs import plan

SECONDS = 10.0
ADDRESSES = 8 * 2**30  # bytes of address space that a command may add: what asks for terabytes is refused
UNFINISHED = (".tmp", ".part", ".spool", ".old")


class Hang(BaseException):
    """The command took too long. No Exception, so that nothing swallows it."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float
    trace: str = ""  # of what nobody caught, for whoever mends it


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """At most so many seconds and so much memory more than now, where the system can."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with _addresses():
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _addresses() -> Iterator[None]:
    try:
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESSES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def call(*words: object, seconds: float = SECONDS) -> Ended:
    """`usbench …` in this process, through the function that makes sentences and exit codes of errors."""
    hooks.registry.cache_clear()  # --plugins-dir adds to the process's registry
    out, err, seen, trace = io.StringIO(), io.StringIO(), list[str](), ""
    before, cores, say = sys.argv, plan.available_cores, cli._say

    def heard(sentence: str) -> None:
        nonlocal trace
        trace = traceback.format_exc() if "unexpected" in sentence else ""
        say(sentence)

    sys.argv, cli._say = ["usbench", *map(str, words)], heard
    plan.available_cores = lambda: 1  # type: ignore[assignment]  # one worker: the stages are done in this process
    started = time.monotonic()
    code = 0
    try:
        with (
            contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings(record=True) as w,
            limited(seconds),
        ):  # fmt: skip
            warnings.simplefilter("always")
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
        seen = [str(each.message) for each in w if issubclass(each.category, UserWarning | RuntimeWarning)]
    except Hang:
        code, trace = -1, traceback.format_exc()
    finally:
        sys.argv, plan.available_cores, cli._say = before, cores, say
        hooks.registry.cache_clear()
    said = "".join(f"warning: {message}\n" for message in dict.fromkeys(seen))
    return Ended(code, out.getvalue(), err.getvalue() + said, time.monotonic() - started, trace)


def files_below(folder: Path) -> set[str]:
    """Every file and folder, by its path."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def faults(ended: Ended, names: tuple[str, ...], before: set[str], after: set[str]) -> list[str]:
    """What is wrong with how a command ended that was given a damaged file: nothing, it is hoped.

    `names` are what the message may call the file; `before` and `after` are the files around it.
    """
    found = []
    if ended.code == -1:
        return [f"it hung ({ended.seconds:.0f} s)"]
    if ended.code not in (0, 1, 2):
        found.append(f"exit code {ended.code}")
    if "Traceback" in ended.out + ended.err:
        found.append("a traceback")
    lines = [line for line in ended.err.splitlines() if not line.startswith(("skipped: ", "note: "))]
    if any(line.startswith("warning: ") for line in lines):
        found.append("a library's warning")
    if ended.code:
        told = ended.code == 1 and not lines  # a list of what a check found, on stdout
        if not told and (len(lines) != 1 or not lines[0].startswith("usbench: ")):
            found.append("no single sentence")
        if "unexpected" in ended.err:
            found.append("an unexpected error")
        if not any(name in ended.out + ended.err for name in names):
            found.append("the message does not name the file")
    new = after - before
    stores = {name.rpartition("/")[0] for name in new | before if name.endswith("store.json")}
    left = [name for name in new - stores if not any(name.startswith(f"{store}/") for store in stores)]
    if ended.code and left:
        found.append(f"left behind: {min(left)}")
    if half := [name for name in new if name.endswith(UNFINISHED)]:
        found.append(f"half-written: {min(half)}")
    return found
