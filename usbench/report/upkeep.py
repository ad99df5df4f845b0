"""What lies in a store and why: whole stages, work in progress, what nothing needs any more; and clearing that away."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from usbench.errors import UsbenchError
from usbench.report.blueprints import chain
from usbench.runs.lease import Taken
from usbench.runs.records import RECORD, STATE, digests_of, is_stage, seal_of
from usbench.runs.store import Store
from usbench.spec import key_of

LEFT = (".lease", ".trash", ".tmp")  # ends the names of what a process leaves behind that is killed at the moment


@dataclass(frozen=True)
class Rubbish:
    """Something that may go: what it is, where, and how large."""

    what: str
    path: Path
    size: int


@dataclass
class Needs:
    """Which stages the runs and suites of a store need; where that cannot be known, why."""

    stages: set[str] = field(default_factory=set)
    unknown: str = ""
    asked: int = 0  # runs, suites and unfinished work that need something


@dataclass
class State:
    """What lies in a store."""

    kinds: dict[str, tuple[int, int]] = field(default_factory=dict)  # kind → stages, bytes
    wrong: list[str] = field(default_factory=list)
    working: list[str] = field(default_factory=list)  # stages in work, and by whom
    stopped: list[str] = field(default_factory=list)  # begun by nobody who is still there
    orphans: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    needs: Needs = field(default_factory=Needs)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    total = 0
    for file in files:
        with contextlib.suppress(OSError):  # gone meanwhile
            total += file.stat().st_size
    return total


class Upkeep:
    """Looks through a store. Nothing is changed but by `clear`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._read: list[tuple[Path, list[str] | None]] = []  # what said which stages are needed, when that was asked

    def _finished(self) -> list[Path]:
        found = [f for f in self.store.stages.iterdir() if f.is_dir() and not f.name.startswith(".")]
        return sorted(f for f in found if f.suffix != ".part")

    def _parts(self) -> list[Path]:
        return sorted(part for part in self.store.stages.glob("*.part") if is_stage(part.stem))

    def needs(self, *, abandoned: bool = False) -> Needs:
        """What is needed, with all that stands behind it; `abandoned`: but for work that was begun and not finished."""
        return self._needs_of(list(self._lists(abandoned=abandoned)))

    def _needs_of(self, lists: list[tuple[Path, list[str] | None]]) -> Needs:
        needs = Needs()
        records: dict[str, dict[str, Any]] = {}
        for folder in self._finished():
            with contextlib.suppress(UsbenchError):
                records[folder.name] = self.store.record(folder.name)
        for path, stages in lists:
            if stages is None:
                needs.unknown = needs.unknown or f"{path} does not say which stages it needs"
                continue
            needs.asked += 1
            for stage_id in stages:
                needs.stages |= set(chain(records, stage_id))
        if not needs.asked and not needs.unknown:
            needs.unknown = "no run.json or suite.json says what is needed"
        return needs

    def _lists(self, *, abandoned: bool) -> Iterator[tuple[Path, list[str] | None]]:
        """Each file that says which stages are needed, and which; None where it cannot be read."""
        for name in ("run.json", "suite.json", *(() if abandoned else ("begun",))):
            pattern = "begun/*.json" if name == "begun" else f"*/{name}"
            for path in sorted(self.store.root.glob(pattern)):
                try:
                    stages = json.loads(path.read_text("utf-8"))["stages"]
                    yield path, [str(s[0] if name == "run.json" else s) for s in stages]
                except (OSError, ValueError, KeyError, TypeError, IndexError):
                    yield path, None

    def check(self) -> Iterator[str | State]:
        """Look at every stage; gives the name of each before it is looked at, and what was found at the end."""
        state = State(needs=self.needs())
        for folder in self._finished():
            yield folder.name
            kind = folder.name.partition("-")[0]
            count, size = state.kinds.get(kind, (0, 0))
            state.kinds[kind] = count + 1, size + size_of(folder)
            state.wrong += [f"{folder / problem}" for problem in self.broken(folder)]
            if not state.needs.unknown and folder.name not in state.needs.stages:
                state.orphans.append(folder.name)
        for part in self._parts():
            owner, text = self.store.holder(part.stem), f"{part.stem} ({mib(size_of(part))})"
            if owner is None:
                state.stopped.append(text)
            else:
                state.working.append(f"{text}, by {owner}")
        for path in sorted(self.store.failed.glob("*.json")):
            if is_stage(path.stem) and (why := self.store.failure(path.stem)):
                state.failed.append(f"{path.stem}: {why}")
        yield state

    def broken(self, folder: Path, left_out: tuple[str, ...] = ()) -> list[str]:
        """What of a finished stage is not as it was made; files with some endings are not looked at."""
        try:
            record = self.store.record(folder.name)
            expected = {n: of for n, of in dict(record.get("files") or {}).items() if not n.endswith(left_out)}
            if folder.name != f"{record.get('kind')}-{key_of(record['identity'])}":
                return [f"{RECORD}: its key is not that of what it says it is; delete the folder and run again"]
        except (UsbenchError, KeyError, TypeError, ValueError, AttributeError):
            return [f"{RECORD}: it is missing or damaged; delete the folder and run again"]
        found = digests_of(folder, left_out)
        wrong = [f"{n}: it is missing" for n in expected if n not in found and not self.store.leaves_out(n)]
        wrong += [f"{n}: it is not what was recorded" for n in expected if found.get(n, "") not in ("", expected[n])]
        if "seal" in record and record["seal"] != seal_of(record):
            wrong.append(f"{RECORD}: it was changed after it was written")
        return wrong

    def rubbish(self, *, abandoned: bool = False) -> tuple[list[Rubbish], Needs]:
        """What may go. Nothing that a run, a suite or unfinished work needs, and nothing that is worked on."""
        self._read = list(self._lists(abandoned=abandoned))
        needs = self._needs_of(self._read)
        found: list[Rubbish] = []
        for part in self._parts():
            unneeded = not needs.unknown and part.stem not in needs.stages
            if self.store.holder(part.stem) is None and (unneeded or self.store.ready(part.stem)):
                found.append(Rubbish("stage that was begun and is not needed", part, size_of(part)))
        for folder in self._finished():
            if not needs.unknown and folder.name not in needs.stages:
                found.append(Rubbish("stage that nothing needs", folder, size_of(folder)))
            elif (
                (folder / STATE).is_file()
                and is_stage(folder.name)
                and self.store.has(folder.name)
                and not self._recorded(folder)
            ):
                found.append(Rubbish("training state of a finished stage", folder / STATE, size_of(folder / STATE)))
        for place in (self.store.stages, self.store.root):
            for path in sorted(place.glob(".*")):
                if path.name.endswith(LEFT) and not self._young(path):
                    found.append(Rubbish("left behind by a process that was killed", path, size_of(path)))
        return found, needs

    def _recorded(self, folder: Path) -> bool:
        with contextlib.suppress(UsbenchError):
            return STATE in dict(self.store.record(folder.name).get("files") or {})
        return True

    def _young(self, path: Path) -> bool:
        """Whether it was made within the last hour, so that somebody may be about to use it."""
        probe = self.store.stages / f".{uuid.uuid4().hex}.tmp"
        try:
            probe.touch()  # the file system's clock, which may not be this machine's
            return probe.stat().st_mtime - path.stat().st_mtime < 3600
        except OSError:
            return True
        finally:
            probe.unlink(missing_ok=True)

    def clear(self, rubbish: Rubbish, *, abandoned: bool = False) -> bool:
        """Remove something; False where somebody began to work on it, or to want it, meanwhile.

        Work notes what it wants before it looks at what is there. So a finished stage is put aside first: whoever
        wanted it before is seen now and has it back, and whoever wants it from now on finds it missing.
        """
        path = rubbish.path
        name = path.stem if path.suffix == ".part" else path.name
        if not path.is_dir():
            path.unlink(missing_ok=True)
        elif not is_stage(name):
            self._remove(path)
        else:
            try:
                with self.store.work(name):
                    return self._clear(path, name, abandoned=abandoned)
            except Taken:
                return False
        return True

    def _clear(self, path: Path, name: str, *, abandoned: bool) -> bool:
        """Remove a stage's folder, whose lease is ours."""
        if path.suffix == ".part":
            if self._wanted(name, abandoned=abandoned) and not self.store.has(name):
                return False
            self._remove(path)
            return True
        trash = self._aside(path)
        if self._wanted(name, abandoned=abandoned):
            trash.rename(path)
            return False
        shutil.rmtree(trash)
        return True

    def _wanted(self, name: str, *, abandoned: bool) -> bool:
        """Whether a stage that nothing needed is needed by now."""
        read = list(self._lists(abandoned=abandoned))
        if read == self._read:
            return False
        needs = self._needs_of(read)
        return bool(needs.unknown) or name in needs.stages

    def _aside(self, folder: Path) -> Path:
        """A folder is gone at once, or there: it is renamed before it is emptied."""
        trash = self.store.stages / f".{uuid.uuid4().hex}.trash"
        folder.rename(trash)
        return trash

    def _remove(self, folder: Path) -> None:
        shutil.rmtree(self._aside(folder))


def mib(size: int) -> str:
    """Bytes as a reader likes them."""
    return f"{size / 2**20:.1f} MiB"
