"""`overhead`: what the harness adds to a stage, the time to the first step, and how fast commands answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from usbench.bench.lines import Case, Line, against
from usbench.bench.setting import Setting
from usbench.bench.subject import known_to
from usbench.bench.timing import Phases, Samples
from usbench.errors import RunFailed
from usbench.runs.cluster import Cluster
from usbench.runs.engines import run_plan
from usbench.runs.plan import make_plan
from usbench.runs.stage import Plan, Stage
from usbench.runs.store import Store
from usbench.spec import config_text, resolve

STAGES = {"pretrain": "a pretraining", "finetune": "a fine-tune", "evaluate": "a test"}
TIMES = 5  # that a command is started, or that every stage is done


def measure(setting: Setting) -> Iterator[Line]:
    """Stages of one step, then commands."""
    times = 1 if setting.quick else TIMES
    setting = setting.widened("overhead")
    with TemporaryDirectory() as folder:
        plan, config = one_step_run(setting), Path(folder) / "run.toml"
        config.write_text(config_text(plan.spec), "utf-8")
        yield from _stages(setting, plan, Path(folder), times)
        yield from _between(setting, plan, Path(folder), times)
        again = ["run", "--config", str(config), "--out", str(Path(folder) / str(times))]
        yield from _commands(setting, {"usbench --help": ["--help"], "usbench run, cached": again}, times)
    yield from _first_step(setting, times)


def one_step_run(setting: Setting) -> Plan:
    """A run of a loss and its baselines in which every training has one step."""
    step = {"steps": 1, "batch": setting.tuned_batch}
    spec = resolve({
        "loss": setting.loss, "aug": setting.aug, "backbone": setting.backbones[0], "size": setting.sizes[0],
        "data": [setting.data], "labels": [100], "device": setting.device, "precision": setting.precision,
        "threads": setting.threads, "pretrain": step, "finetune": step,
    })  # fmt: skip
    return make_plan(known_to(setting), spec, lambda *_: None)


class _Watch:
    """An observer that notes how long each stage took."""

    stopping = False

    def __init__(self, phases: Phases) -> None:
        self.phases = phases
        self.began = 0.0
        self.found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in STAGES}

    def begin(self, stage: Stage, place: int, total: int) -> None:
        """The clock begins, and what was spent on work is forgotten."""
        self.phases.seconds.clear()
        self.began = time.perf_counter()

    def step(self, stage: Stage, *facts: Any) -> None:
        """Nothing is said."""

    def end(self, stage: Stage) -> None:
        """Whole, and of that the work."""
        self.found[stage.kind].append((time.perf_counter() - self.began, sum(self.phases.seconds.values())))

    def fail(self, stage: Stage, why: str) -> None:
        """The run says so at its end."""

    def wait(self, stage: Stage, who: str) -> None:
        """Nobody else works on the store."""


def _stages(setting: Setting, plan: Plan, folder: Path, times: int) -> Iterator[Line]:
    """Each stage whole, and of that the bare work: reading images, building the network, the step, the test."""
    from usbench.evaluate import testing
    from usbench.train import finetune, networks, pretrain

    with Phases(torch.device(setting.device)) as phases:
        phases.watch(networks, "build_network", "network")
        for owner, method in (
            (pretrain.Steps, "__call__"), (finetune.Steps, "__call__"), (finetune, "inner_score"),
            (testing, "examine"), (testing, "encoder_features"),
        ):  # fmt: skip
            phases.watch(owner, method, "work")
        import usbench.data.feed

        phases.watch(usbench.data.feed.Feed, "__init__", "images")
        watch = _Watch(phases)
        for turn in range(setting.quick, times + 1):
            if turn == 1:  # the first was to warm up
                watch.found = {kind: [] for kind in STAGES}
            run_plan(plan, Store(folder / str(turn)).open(), known_to(setting), watch)
    case = Case("overhead", setting.sizes[0], setting.backbones[0], setting.tuned_batch, setting.precision)
    for kind, called in STAGES.items():
        whole = Samples(tuple(seconds for seconds, _ in watch.found[kind]))
        added = Samples(tuple(1e3 * (seconds - work) for seconds, work in watch.found[kind]))
        asked, met = against(setting, "overhead, added to a stage", added.median, most=True)
        yield Line(
            case, f"added to {called}", added, asked=asked, met=met,
            note=f"of {1e3 * whole.median:.0f} ms with one step: all but network, images, step, validation and test",
        )  # fmt: skip


def _between(setting: Setting, plan: Plan, folder: Path, times: int) -> Iterator[Line]:
    """From the end of a stage's work to the beginning of the next, here and with a dask worker."""
    case = Case("overhead", setting.sizes[0], setting.backbones[0], setting.tuned_batch, setting.precision)
    for name in ("here", "dask"):
        side = f"between two stages, {name}"
        if name == "dask" and find_spec("distributed") is None:
            yield Line(case, side, note="not measured: dask is not installed (pip install 'usbench[cluster]')")
            continue
        with Cluster(1) if name == "dask" else nullcontext() as cluster, Phases(torch.device("cpu")) as none:
            found = []
            for turn in range(times + 1):  # the first begins the worker, which imports torch
                store, began = Store(folder / f"{name}-{turn}").open(), time.perf_counter()
                run_plan(plan, store, known_to(setting), _Watch(none), cluster=cluster)
                whole = time.perf_counter() - began
                found.append(whole - sum(store.record(stage.id)["seconds"] for stage in plan.stages))
        samples = Samples(tuple(1e3 * seconds / len(plan.stages) for seconds in found[1:]))
        asked, met = against(setting, f"overhead, between two stages, {name}", samples.median, most=True)
        yield Line(
            case,
            side,
            samples,
            asked=asked,
            met=met,
            note=f"digests, records, leases and orders, of {len(plan.stages)} stages",
        )


