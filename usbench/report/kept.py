"""What a store keeps of its runs and suites, as far as their files can be read: one that cannot be tells of nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN, SUITE = "run.json", "suite.json"
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Planned:
    """One run that was planned, on its own or of a suite, and every stage that it asked for."""

    spec: dict[str, Any]
    stages: frozenset[str]
    common: dict[str, Any] | None = None  # spec and lists (`over`) of the trials that it was one of


@dataclass(frozen=True)
class Kept:
    """A run, or a suite of several."""

    folder: Path
    stages: frozenset[str]  # all that it stands on: of trials the chosen one's tests alone
    planned: list[Planned]
    key: str = ""  # of a run
    packs: dict[str, str] = field(default_factory=dict)  # that a run tested on, by name, and where they lay

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
            yield Kept(path.parent, stages, [Planned(dict(run["spec"]), stages)], str(run.get("key", "")), packs)


def suites(root: Path) -> Iterator[Kept]:
    """The suites of a store."""
    for path in sorted(root.glob(f"*/{SUITE}")):
        with contextlib.suppress(*UNREADABLE):
            suite = json.loads(path.read_text("utf-8"))
            stages = frozenset((*map(str, suite.get("stages", ())), *(str(stage) for stage, _ in suite["tests"])))
            yield Kept(path.parent, stages, [_planned(plan) for plan in suite.get("plans", ())])


def _planned(plan: Mapping[str, Any]) -> Planned:
    common = plan.get("common")
    return Planned(dict(plan["spec"]), frozenset(map(str, plan["stages"])), dict(common) if common else None)


def planned(root: Path) -> list[Planned]:
    """Every run that was planned in a store."""
    return [each for kept in (*runs(root), *suites(root)) for each in kept.planned]


def those_of(stage: str, loss: str, every: Iterable[Planned]) -> list[Planned]:
    """The runs that asked for a stage, its own loss's first: a baseline comes of many."""
    return sorted((p for p in every if stage in p.stages), key=lambda p: p.spec.get("loss") != loss)


def together(root: Path) -> list[frozenset[str]]:
    """The tests of each run and of each suite of a store."""
    return [kept.tests for kept in (*suites(root), *runs(root))]
