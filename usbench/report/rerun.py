"""Trains again what feeds chosen rows, in a store of its own, and compares the scores with the recorded ones."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from usbench.data.home import Progress
from usbench.errors import UsbenchError, listed
from usbench.hooks import Registry
from usbench.report.blueprints import Blueprints, chain
from usbench.report.cells import cells
from usbench.report.results import SCORES, read_scores, results
from usbench.report.verify import row_name
from usbench.runs.agenda import StagesFailed
from usbench.runs.engines import Observer, run_plan
from usbench.runs.records import WEIGHTS
from usbench.runs.stage import Plan, Stage, unique
from usbench.runs.store import Store

WHERE = ("machine", "processor")  # of a record: what bytes depend on beside the versions


@dataclass(frozen=True)
class Row:
    """A leaderboard's row: its tests, one a seed, and what all that is behind them took."""

    key: str
    name: str
    tests: tuple[str, ...]
    stages: tuple[str, ...]
    seconds: float


@dataclass
class Findings:
    """What training again showed."""

    equal: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # differs, as it may elsewhere
    wrong: list[tuple[str, list[str]]] = field(default_factory=list)  # differs where it must not
    skipped: dict[str, int] = field(default_factory=dict)  # why some rows cannot be trained again → how many


class Rerun:
    """Trains rows of a store again. The store itself is only read."""

    def __init__(self, store: Store, registry: Registry, records: Mapping[str, Mapping[str, Any]]) -> None:
        self.store, self.records = store, records
        self.blueprints = Blueprints(store, registry, records)
        self.registry = registry
        self.findings = Findings()

    def rows(self, keys: Collection[str] | None = None) -> list[Row]:
        """The rows of the store, or those of some keys, the cheapest first."""
        tests: dict[str, list[str]] = {}
        for name, record in self.records.items():
            key = dict(record.get("row") or {}).get("setting")
            if name.startswith("evaluate-") and key and (keys is None or key in keys):
                tests.setdefault(str(key), []).append(name)
        found = []
        for key, names in tests.items():
            stages = tuple(dict.fromkeys(stage for name in names for stage in chain(self.records, name)))
            row = self.records[names[0]]["row"]
            found.append(Row(key, row_name(row), tuple(names), stages, self._seconds(stages)))
        return sorted(found, key=lambda row: (row.seconds, row.key))

    def choose(self, wanted: str, keys: Collection[str] | None = None) -> list[Row]:
        """'3': the three cheapest rows; 'all'; or rows by the beginnings of their keys, with commas between."""
        rows = self.rows(keys)
        if wanted == "all":
            return rows
        if wanted.isdigit() and len(wanted) < 4:
            return rows[: int(wanted)]
        chosen: list[Row] = []
        for text in filter(None, (part.strip() for part in wanted.split(","))):
            fitting = [row for row in rows if row.key.startswith(text)]
            if len(fitting) != 1:
                many = f"{len(fitting)} rows begin" if fitting else "no row begins"
                raise UsbenchError(
                    f"--rerun {text}: {many} so in {self.store.name}; give a number of rows, 'all', or keys: "
                    f"{listed(row.key for row in fitting or rows)}."
                )
            chosen += fitting
        return list(dict.fromkeys(chosen))

    def cost(self, rows: list[Row]) -> tuple[int, float]:
        """How many stages stand behind the rows, each once, and the seconds that they took."""
        stages = tuple(dict.fromkeys(stage for row in rows for stage in row.stages))
        return len(stages), self._seconds(stages)

    def _seconds(self, stages: Collection[str]) -> float:
        return sum(float(self.records.get(name, {}).get("seconds") or 0) for name in stages)

    def run(self, rows: list[Row], observer: Observer, progress: Progress) -> Findings:
        """Train the rows again and compare; what cannot be is said, and refused where that is all of them."""
        stages: dict[str, Stage] = {}
        able: list[Row] = []
        for row in rows:
            try:
                planned = [stage for test in row.tests for stage in self.blueprints.stages(test, progress)]
            except UsbenchError as error:
                reason = f"{row.name} cannot be trained again: {str(error).rstrip('.')}"
                self.findings.skipped[reason] = self.findings.skipped.get(reason, 0) + 1
                continue
            able.append(row)
            stages |= {stage.id: stage for stage in planned}
        if not able:
            raise UsbenchError(f"{next(iter(self.findings.skipped), 'there is no row to train again')}.")
        first = self.blueprints.plans[0]
        with tempfile.TemporaryDirectory(prefix="usbench-rerun-") as place:
            again = Store(Path(place)).open()
            with contextlib.suppress(StagesFailed):  # of each row it is said below
                run_plan(Plan(first.spec, unique(stages.values()), [], first.workers), again, self.registry, observer,
                         workers=first.workers)  # fmt: skip
            for row in able:
                if lost := [stages[name].title for name in row.tests if not again.has(name)]:
                    self.findings.skipped[f"{row.name}, since {lost[0]} failed or was left out"] = 1
                else:
                    self._compare(row, again)
        return self.findings

    def _compare(self, row: Row, again: Store) -> None:
        texts = [text for name in row.tests if (text := self._apart(name, again))]
        if not texts:
            self.findings.equal.append(f"{row.name}: trained again, and the scores are equal to the byte")
            return
        elsewhere = self._elsewhere(row, again)
        more = f" (and of {len(texts) - 1} more seeds)" if len(texts) > 1 else ""
        said = f"{texts[0]}{more}{self._means(row, again)}"
        if elsewhere:
            self.findings.notes.append(f"{row.name}: trained again, {said}; likely as {elsewhere}")
        else:
            path = self.store.folder(row.tests[0]) / SCORES
            self.findings.wrong.append(
                (f"{path}: trained again on the same versions and machine, {said}", [row.name])
            )  # fmt: skip

    def _apart(self, name: str, again: Store) -> str:
        """How the scores of a test differ from those made again, and from where on; empty where they are equal."""
        kept, made = self.store.folder(name) / SCORES, again.folder(name) / SCORES
        try:
            if kept.read_bytes() == made.read_bytes():
                return ""
            return f"{largest_difference(kept, made)}; {self._since(name, again)}"
        except (OSError, ValueError) as error:
            return f"its scores cannot be read ({error})"

    def _means(self, row: Row, again: Store) -> str:
        """What the row's score was and is, over its seeds; nothing where one of them cannot be read."""
        try:
            was, now = (cells(results(store, row.tests))[0] for store in (self.store, again))
            return f"; its mean {was.primary} was {was.interval().mean:.3f} and is {now.interval().mean:.3f}"
        except UsbenchError:
            return ""

    def _since(self, name: str, again: Store) -> str:
        """The first stage behind a test whose weights are other ones."""
        called = {"pretrain": "pretraining", "finetune": "fine-tune"}
        for stage in chain(self.records, name)[:-1]:
            files = [store.folder(stage) / WEIGHTS for store in (self.store, again)]
            if not files[0].is_file():
                return f"the weights of its {called[stage.partition('-')[0]]} are not kept"
            if files[0].read_bytes() != files[1].read_bytes():
                return f"it begins in its {called[stage.partition('-')[0]]}"
        return "its weights are equal, so it is the test that differs"

    def _elsewhere(self, row: Row, again: Store) -> str:
        """What of versions and machine is another one than when the row was made; empty where nothing is."""
        found: dict[str, None] = {}
        for name in row.stages:
            was, now = self.records[name], again.record(name)
            versions = dict(was.get("versions") or {})
            for library, version in now["versions"].items():
                if library in versions and versions[library] != version:  # one that was not noted tells nothing
                    found[f"{library} was {versions[library]} and is {version}"] = None
            if not versions:
                found["the versions it was made with are unknown"] = None
            for what in WHERE:
                if was.get(what) and was[what] != now[what]:
                    found[f"the {what} was {was[what]} and is {now[what]}"] = None
            if dict(was.get("identity") or {}).get("device") == "cuda":
                found["a GPU need not add in the same order twice"] = None
        return "; ".join(found)


def largest_difference(kept: Path, made: Path) -> str:
    """In a sentence: how many images differ between two score files, and where the most."""
    mine, other = read_scores(kept), read_scores(made)
    if list(mine["name"]) != list(other["name"]):
        return "other images are scored"
    columns = [c for c in mine.select_dtypes("number").columns if c in other.select_dtypes("number").columns]
    left, right = (table[columns].to_numpy(np.float64) for table in (mine, other))
    apart = np.where(np.isnan(left) & np.isnan(right), 0.0, np.abs(left - right))
    apart[np.isnan(apart)] = np.inf  # a number where there was none
    count = int((apart > 0).any(1).sum())
    if not count:
        return "no number differs, but what stands beside them does"
    image, column = np.unravel_index(int(apart.argmax()), apart.shape)
    was, now = left[image, column], right[image, column]
    return (
        f"{count} of {len(mine)} images differ, most '{mine['name'][image]}' in {columns[column]}: "
        f"{was:g} is recorded and {now:g} comes out (by {apart[image, column]:.2g})"
    )