def _commands(setting: Setting, commands: dict[str, list[str]], times: int) -> Iterator[Line]:
    sides: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(setting.quick, times + 1):
        for name, words in commands.items():
            began = time.perf_counter()
            _done([sys.executable, "-m", "usbench", *_plugins(setting), *words])
            if turn:  # the first reads files that lie in no cache yet
                sides[name].append(time.perf_counter() - began)
    for name, seconds in sides.items():
        samples = Samples(tuple(seconds))
        asked, met = against(setting, f"overhead, {name}", samples.median, most=True)
        yield Line(Case("overhead"), name, samples, "s", asked=asked, met=met, note="a process of its own")


def _first_step(setting: Setting, times: int) -> Iterator[Line]:
    """From the start of a process to the end of the first step."""
    parts: dict[str, list[float]] = {}
    given = {
        "loss": setting.loss, "aug": setting.aug, "data": setting.data, "backbone": setting.backbones[:1],
        "size": setting.sizes[:1], "batch": setting.batch, "device": setting.device,
        "precision": setting.precision, "threads": setting.threads, "folders": setting.folders,
    }  # fmt: skip
    for _ in range(times):
        order = json.dumps({"setting": given, "quick": setting.quick, "began": time.time()})
        for name, seconds in json.loads(_done([sys.executable, "-m", "usbench.bench.first", order])).items():
            parts.setdefault(name, []).append(seconds)
    second = parts.pop("second step")
    whole = Samples(tuple(map(sum, zip(*parts.values(), strict=True))))
    of = ", ".join(f"{name} {Samples(tuple(seconds)).median:.2f} s" for name, seconds in parts.items())
    yield Line(
        Case("overhead", setting.sizes[0], setting.backbones[0], setting.batch, setting.precision),
        "to the first step", whole, "s", note=f"{of}; the second step takes {Samples(tuple(second)).median:.2f} s",
    )  # fmt: skip


def _plugins(setting: Setting) -> list[str]:
    return [word for folder in setting.folders for word in ("--plugins-dir", folder)]


def _done(words: list[str]) -> str:
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RunFailed(f"'{' '.join(words[1:4])}' ended with exit code {done.returncode} and said: {said}")
    return done.stdout
