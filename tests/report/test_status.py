"""Another terminal sees how far work is, and who is at it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from usbench.runs.owner import Owner, space_of_ids
from usbench.runs.store import Store

TITLES = {"pretrain-a": "pretrain a", "finetune-b": "fine-tune b", "finetune-c": "fine-tune c"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A suite was begun: one stage is done, one is worked on by another process, one has failed."""
    store = Store(tmp_path / "store").open()
    with pytest.raises(KeyboardInterrupt), store.wanting(TITLES, "suite x", TITLES):
        with store.work("pretrain-a"):
            store.finish("pretrain-a", {})
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), store.wanting(["pretrain-a"], "its trainings"):
        raise KeyboardInterrupt
    link = store.part("finetune-b") / "lease"
    link.mkdir(parents=True)
    owner = Owner("t", socket.gethostname(), space_of_ids(), os.getppid())
    (link / "owner.json").write_text(json.dumps(asdict(owner)))
    store.note_failure("finetune-c", "fine-tune c", "it broke.")
    return store


@pytest.mark.parametrize("where", ["", "suite-x"])
def test_the_status_of_a_store_says_what_is_done_in_work_and_failed(
    usbench: Callable[..., Any], store: Store, where: str
) -> None:
    (store.root / "suite-x").mkdir()
    said = usbench("suite", "status", store.root / where)
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        "suite x: 1 of 3 stages done, 1 running, 1 failed",
        f"In work: fine-tune b, by process {os.getppid()} on {socket.gethostname()}",
        "Failed: fine-tune c: it broke.",
    ]


def test_work_that_was_stopped_and_work_that_ended_are_told_apart(usbench: Callable[..., Any], tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    with pytest.raises(KeyboardInterrupt), store.wanting(["pretrain-a"], "run a"):
        raise KeyboardInterrupt
    assert "nobody works on it: the same command goes on" in usbench("suite", "status", store.root).out
    with store.wanting(["pretrain-a"], "run a"):
        pass
    assert "nothing is in work" in usbench("suite", "status", store.root).out
    assert "no usbench store" in usbench("suite", "status", tmp_path).one_sentence()


def test_a_damaged_note_is_named(usbench: Callable[..., Any], store: Store) -> None:
    note = next(store.begun.iterdir())
    note.write_text("{")
    assert str(note) in usbench("suite", "status", store.root).one_sentence()
