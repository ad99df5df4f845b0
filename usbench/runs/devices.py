"""A pretraining on several devices: a process for each, and in this process one that starts them and speaks for them.

The processes talk in lines of JSON: the stage comes in, and "stop"; steps, the facts or a failure go out. Each dies
when its input ends, and so with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from usbench.errors import Interrupted, OutOfMemory, Refused, RunFailed, UsbenchError, of_system
from usbench.hooks import Registry, registry
from usbench.runs.stage import Stage, stage_of
from usbench.runs.store import Store
from usbench.source import line_of

GRACE_SECONDS = 3.0  # for the others to say what befell them, once one failed
LOST = "lost"  # the failure of a rank that no longer reached another
MEMORY = "memory"  # that of one whose device has not enough of it
REFUSED = "refused"  # that of what cannot be built
PARENT_DEATH_SIGNAL = 1  # Linux's PR_SET_PDEATHSIG
Heard = queue.Queue[tuple[int, dict[str, Any] | None]]  # who said what; nothing at the end


def on_devices(stage: Stage, folder: Path, store: Store, known: Registry, watcher: Any) -> dict[str, Any]:
    """Do a stage on its devices, going on where it stopped; returns the facts for its record.

    On one device that is a process of its own all the same, whose end harms nobody.
    """
    order = {
        "stage": asdict(stage), "folder": str(folder), "root": str(store.root),
        "plugins": [str(folder) for folder in known.folders],
    }  # fmt: skip
    with TemporaryDirectory() as meeting:
        team = [
            _Member(rank, {**order, "rank": rank}, Path(meeting)) for rank in range(stage.identity.get("devices", 1))
        ]
        try:
            return _heard(stage, team, watcher)
        finally:
            for member in team:
                member.end()


class _Member:
    """One of the processes, seen from the parent."""

    def __init__(self, rank: int, order: dict[str, Any], meeting: Path) -> None:
        self.rank, self.said = rank, meeting / f"said-{rank}"
        self.listener: threading.Thread | None = None
        paths = os.pathsep.join(filter(None, sys.path))
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "usbench.runs.devices"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=said, env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
        self.tell({**order, "meeting": str(meeting / "meeting")})

    def tell(self, value: Any) -> None:
        """Send a line; a process that is gone is noticed elsewhere."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(value).encode() + b"\n")
            self.process.stdin.flush()

    def listen_to(self, heard: Heard) -> None:
        """From here on all that it says goes into the queue."""
        self.listener = threading.Thread(target=self._listen, args=(heard,), daemon=True)
        self.listener.start()

    def _listen(self, heard: Heard) -> None:
        """Put what the process says into the queue, and None at its end."""
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):  # a line that its death cut short
            for line in self.process.stdout:
                heard.put((self.rank, json.loads(line)))
        heard.put((self.rank, None))

    def death(self) -> str:
        """How it ended, where it did not say so itself."""
        lines = self.said.read_text("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "killed, or out of memory?")
        return f"exit code {self.process.wait()}; {last[:200]}"

    def end(self) -> None:
        """See to it that it is gone."""
        self.process.kill()
        self.process.wait()
        if self.listener is not None:
            self.listener.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


def _heard(stage: Stage, team: list[_Member], watcher: Any) -> dict[str, Any]:
    heard: Heard = queue.Queue()
    for member in team:
        member.listen_to(heard)
    facts: dict[str, Any] | None = None
    failures: dict[int, tuple[int, UsbenchError]] = {}  # of a rank: how little it explains, and the error
    ended: set[int] = set()
    asked, deadline = False, float("inf")
    system: OSError | None = None
    while len(ended) < len(team) and time.monotonic() < deadline:
        if watcher.stopping and not asked:
            asked = True
            team[0].tell("stop")
        try:
            rank, message = heard.get(timeout=0.2)
        except queue.Empty:
            continue
        if message is None:
            ended.add(rank)
            if rank not in failures and team[rank].process.wait() != 0:
                text = f"the process of device {rank} died in {stage.title} ({team[rank].death()})"
                failures[rank] = 0, RunFailed(f"{text}: run the same command again to go on.")
        elif message["what"] == "step":
            watcher.step(*message["facts"])
        elif message["what"] == "done":
            facts = message["facts"]
        else:
            if "system" in message:
                system = OSError(*message["system"])  # whoever keeps the store knows a full disk
            kinds = {1: RunFailed, 130: Interrupted, MEMORY: OutOfMemory, REFUSED: Refused}
            error = kinds.get(message["what"]) or kinds.get(message["code"], UsbenchError)
            failures[rank] = 2 if message["what"] == LOST else 1, error(message["text"])
        if any(error.exit_code != Interrupted.exit_code for _, error in failures.values()):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
    if system is not None:
        raise system
    if failures:
        raise min(failures.items(), key=lambda item: (item[1][0], item[0]))[1][1]
    if facts is None:
        raise RunFailed(f"the processes of {stage.title} ended without a word: run the same command again to go on.")
    return facts


def main() -> None:
    """The life of one process: an order in, its share of the work, what came of it out."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides what these mean
        signal.signal(number, signal.SIG_IGN)
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a plugin prints is no message
    lines = _lines()
    order, stop = next(lines), threading.Event()

    def obey() -> None:
        for line in lines:
            if line == "stop":
                stop.set()
        os._exit(1)  # the parent is gone

    def say(what: str, **message: Any) -> None:
        out.write(json.dumps({"what": what, **message}).encode() + b"\n")

    threading.Thread(target=obey, daemon=True).start()
    code = 0
    try:
        facts = _share(order, stop, say)
        if order["rank"] == 0:
            say("done", facts=facts)
    except UsbenchError as error:
        code = error.exit_code
        what = MEMORY if isinstance(error, OutOfMemory) else REFUSED if isinstance(error, Refused) else "failed"
        say(LOST if type(error).__name__ == "RankLost" else what, code=code, text=str(error))
    except OSError as error:
        code = 2
        parts = [str(error)] if error.errno is None else [error.errno, error.strerror, error.filename]
        say("failed", code=code, text=str(of_system(error)), system=parts)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's plugin may raise anything
        code = 1
        where = f"{order['stage']['title']} failed on device {order['rank']}"
        line = line_of(error, (entry.where for entry in registry().entries()))
        say("failed", code=code, text=f"{where}: {type(error).__name__}: {error}{line}.")
    os._exit(code)  # at once: threads of a broken communication may never end


def _lines() -> Iterator[Any]:
    """The lines of the standard input, read without a buffer that a thread could hold on to."""
    rest = b""
    while piece := os.read(0, 1 << 16):
        *whole, rest = (rest + piece).split(b"\n")
        yield from map(json.loads, whole)


class _Watch:
    """Tells the parent of each step."""

    def __init__(self, stop: threading.Event, say: Any) -> None:
        self.stop, self.say = stop, say

    @property
    def stopping(self) -> bool:
        return self.stop.is_set()

    def step(self, *facts: Any) -> None:
        self.say("step", facts=facts)


def _share(order: dict[str, Any], stop: threading.Event, say: Any) -> dict[str, Any]:
    from usbench.runs.stages import Stages
    from usbench.train.processes import Processes, Together

    known = registry()
    for folder in order["plugins"]:
        known.load_folder(Path(folder))
    stage = stage_of(order["stage"])
    identity, rank = stage.identity, int(order["rank"])
    if identity.get("devices", 1) == 1:
        return Stages(Store(Path(order["root"])), known).share(stage, Path(order["folder"]), _Watch(stop, say))
    with Processes(rank, identity["devices"], Path(order["meeting"]), identity["device"]) as ranks:
        stages = Stages(Store(Path(order["root"])), known, ranks)
        return stages.share(stage, Path(order["folder"]), Together(_Watch(stop, say), ranks))


if __name__ == "__main__":
    main()
