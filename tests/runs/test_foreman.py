"""Who loses workers goes on as long as that leads anywhere; who is asked to stop waits for nobody without need."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from usbench.errors import Interrupted, UsbenchError
from usbench.hooks import Registry
from usbench.runs.foreman import DEATHS, Foreman
from usbench.runs.pool import Pool
from usbench.runs.stage import Stage
from usbench.runs.store import Store

STAGE = Stage("pretrain", "a long training", {"kind": "pretrain"}, {"loss": "x"})


class Quiet:
    stopping = False

    def begin(self, *_: object) -> None: ...

    def step(self, *_: object) -> None: ...

    def end(self, *_: object) -> None: ...

    def fail(self, *_: object) -> None: ...

    def wait(self, *_: object) -> None: ...


class One:
    """An agenda of one stage."""

    proven, rested, elsewhere = True, False, {}

    def __init__(self) -> None:
        self.waiting, self.running = [STAGE], {}
        self.failed: UsbenchError | None = None

    def next(self) -> Stage | None:
        if not self.waiting:
            return None
        self.running[STAGE.id] = self.waiting.pop()
        return STAGE

    def begin(self) -> tuple[int, int]:
        return 1, 1

    def again(self, stage: Stage) -> None:
        self.waiting.append(self.running.pop(stage.id))

    def end(self, stage: Stage, *, computed: bool) -> None:
        del self.running[stage.id]

    def fail(self, stage: Stage, error: UsbenchError) -> None:
        del self.running[stage.id]
        self.failed = error

    def close(self) -> int:
        return 0 if self.failed else 1


class Lent:
    """A worker after the other, each of which says some words."""

    absent = ""

    def __init__(self, *said: list[dict[str, Any]]) -> None:
        self.said, self.given = list(said), 0

    def free(self) -> int:
        return 1

    def give(self, stage: Stage, order: dict[str, Any]) -> None:
        self.given += 1

    def hear(self, seconds: float) -> list[tuple[str, dict[str, Any]]]:
        return [(STAGE.id, message) for message in self.said.pop(0)]

    def stop(self) -> None: ...

    def drop(self, stages: Collection[str]) -> None:
        self.dropped = set(stages)

    def kill(self) -> None: ...

    def dismiss(self, *, asked: bool) -> None: ...


def step(done: int) -> dict[str, Any]:
    return {"what": "step", "facts": [done, 100, 1.0, 1.0]}


DIED, DONE = {"what": "died", "how": "its time was over"}, {"what": "done"}
LEFT = {"what": "failed", "kind": "130", "text": "saved"}


def ended(*said: list[dict[str, Any]]) -> tuple[int, UsbenchError | None, Lent]:
    agenda, crew = One(), Lent(*said)
    return Foreman(Quiet(), agenda, crew, fail_fast=False).run(), agenda.failed, crew  # type: ignore[arg-type]


def test_a_stage_that_comes_further_with_every_worker_it_loses_is_gone_on_with() -> None:
    computed, failed, crew = ended(*([step(20 * k), DIED] for k in range(1, 5)), [step(100), DONE])
    assert (computed, failed, crew.given) == (1, None, 5)


@pytest.mark.parametrize("words", [[DIED], [step(20), DIED]])
def test_a_stage_whose_workers_die_no_further_on_has_failed(words: list[dict[str, Any]]) -> None:
    computed, failed, crew = ended(*([words] * DEATHS))
    assert computed == 0 and crew.given == DEATHS and "died (its time was over" in str(failed)


def test_a_worker_that_saves_and_leaves_unasked_ends_nothing() -> None:
    computed, failed, crew = ended([step(20), LEFT], [step(40), LEFT], [DONE])
    assert (computed, failed, crew.given) == (1, None, 3)


@pytest.mark.parametrize(("words", "dropped"), [([], {STAGE.id}), ([{"what": "begun"}], set()), ([step(20)], set())])
def test_who_was_asked_to_stop_ends_at_once_whoever_has_begun_nothing(
    words: list[dict[str, Any]], dropped: set[str]
) -> None:
    class Stops(Quiet):
        asked = 0

        @property
        def stopping(self) -> bool:
            self.asked += 1
            return self.asked > 2

    crew = Lent([], words, [LEFT])
    with pytest.raises(Interrupted):
        Foreman(Stops(), One(), crew, fail_fast=False).run()  # type: ignore[arg-type]
    assert crew.dropped == dropped


def test_a_process_that_is_still_starting_is_not_waited_for(tmp_path: Path) -> None:
    pool = Pool(Store(tmp_path).open(), Registry(), [{}])
    pool.give(STAGE, {"stage": asdict(STAGE), "watched": {}})
    began = time.monotonic()
    pool.stop()
    pool.drop({STAGE.id})
    heard: list[tuple[str, dict[str, Any]]] = []
    while not heard:
        heard = pool.hear(1.0)
    pool.dismiss(asked=True)
    assert [(stage_id, message["what"]) for stage_id, message in heard] == [(STAGE.id, "died")]
    assert not pool.workers and time.monotonic() - began < 2
