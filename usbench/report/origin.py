"""Where a row's numbers come from: its stages, what determined them, and the command that makes them again."""

from __future__ import annotations

import functools
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
        self._planned = [planned for store in stores for planned in kept.planned(store.root)]
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
        run = self._run(cell) if len(every) == len(cell.results) else None  # each fold has a command of its own
        versions = cell.results[0].versions
        if versions not in self.versions:
            self.versions.append(versions)
        return {
            "seeds": seeds, "stages": first, "run": run,
            "versions": self.versions.index(versions), "pack": str(cell.facts.get("pack") or ""),
        }  # fmt: skip

    def _run(self, cell: Cell) -> int | None:
        """The run that asked for most of a row's tests. No command makes what was chosen among trials."""
        names = {result.folder.name for result in cell.results}
        own = [each for each in self._planned if each.common is None and names & each.stages]
        if not own:
            return None
        best = max(own, key=lambda each: (len(names & each.stages), each.spec.get("loss") == cell.row["loss"]))
        if (made := {"spec": best.spec, "command": command_of(best.spec)}) not in self.runs:
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
