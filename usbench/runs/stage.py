"""One unit of work, and a run's worth of them. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from usbench.spec import RunSpec, key_of

KINDS = ("pretrain", "finetune", "evaluate")  # each may need one of those before it


@dataclass(frozen=True)
class Stage:
    """One unit of work."""

    kind: str
    title: str
    identity: dict[str, Any]  # hashed
    row: dict[str, Any]  # how it stands in tables
    places: dict[str, Any] = field(default_factory=dict)  # where things are: not hashed
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What the stage is."""
        return key_of(self.identity)

    @property
    def steps(self) -> int:
        """How many training steps it takes; none for a test."""
        return int(self.identity.get("schedule", {}).get("steps", 0))

    @property
    def id(self) -> str:
        """The name of its folder."""
        return f"{self.kind}-{self.key}"


def stage_of(plain: dict[str, Any]) -> Stage:
    """A stage from its plain form, as it travels to a worker."""
    return Stage(**{**plain, "needs": tuple(plain["needs"])})


def unique(stages: Iterable[Stage]) -> list[Stage]:
    """Each stage once, in an order in which they can be done."""
    by_id: dict[str, Stage] = {}
    for stage in stages:
        by_id.setdefault(stage.id, stage)
    return sorted(by_id.values(), key=lambda stage: KINDS.index(stage.kind))


@dataclass
class Plan:
    """A run's stages in an order in which they can be done, and what stands in its table."""

    spec: RunSpec
    stages: list[Stage]
    missing: list[str]  # baselines that cannot be run here, named
    workers: int = 1  # stages that fit on this machine at once

    @property
    def key(self) -> str:
        """The run's own name: what it will report on."""
        return key_of({"stages": sorted(stage.key for stage in self.stages if stage.kind == "evaluate")})
