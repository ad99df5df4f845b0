"""What happens when a device's memory does not do: the same training in less of it, or a sentence that says what fits.

`auto_batch` changes no key, since it changes no training. Every further attempt goes on from the last checkpoint.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usbench.errors import Interrupted, NotSparing, OutOfMemory
from usbench.runs.stage import Stage
from usbench.spec import Choice

if TYPE_CHECKING:
    from usbench.train.sparing import Sparing

AUTO, SPARING = "auto_batch", "sparing"  # places of a stage
TRIED_STEPS = 2  # the second one has the optimiser's state beside everything else
LEAST = 2  # images of a batch

Do = Callable[[Stage, Path, Any], dict[str, Any]]


def within_memory(do: Do, try_out: Do, stage: Stage, folder: Path, watcher: Any) -> dict[str, Any]:
    """Do a stage; where memory does not do and the user allows it, in less; else say what would fit.

    `try_out` does as `do` does, for stages that nobody needs.
    """
    tried = _in_turn(do, stage, [None, *(_ways(stage) if AUTO in stage.places else ())], folder, watcher)
    if tried.facts is None:
        raise OutOfMemory(_sentence(try_out, stage, watcher, tried))
    return {**tried.facts, AUTO: str(tried.way)} if tried.way else tried.facts


@dataclass
class _Tried:
    """What came of trying some ways in turn."""

    facts: dict[str, Any] | None = None
    way: Sparing | None = None  # the one that did, or the last for which memory did not do
    why: str = ""  # no further one could be taken


def _in_turn(do: Do, stage: Stage, ways: Iterable[Sparing | None], folder: Path, watcher: Any) -> _Tried:
    from usbench.train.memory import free_memory

    tried = _Tried()
    for way in ways:
        by = stage if way is None else replace(stage, places={**stage.places, SPARING: asdict(way)})
        try:
            return _Tried(do(by, folder, watcher), way)
        except NotSparing as error:
            tried.why = str(error)
        except OutOfMemory:
            tried.way = way
        free_memory()  # here nothing is left that hung on the error
        if tried.why:
            break
    return tried


def sparing_of(stage: Stage) -> Sparing:
    """How a stage is to get along with its memory."""
    from usbench.train.sparing import Sparing

    return Sparing(**stage.places.get(SPARING, {}))


def _ways(stage: Stage) -> Iterator[Sparing]:
    """What may be tried, one after the other: parts of a batch are no way for a loss that compares its images."""
    from usbench.train.sparing import Sparing

    if not stage.steps:
        return
    yield Sparing(recompute=True)
    parts = 2
    while stage.kind == "finetune" and parts <= stage.identity["schedule"]["batch"]:
        yield Sparing(recompute=True, parts=parts)
        parts *= 2


def _sentence(do: Do, stage: Stage, watcher: Any, tried: _Tried) -> str:
    """Which training, where, and what would fit: found by trying."""
    row, devices = stage.row, stage.identity.get("devices", 1)
    device = f"{devices} × {row['device']}" if devices > 1 else str(row["device"])
    mend = "take a smaller --size or --backbone, or free the device of what else is on it"
    if not stage.steps:
        return f"{stage.title} ran out of memory on {device} at {row['size']} px: {mend}."
    batch = stage.identity["schedule"]["batch"]
    said = f"{stage.title} ran out of memory on {device} at batch {batch} and {row['size']} px"
    if AUTO in stage.places:
        said += f", also with {tried.way}" if tried.way else ""
        said += f", and with less it cannot be done ({tried.why})" if tried.why else ""
        ways = [tried.way and replace(tried.way, parts=1)]
        fits = _largest(do, stage, ways, watcher)
        if not fits:
            return f"{said}; not even batch {LEAST} fits: {mend}."
        return f"{said}; batch {fits} fits: give {_option(stage, fits)} to all rows that are compared."
    helps = _fits(do, stage, batch, _ways(stage), watcher)
    fits = _largest(do, stage, [None], watcher)
    if not fits:
        return f"{said}; without --auto-batch not even batch {LEAST} fits: give it." if helps else (
            f"{said}; neither --auto-batch nor batch {LEAST} makes it fit: {mend}."
        )  # fmt: skip
    first = "give --auto-batch, with which it fits, or" if helps else "--auto-batch does not help;"
    return f"{said}; batch {fits} fits: {first} give {_option(stage, fits)} to all rows that are compared."


def _option(stage: Stage, batch: int) -> str:
    """How a user gives another batch; some protocols bring theirs."""
    if stage.kind == "finetune" and "batch" in stage.places["plugins"]["protocol"][1]:
        asked = Choice.parse(stage.row["protocol"])
        return f"--protocol {asked.model_copy(update={'options': {**asked.options, 'batch': batch}})}"
    return f"--set {stage.kind}.batch={batch}"


def _largest(do: Do, stage: Stage, ways: Sequence[Sparing | None], watcher: Any) -> int:
    """The largest batch that fits, of those halved from the one that does not; 0 where none does."""
    devices = stage.identity.get("devices", 1)
    batch = stage.identity["schedule"]["batch"] // 2
    while (batch := batch - batch % devices) >= LEAST:
        if _fits(do, stage, batch, ways, watcher):
            return int(batch)
        batch //= 2
    return 0


def _fits(do: Do, stage: Stage, batch: int, ways: Iterable[Sparing | None], watcher: Any) -> bool:
    """Whether some steps with a batch can be done, begun anew in a folder of their own."""
    schedule = {**stage.identity["schedule"], "batch": batch, "steps": TRIED_STEPS}
    short = replace(stage, identity={**stage.identity, "schedule": schedule})
    with tempfile.TemporaryDirectory(prefix="usbench-memory-") as place:
        try:
            return _in_turn(do, short, ways, Path(place), _Quiet(watcher)).facts is not None
        except Interrupted:
            raise
        except Exception:  # noqa: BLE001 - a plugin that cannot do so few images may say so in any way
            return False


class _Quiet:
    """Says nothing of the steps, and stops when the user asks."""

    def __init__(self, watcher: Any) -> None:
        self.watcher = watcher

    @property
    def stopping(self) -> bool:
        return bool(self.watcher.stopping)

    def step(self, done: int, total: int, loss: float, rate: float) -> None: ...
