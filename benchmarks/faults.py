"""Kill everything that can be killed, at random moments, and count how often the same command still ends right.

    OMP_NUM_THREADS=1 python benchmarks/faults.py                 # all of it: the better part of an hour on two cores
    OMP_NUM_THREADS=1 python benchmarks/faults.py --kills 8 --only run suite

`run`, `suite`   a command and its workers are killed (kill -9) again and again, until it is through
`dask`           half of the dask workers of a suite are killed, and once the scheduler
`race`           four processes do one suite in one store, against one that does it alone
`engines`        two dask workers of one thread, against one worker of this machine, on fine-tunes that need nothing
`preempt`        SIGTERM in a pretraining at 224 px, as SLURM sends it: seconds until it is saved and gone

It is right when the CSV is that of a suite which nobody disturbed, but for time and memory, and when no stage that was
finished was computed again. Exit code 1 where anything is not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from usbench.report.columns import NOT_MEASURED
from usbench.report.table import plain_table
from usbench.runs.records import STATE
from usbench.runs.store import Store

SETTINGS = """
aug = "spatial"
backbone = "unet-tiny"
size = 32
labels = [50, 100]
device = "cpu"
precision = "float32"
threads = 1
data = ["phantom"]
"""
STEPS = "\n[{0}.pretrain]\nsteps = 40\nbatch = 8\n[{0}.finetune]\nsteps = 20\nbatch = 4\n"
RUN = f'[run]\nloss = "moco"\n{SETTINGS}{STEPS.format("run")}'
SUITE = f'name = "faults"\n[base]\n{SETTINGS}{STEPS.format("base")}[[runs]]\nover = {{ loss = ["simclr", "byol"] }}\n'
ALIKE = f'name = "alike"\n[base]\nloss = "none"\nseeds = [0, 1, 2, 3, 4, 5]\n{SETTINGS}' + STEPS.replace(
    "20", "400"
).format("base")
PREEMPTED = """
[run]
loss = "simclr"
aug = "spatial"
backbone = "unet-resnet18"
size = 224
labels = [100]
device = "cpu"
data = ["phantom"]
[run.pretrain]
steps = 6
batch = 64
[run.finetune]
steps = 1
batch = 4
"""
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Bench:
    """Commands on tiny work, and what they come to undisturbed."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.random = place, random.Random(seed)
        (place / "run.toml").write_text(RUN)
        (place / "suite.toml").write_text(SUITE)
        (place / "alike.toml").write_text(f"{ALIKE}[[runs]]\n")
        (place / "preempted.toml").write_text(PREEMPTED)
        self.right: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def words(self, command: str, out: str, *more: str) -> list[str]:
        file = str(self.place / f"{command}.toml")
        named = ["suite", "run", file] if command in ("suite", "alike") else ["run", "--config", file]
        return [sys.executable, "-m", "usbench", *named, "--out", str(self.place / out), *more]

    def undisturbed(self, command: str) -> str:
        if command not in self.right:
            began = time.monotonic()
            subprocess.run(self.words(command, f"whole-{command}", "--workers", "1"), check=True, **QUIET)
            self.seconds[command] = time.monotonic() - began
            self.right[command] = self.table(f"whole-{command}")
        return self.right[command]

    def table(self, out: str) -> str:
        (path,) = (self.place / out).glob("*/leaderboard.csv")
        return pd.read_csv(path).drop(columns=list(NOT_MEASURED)).to_csv()

    def records(self, out: str) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in (self.place / out / "stages").glob("*/record.json")}

    def killed(self, command: str, kills: int) -> tuple[int, int]:
        """Kills that were survived, of how many: a store is used until the command is through, then the next one."""
        self.undisturbed(command)
        good = done = number = 0
        while done < kills:
            number += 1
            out, before, fine, here = f"{command}-{number}", {}, True, 0
            while True:
                process = subprocess.Popen(self.words(command, out), **QUIET)
                if done + here < kills:
                    limit: float | None = self.random.uniform(0.5, 0.7 * self.seconds[command])
                else:
                    limit = None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(limit)
                    fine &= code == 0
                    break
                process.kill()
                process.wait()
                here += 1
                fine &= before.items() <= self.records(out).items()
                before = self.records(out)
            fine = fine and before.items() <= self.records(out).items() and self.table(out) == self.right[command]
            done, good = done + here, good + here * fine
            print(f"{command}: {good} of {done}", file=sys.stderr)
        return good, done

    def race(self, command: str) -> tuple[float, int]:
        """Four processes in one store: the wall time as a share of one alone, and stages that were computed twice."""
        self.undisturbed(command)
        began, out = time.monotonic(), f"race-{command}"
        several = [
            subprocess.Popen(self.words(command, out, "--workers", "1"), stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.DEVNULL)
            for _ in range(4)
        ]  # fmt: skip
        said = [process.communicate()[0] for process in several]
        took = time.monotonic() - began
        computed = sum(int(line.split()[0]) for text in said for line in text.splitlines() if "stages computed" in line)
        twice = computed - len(self.records(out))
        return took / self.seconds[command], twice if self.table(out) == self.right[command] else -1

    def engines(self) -> tuple[float, bool]:
        """The wall time of one worker as a multiple of that of two dask workers, and whether the tables are equal."""
        self.undisturbed("alike")
        began = time.monotonic()
        subprocess.run(self.words("alike", "alike-dask", "--engine", "dask", "--workers", "2"), check=True, **QUIET)
        return self.seconds["alike"] / (time.monotonic() - began), self.table("alike-dask") == self.right["alike"]

    def preempted(self, times: int) -> tuple[list[float], bool]:
        """Seconds from SIGTERM to the end of the command, and whether the weights are those of a run left alone."""
        self.undisturbed("preempted")
        took, fine = [], True
        for number in range(times):
            out = f"preempted-{number}"
            process = subprocess.Popen(self.words("preempted", out, "--workers", "1"), **QUIET)
            store = Store(self.place / out)
            while process.poll() is None and not any(store.stages.glob(f"pretrain-*.part/{STATE}")):
                time.sleep(0.05)
            time.sleep(self.random.uniform(0, 5))  # so that it is somewhere in a step
            process.terminate()
            began = time.monotonic()
            fine &= process.wait() == 143
            took.append(time.monotonic() - began)
            fine &= any(store.stages.glob(f"pretrain-*.part/{STATE}"))  # it was at it, and has to go on
            fine &= subprocess.run(self.words("preempted", out), check=False, **QUIET).returncode == 0
            fine &= self.weights(out) == self.weights("whole-preempted")
        return took, fine

    def weights(self, out: str) -> dict[str, bytes]:
        return {path.parent.name: path.read_bytes() for path in (self.place / out / "stages").glob("*/*.safetensors")}

    def dask(self, workers: int, *, scheduler: bool) -> tuple[int, bool]:
        """Kill half of the workers, or the scheduler; how many, and whether the same command ended right."""
        self.undisturbed("suite")
        out, killed = f"dask-{scheduler}", 0
        store = Store(self.place / out)
        with dask_processes(self.place / out, workers) as (file, boss):
            process = subprocess.Popen(
                self.words("suite", out, "--engine", "dask", "--scheduler-file", str(file)), **QUIET
            )
            while process.poll() is None and not any(store.stages.glob("*.part")):
                time.sleep(0.05)
            if scheduler:
                time.sleep(self.random.uniform(0, 3))
                boss.kill()
                killed = 1
            pids: set[int] = set()
            while not scheduler and process.poll() is None and killed < workers // 2:
                time.sleep(self.random.uniform(0.2, 1))
                for part in store.stages.glob("*.part"):
                    owner = store.holder(part.stem)
                    if owner is not None and owner.pid not in pids and killed < workers // 2:
                        pids.add(owner.pid)
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(owner.pid, 9)
                            killed += 1
                        break
            process.wait()
        before = self.records(out)
        code = subprocess.run(self.words("suite", out), check=False, **QUIET).returncode
        fine = code == 0 and before.items() <= self.records(out).items() and self.table(out) == self.right["suite"]
        return killed, fine


