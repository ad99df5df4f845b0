"""What a store keeps of its runs and suites, as far as their files can be read: one that cannot be tells of nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN, SUITE = "run.json", "suite.json"
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Kept:
    """A run, or a suite of several."""

    folder: Path
    specs: list[dict[str, Any]]
    stages: frozenset[str]  # all that it stands on; of a suite whose stages nobody wrote down, its tests
    key: str = ""  # of a run
    packs: dict[str, str] = field(default_factory=dict)  # that a run tested on, by name, and where they lay
    choices: list[dict[str, Any]] = field(default_factory=list)  # of a suite: spec, over, trials

    @property
    def tests(self) -> frozenset[str]:
        """The evaluations among its stages."""
        return frozenset(stage for stage in self.stages if stage.startswith("evaluate-"))


def runs(root: Path) -> Iterator[Kept]:
    """The runs of a store."""
    for path in sorted(root.glob(f"*/{RUN}")):
        with contextlib.suppress(*UNREADABLE):
            run = json.loads(path.read_text("utf-8"))
            packs = {str(name): str(place) for name, place in dict(run.get("packs", {})).items()}
            stages = frozenset(str(stage) for stage, _ in run["stages"])
            yield Kept(path.parent, [dict(run["spec"])], stages, str(run.get("key", "")), packs)


def together(root: Path) -> list[frozenset[str]]:
    """The tests of each run and of each suite of a store."""
    return [kept.tests for kept in (*suites(root), *runs(root))]


def suites(root: Path) -> Iterator[Kept]:
    """The suites of a store."""
    for path in sorted(root.glob(f"*/{SUITE}")):
        with contextlib.suppress(*UNREADABLE):
            suite = json.loads(path.read_text("utf-8"))
            choices = [
                {"spec": dict(c["spec"]), "over": c["over"], "trials": [dict(spec) for spec in c["trials"]]}
                for c in suite.get("choices", [])
            ]
            stages = frozenset((*map(str, suite.get("stages", ())), *(str(stage) for stage, _ in suite["tests"])))
            yield Kept(path.parent, [dict(spec) for spec in suite["specs"]], stages, choices=choices)
