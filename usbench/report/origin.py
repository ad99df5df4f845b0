"""Where a row's numbers come from: its stages, what determined them, and the command that makes them again."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from usbench.errors import UsbenchError
from usbench.report import kept
from usbench.report.cells import Cell
from usbench.report.command import command_of
from usbench.report.results import Result
from usbench.runs.store import Store


class Origins:
    """What is recorded of the stages behind rows, each record read once."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.runs: list[dict[str, Any]] = []  # specs, and the commands that make them again
        self._asked: dict[str, list[int]] = {}  # the runs that asked for an evaluation
        for store in stores:
            for run in kept.runs(store.root):
                for stage in run.tests:
                    self._asked.setdefault(stage, []).append(len(self.runs))
                self.runs += [{"spec": spec, "command": command_of(spec)} for spec in run.specs]
        self.suites = [suite for store in stores for suite in kept.suites(store.root)]
        self.identities: dict[str, dict[str, Any]] = {}  # of the stages that rows name
        self.versions: list[dict[str, str]] = []
        self.machines: set[str] = set()
        self.finished = ""

    @functools.cache  # noqa: B019 - one object a page
    def _record(self, folder: Path, stage: str) -> Mapping[str, Any]:
        try:
            record = Store(folder).record(stage)
        except UsbenchError:
            return {}
        return record if isinstance(record, dict) else {}

    def of(self, cell: Cell) -> dict[str, Any]:
        """All that a reader may ask of a row: the keys of its stages a seed, and of the first seed what they are."""
        every = [part for result in cell.results for part in result.each]
        seeds = [self._stages(part) for part in every]
        first = [name for name in seeds[0][1:4] if name]
        for name in first:
            record = self._record(cell.results[0].folder.parent.parent, name)
            self.identities.setdefault(name, dict(record.get("identity") or {}))
        asked = Counter(run for part in every for run in self._asked.get(part.folder.name, ()))
        run = asked.most_common(1)[0][0] if asked else self._of_a_suite(cell)
        if len(every) > len(cell.results):
            run = None  # each fold has a command of its own
        versions = cell.results[0].versions
        if versions not in self.versions:
            self.versions.append(versions)
        return {
            "seeds": seeds, "stages": first, "run": run,
            "versions": self.versions.index(versions), "pack": str(cell.facts.get("pack") or ""),
        }  # fmt: skip

    def _of_a_suite(self, cell: Cell) -> int | None:
        """The run of the suite that asked for a row: the only one that can have."""
        names = {result.folder.name for result in cell.results}
        fits = [spec for suite in self.suites if names & suite.tests for spec in suite.specs if _fits(spec, cell)]
        if len(fits) != 1:
            return None
        if (made := {"spec": fits[0], "command": command_of(fits[0])}) not in self.runs:
            self.runs.append(made)
        return self.runs.index(made)

    def _stages(self, result: Result) -> list[str]:
        """The seed, its evaluation, fine-tune and pretraining, and when it was finished."""
        root = result.folder.parent.parent
        tested = self._record(root, result.folder.name)
        tuned = self._record(root, f"finetune-{result.finetuned}")
        source = (tuned.get("identity") or {}).get("pretrained")
        finished = str(tested.get("finished") or "")
        self.finished = max(self.finished, finished)
        if tested.get("machine"):
            self.machines.add(str(tested["machine"]))
        names = [result.folder.name, f"finetune-{result.finetuned}", f"pretrain-{source}" if source else ""]
        return [str(result.row["seed"]), *names, finished]


def _fits(spec: Mapping[str, Any], cell: Cell) -> bool:
    """Whether a row is what a spec asks for; one that was chosen among trials has settings that no spec shows."""
    row = cell.row
    try:
        named = "+".join(Path(text.partition(",")[0]).stem.replace(":", "-") for text in spec["data"])
        return (
            not row.get("chosen") and row["train_data"] == named and row["label_fraction"] in spec["labels"]
            and set(cell.seeds) <= set(spec["seeds"]) and (spec["loss"], spec["aug"]) == (row["loss"], row["aug"])
            and all(spec[name] == row.get(name) for name in ("backbone", "init", "size", "protocol"))
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError):
        return False
