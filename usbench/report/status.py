"""What goes on in a store: work that was begun and has not ended well, how far it is, who is at it. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from usbench.errors import UsbenchError
from usbench.runs.owner import Owner
from usbench.runs.store import Store


@dataclass(frozen=True)
class Work:
    """A run or a suite that was begun."""

    name: str
    stages: dict[str, str]  # every stage that it wants, and its title
    done: set[str]
    working: dict[str, Owner]
    failed: dict[str, str]  # and why

    def lines(self) -> Iterator[str]:
        """What a person wants to know of it."""
        parts = [f"{len(self.done)} of {len(self.stages)} stages done"]
        parts += [f"{len(self.working)} running"] if self.working else []
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        nobody = "" if self.working else "; nobody works on it: the same command goes on"
        yield f"{self.name}: {', '.join(parts)}{nobody}"
        for stage_id, owner in self.working.items():
            yield f"In work: {self.stages[stage_id]}, by {owner}"
        for stage_id, why in self.failed.items():
            title = self.stages[stage_id]
            yield f"Failed: {' '.join((why if title in why else f'{title}: {why}').split())}"


def store_of(folder: Path) -> Store:
    """The store that a folder is, or lies in."""
    inside = not (folder / "store.json").is_file() and (folder.absolute().parent / "store.json").is_file()
    return Store(folder.absolute().parent if inside else folder).check_schema()


def work_in(store: Store) -> list[Work]:
    """All that was begun in a store and has not ended well, the last begun first."""
    found: list[tuple[str, Work]] = []
    for path in sorted(store.begun.glob("*.json")):
        try:
            said = json.loads(path.read_text("utf-8"))
            found.append((str(said["when"]), _work(store, said)))
        except FileNotFoundError:
            continue  # it ended just now
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsbenchError(f"{path} is damaged ({error}): delete it; the next run writes it again.") from None
    every = [work for _, work in sorted(found, key=lambda pair: pair[0], reverse=True)]
    # A suite has its trainings done as one plan of its own.
    return [a for a in every if not any(a.stages.keys() < b.stages.keys() for b in every)]


def _work(store: Store, said: dict[str, Any]) -> Work:
    titles = said.get("titles") or {}
    stages = {str(stage_id): str(titles.get(stage_id, stage_id)) for stage_id in said["stages"]}
    working = {stage_id: owner for stage_id in stages if (owner := store.holder(stage_id)) is not None}
    rest = [stage_id for stage_id in stages if stage_id not in working]  # of which one may be made a second time
    done = {stage_id for stage_id in rest if store.has(stage_id)}
    failed = {stage_id: why for stage_id in rest if stage_id not in done and (why := store.failure(stage_id))}
    return Work(str(said.get("name") or "run"), stages, done, working, failed)
