"""A store says what lies in it, and what is cleared away is never what a run needs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from made_up import put

from usbench.report.upkeep import Upkeep
from usbench.runs.owner import Owner, space_of_ids
from usbench.runs.records import write_json
from usbench.runs.store import Store

Usbench = Callable[..., Any]


def ids(store: Store) -> set[str]:
    return {folder.name for folder in store.stages.iterdir()}


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    """A store with the stages of a run (`mine`), and with some that nothing needs (`other`)."""
    store = Store(tmp_path / "runs").open()
    put(store, "mine", 0, 0.1)
    (test,) = store.stages.glob("evaluate-*")
    (store.root / "mine-spatial-0").mkdir()
    write_json(store.root / "mine-spatial-0" / "run.json", {"stages": [[test.name, "its test alone"]]})
    put(store, "other", 0, 0.1)
    return store


@pytest.fixture
def needed(kept: Store) -> set[str]:
    return {name for name in ids(kept) if kept.record(name)["row"]["loss"] == "mine"}


def begin(store: Store, name: str, owner: Owner | None = None) -> Path:
    """A stage in work, with a training state."""
    part = store.part(name)
    part.mkdir()
    (part / "state.safetensors").write_bytes(bytes(2**20))
    if owner:
        (part / "lease").mkdir()
        (part / "lease" / "owner.json").write_text(json.dumps(asdict(owner)))
    return part


def test_a_check_counts_what_there_is_and_names_what_nothing_needs(
    usbench: Usbench, kept: Store, needed: set[str]
) -> None:
    begin(kept, "pretrain-a", Owner("t", socket.gethostname(), space_of_ids(), os.getppid()))
    begin(kept, "pretrain-b")
    kept.note_failure("finetune-c", "fine-tune c", "it broke.")
    said = usbench("store", "check", kept.root)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert [line.split(",")[0] for line in lines[:3]] == [
        f"{kind}: 2 stages" for kind in ("evaluate", "finetune", "pretrain")
    ]
    orphans = {line.rpartition(" ")[2] for line in lines if line.startswith("nothing needs it")}
    assert orphans == {n for n in ids(kept) if not n.endswith(".part")} - needed
    assert f"in work: pretrain-a (1.0 MiB), by process {os.getppid()} on {socket.gethostname()}" in lines
    assert "begun, and nobody works on it: pretrain-b (1.0 MiB)" in lines
    assert "failed: finetune-c: it broke." in lines


def test_a_check_finds_a_stage_that_is_not_whole(usbench: Usbench, kept: Store) -> None:
    scores = next(kept.stages.glob("evaluate-*/scores.csv"))
    scores.write_text(scores.read_text() + "\n")
    next(kept.stages.glob("pretrain-*/record.json")).write_text("{")
    said = usbench("store", "check", kept.root)
    assert said.code == 1 and "2 things are wrong" in said.one_sentence()
    assert f"wrong: {scores}: it is not what was recorded" in said.out


def test_nothing_goes_without_a_yes_and_with_it_only_what_nothing_needs(
    usbench: Usbench, kept: Store, needed: set[str]
) -> None:
    begin(kept, "pretrain-b")
    before = ids(kept)
    said = usbench("store", "gc", kept.root)
    assert said.code == 0 and said.out.count("would go: ") == 4 and ids(kept) == before
    said = usbench("store", "gc", kept.root, "--yes")
    assert said.code == 0 and said.out.count("removed: ") == 4, said.err
    assert ids(kept) == needed
    assert "0.0 MiB would go" in usbench("store", "gc", kept.root).out


def test_work_in_progress_and_work_that_was_begun_stay(usbench: Usbench, kept: Store, needed: set[str]) -> None:
    other = ids(kept) - needed
    begin(kept, "pretrain-a", Owner("t", "another-machine", "", 1))
    begin(kept, "pretrain-b")
    with pytest.raises(KeyboardInterrupt), kept.wanting([*other, "pretrain-b"]):
        raise KeyboardInterrupt
    assert usbench("store", "gc", kept.root, "--yes").code == 0
    assert ids(kept) == {*needed, *other, "pretrain-a.part", "pretrain-b.part"}
    assert usbench("store", "gc", kept.root, "--yes", "--abandoned").code == 0
    assert ids(kept) == {*needed, "pretrain-a.part"}


@pytest.mark.parametrize("text", [None, "{", '{"stages": 3}', "{}"])
def test_where_nobody_can_say_what_is_needed_every_finished_stage_stays(
    usbench: Usbench, kept: Store, text: str | None
) -> None:
    before = ids(kept)
    if text is None:
        shutil.rmtree(kept.root / "mine-spatial-0")
    else:
        (kept.root / "suite-x").mkdir()
        (kept.root / "suite-x" / "suite.json").write_text(text)
    said = usbench("store", "gc", kept.root, "--yes")
    assert said.code == 0 and "what is needed is not known" in said.out and ids(kept) == before


def test_what_is_begun_while_it_is_cleared_keeps_its_stages(kept: Store, needed: set[str]) -> None:
    upkeep, other = Upkeep(kept), sorted(ids(kept) - needed)
    rubbish, _ = upkeep.rubbish()
    assert upkeep.clear(next(r for r in rubbish if r.path.name == other[0]))
    with kept.wanting(other[1:]):
        assert not any(upkeep.clear(r) for r in rubbish if r.path.name in other[1:])
        assert ids(kept) == {*needed, *other[1:]} and kept.has(other[1])


def test_a_run_that_ended_while_it_is_cleared_keeps_all_that_stands_behind_it(kept: Store, needed: set[str]) -> None:
    upkeep = Upkeep(kept)
    rubbish, _ = upkeep.rubbish()
    test = next(name for name in ids(kept) - needed if name.startswith("evaluate"))
    (kept.root / "other-spatial-0").mkdir()
    write_json(kept.root / "other-spatial-0" / "run.json", {"stages": [[test, "its test alone"]]})
    assert len(rubbish) == 3 and not any(map(upkeep.clear, rubbish))


def test_a_stage_under_somebodys_lease_is_not_cleared(kept: Store, needed: set[str]) -> None:
    upkeep = Upkeep(kept)
    rubbish, _ = upkeep.rubbish()
    before = ids(kept)
    begin(kept, rubbish[0].path.name, Owner("t", "another-machine", "", 1))
    assert not upkeep.clear(rubbish[0]) and before <= ids(kept)


def test_a_folder_that_is_no_stage_is_named_and_cleared(usbench: Usbench, kept: Store, needed: set[str]) -> None:
    (kept.stages / "my copy").mkdir()
    (kept.stages / "what.part").mkdir()
    said = usbench("store", "check", kept.root)
    assert said.code == 1 and "my copy" in said.out
    assert usbench("store", "gc", kept.root, "--yes").code == 0
    assert ids(kept) == {*needed, "what.part"}


def test_leftovers_go_and_what_a_process_is_about_to_use_stays(usbench: Usbench, kept: Store, needed: set[str]) -> None:
    old, young = kept.stages / ".old.lease", kept.stages / ".young.lease"
    for place in (old, young):
        place.mkdir()
    os.utime(old, (time.time() - 10_000,) * 2)
    state = next(f for f in kept.stages.iterdir() if f.name in needed and f.name.startswith("pretrain"))
    (state / "state.safetensors").write_bytes(b"x")
    assert usbench("store", "gc", kept.root, "--yes").code == 0
    assert not old.exists() and young.exists() and not (state / "state.safetensors").exists()


def test_a_run_that_ended_well_needs_its_stages_by_its_own_list(
    usbench: Usbench, tiny: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "o"
    assert usbench("run", "--loss", "none", *tiny, "--out", out).code == 0
    assert not (out / "begun").exists()
    said = usbench("store", "gc", out, "--yes")
    assert said.code == 0 and "removed: " not in said.out
    assert usbench("store", "check", out).code == 0
    assert usbench("verify", out).code == 0


def test_a_folder_that_is_no_store_is_refused(usbench: Usbench, tmp_path: Path) -> None:
    for command in ("check", "gc"):
        assert "no usbench store" in usbench("store", command, tmp_path).one_sentence()