@contextlib.contextmanager
def dask_processes(place: Path, workers: int) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A scheduler and its workers, with nannies that begin killed ones anew."""
    place.mkdir()
    file, dask = place / "scheduler.json", [sys.executable, "-m", "dask"]
    common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    hired = ["--nthreads", "1", "--nworkers", str(workers), "--memory-limit", "0", "--preload", "usbench.runs.hand",
             "--local-directory", str(place / "dask")]  # fmt: skip
    boss = subprocess.Popen([*dask, "scheduler", "--port", "0", *common], **QUIET)
    while not file.is_file():
        time.sleep(0.05)
    crew = subprocess.Popen([*dask, "worker", *common, *hired], **QUIET)
    try:
        yield file, boss
    finally:
        for process in (crew, boss):
            process.terminate()
        for process in (crew, boss):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def main() -> int:
    """Do all of it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40, help="over run and suite together")
    parser.add_argument("--workers", type=int, default=6, help="of dask")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=["run", "suite", "dask", "race", "engines", "preempt"])
    asked = parser.parse_args()
    table, bad = plain_table("what", "result", "bar", title="Faults"), 0
    with tempfile.TemporaryDirectory(prefix="usbench-faults-") as place:
        bench = Bench(Path(place), asked.seed)
        for command in [name for name in ("run", "suite") if name in asked.only]:
            good, done = bench.killed(command, asked.kills // 2)
            table.add_row(f"{command} killed at random moments", f"{good} of {done}", "all")
            bad += good != done
        if "dask" in asked.only:
            for scheduler in (False, True):
                killed, fine = bench.dask(asked.workers, scheduler=scheduler)
                what = "dask scheduler killed" if scheduler else f"{killed} of {asked.workers} dask workers killed"
                table.add_row(what, "same CSV" if fine else "wrong", "same CSV")
                bad += not fine
        if "race" in asked.only:
            for command, size in {"suite": "a tiny suite, mostly start", "alike": "a suite of fine-tunes"}.items():
                share, twice = bench.race(command)
                table.add_row(f"4 processes do {size}: stages computed twice", str(twice), "0")
                bar = "1.15 ×" if command == "alike" else ""
                table.add_row(f"4 processes do {size}: wall time of one alone", f"{share:.2f} ×", bar)
                bad += twice != 0 or bool(bar and share > 1.15)
        if "engines" in asked.only:
            ratio, fine = bench.engines()
            table.add_row("2 dask workers: speed of one local worker", f"{ratio:.2f} ×", "1.6 ×")
            table.add_row("2 dask workers: table", "same CSV" if fine else "wrong", "same CSV")
            bad += not fine or ratio < 1.6
        if "preempt" in asked.only:
            took, fine = bench.preempted(3)
            table.add_row("SIGTERM at 224 px: seconds until it is gone", f"{max(took):.1f}", "10")
            table.add_row("SIGTERM at 224 px: weights when it has gone on", "same" if fine else "wrong", "same bytes")
            bad += not fine or max(took) > 10
    from rich.console import Console

    Console().print(table)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
