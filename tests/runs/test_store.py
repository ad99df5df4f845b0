"""The store: a stage is finished or absent, one process at a time works on it, and a newer store is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from usbench.errors import Interrupted, RunFailed, UsbenchError
from usbench.runs import lease as leases
from usbench.runs import owner as owners
from usbench.runs import store as module
from usbench.runs.lease import Taken, links
from usbench.runs.owner import Owner
from usbench.runs.records import STATE, seal_of, write_json
from usbench.runs.store import SCHEMA, Store

STAGE = "pretrain-0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs").open()


def lease(store: Store, *, host: str = "", space: str = owners.space_of_ids(), pid: int, token: str = "theirs") -> Path:
    """Somebody's lease on the stage."""
    link = store.part(STAGE) / "lease"
    link.mkdir(parents=True)
    owner = Owner(token, host or socket.gethostname(), space, pid)
    (link / "owner.json").write_text(json.dumps(asdict(owner)))
    return link / "owner.json"


def test_two_machines_of_one_name_are_two(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boot_id").write_text("of a machine that has our name\n")
    with monkeypatch.context() as there:
        there.setattr(owners, "BOOT", tmp_path / "boot_id")
        space = owners.space_of_ids()
    lease(store, pid=a_dead_process(), space=space)
    with pytest.raises(Taken), store.work(STAGE):
        pass
    monkeypatch.setattr(owners, "BOOT", tmp_path / "nowhere")
    assert owners.space_of_ids() and owners.space_of_ids() != space


def a_dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def works(store: Store) -> bool:
    """Whether the stage can be worked on now."""
    with store.work(STAGE) as folder:
        return links(folder)[-1][1].pid == os.getpid()


def test_a_second_process_is_refused_while_the_first_lives(store: Store) -> None:
    path = lease(store, pid=os.getppid())
    with pytest.raises(Taken, match=rf"{STAGE} is being computed by process {os.getppid()}"), store.work(STAGE):
        pass
    assert path.exists() and str(store.holder(STAGE)).startswith(f"process {os.getppid()} on ")


def test_two_threads_of_one_process_do_not_hold_one_lease(store: Store) -> None:
    with store.work(STAGE), pytest.raises(Taken), store.work(STAGE):
        pass
    assert works(store)


def test_a_dead_owners_lease_is_taken_over(store: Store) -> None:
    lease(store, pid=a_dead_process())
    assert store.holder(STAGE) is None
    assert works(store)


def test_a_lease_of_the_same_process_id_in_its_earlier_life_is_taken_over(store: Store) -> None:
    lease(store, pid=os.getpid())
    assert works(store)


@pytest.mark.parametrize("other", [{"host": "another-machine"}, {"space": "another-container"}])
def test_a_lease_that_cannot_be_asked_after_holds_as_long_as_it_beats(
    store: Store, monkeypatch: pytest.MonkeyPatch, other: dict[str, str]
) -> None:
    path = lease(store, pid=a_dead_process(), token=str(other), **other)
    now = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    os.utime(path, (0, 0))  # whatever the clocks of the machines say
    for beat in range(5):
        now[0] += leases.STALE_SECONDS - 1
        os.utime(path, (beat + 1, beat + 1))
        with pytest.raises(Taken), store.work(STAGE):
            pass
    now[0] += leases.STALE_SECONDS - 1
    assert store.holder(STAGE) is not None
    now[0] += 1
    assert store.holder(STAGE) is None
    assert works(store)


@pytest.mark.parametrize("text", ["", '{"host": "x', "[]", "{}", '{"host": "x", "pid": "x"}', '"x"'])
def test_a_damaged_lease_is_taken_over(store: Store, text: str) -> None:
    lease(store, pid=1).write_text(text)
    assert works(store)


@pytest.mark.parametrize("damaged", [1, 2, 4])
def test_damaged_leases_in_a_row_are_taken_over(store: Store, damaged: int) -> None:
    lease(store, pid=1).write_text("")
    for _ in range(damaged - 1):
        link = store.part(STAGE) / f"lease-{links(store.part(STAGE))[-1][1].token}"
        link.mkdir()
        (link / "owner.json").touch()
    assert len(links(store.part(STAGE))) == damaged
    assert works(store)


def test_who_slept_while_another_finished_has_not_failed(store: Store) -> None:
    with pytest.raises(Taken, match="taken over") as taken, store.work(STAGE) as folder:
        folder.rename(store.folder(STAGE))  # another took over, ended it and gave it its name
        write_json(store.folder(STAGE) / "record.json", {})
        (folder / "state.safetensors").write_bytes(b"more steps")
    assert isinstance(taken.value.__cause__, FileNotFoundError)
    assert store.has(STAGE) and not store.part(STAGE).exists()


@pytest.mark.parametrize("error", [Interrupted("saved"), KeyboardInterrupt()])
def test_an_interruption_stays_one_whoever_holds_the_lease(store: Store, error: BaseException) -> None:
    with pytest.raises(type(error)), store.work(STAGE) as folder:
        folder.rename(store.folder(STAGE))
        raise error


def test_who_slept_through_a_takeover_breaks_nobodys_lease_and_finishes_nothing(store: Store) -> None:
    with pytest.raises(Taken, match="taken over"), store.work(STAGE) as folder:
        mine = links(folder)[-1][1]
        (folder / f"lease-{mine.token}").mkdir()  # another machine heard nothing of us
        theirs = {**asdict(mine), "token": "later", "host": "another-machine"}
        (folder / f"lease-{mine.token}" / "owner.json").write_text(json.dumps(theirs))
        store.finish(STAGE, {})
    assert not store.has(STAGE)
    assert [owner.token for _, owner in links(store.part(STAGE))] == [mine.token, "later"]
    assert store.holder(STAGE) is not None


def test_a_late_takeover_of_a_lease_that_is_no_more_gets_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """B saw a dead owner and slept; meanwhile A took over, stopped, and C began anew."""
    lease(store, pid=a_dead_process(), token="dead")
    put = leases._put

    def slow(place: Path, me: Owner) -> bool:
        monkeypatch.setattr(leases, "_put", put)
        assert works(store)  # A: nothing was made, so the folder goes
        lease(store, pid=os.getppid(), token="new")  # C
        return put(place, me)

    monkeypatch.setattr(leases, "_put", slow)
    with pytest.raises(Taken), store.work(STAGE):
        pass
    assert [owner.token for _, owner in links(store.part(STAGE))] == ["new"]
    assert [path.name for path in store.part(STAGE).iterdir()] == ["lease"]


def test_a_link_that_lands_in_a_folder_while_it_goes_goes_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    remove, late = shutil.rmtree, []

    def rmtree(folder: Path, **options: Any) -> None:
        remove(folder, **options)
        if folder.suffix == ".trash" and not late:
            late.append(folder)
            (folder / "lease-late").mkdir(parents=True)

    monkeypatch.setattr(leases.shutil, "rmtree", rmtree)
    assert works(store)
    assert late and not list(store.stages.iterdir())


RACE = """
import sys, time
from pathlib import Path
from usbench.runs.lease import Taken
from usbench.runs.store import Store
store = Store(Path(sys.argv[1]))
while time.time() < float(sys.argv[2]):
    pass
for place in range(30):
    try:
        with store.work(f"pretrain-{place:016d}") as folder:
            if store.has(f"pretrain-{place:016d}"):
                continue
            with (Path(sys.argv[1]) / f"log-{place}").open("a") as log:
                log.write("x")
            (folder / "made").touch()
            store.finish(f"pretrain-{place:016d}", {})
    except Taken:
        continue
"""


def test_of_processes_that_race_for_a_dead_owners_lease_one_gets_it(store: Store) -> None:
    dead = a_dead_process()
    for place in range(30):
        link = store.stages / f"pretrain-{place:016d}.part" / "lease"
        link.mkdir(parents=True)
        owner = Owner("dead", socket.gethostname(), owners.space_of_ids(), dead)
        (link / "owner.json").write_text(json.dumps(asdict(owner)))
    command = [sys.executable, "-c", RACE, str(store.root), str(time.time() + 2)]
    for process in [subprocess.Popen(command) for _ in range(4)]:
        assert process.wait(60) == 0
    assert [(store.root / f"log-{place}").read_text() for place in range(30)] == ["x"] * 30
    assert sorted(path.name for path in store.stages.iterdir()) == [f"pretrain-{place:016d}" for place in range(30)]


def test_a_folder_that_is_finished_while_it_is_looked_at_is_made_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, met = Path.mkdir, []

    def mkdir(self: Path, *args: Any, **options: Any) -> None:
        if self.suffix == ".part" and not met:
            met.append(self)
            raise FileExistsError(errno.EEXIST, "it was there a moment ago", str(self))
        own(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with store.work(STAGE) as folder:
        assert folder.is_dir() and met == [folder]


def test_a_file_in_the_place_of_a_stage_is_said(store: Store) -> None:
    store.part(STAGE).touch()
    with pytest.raises(FileExistsError), store.work(STAGE):
        pytest.fail("it began")


def test_work_that_made_nothing_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.work(STAGE):
        raise ZeroDivisionError
    assert not list(store.stages.iterdir())


def test_the_lease_beats_while_work_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.01)
    with store.work(STAGE) as folder:
        path = folder / "lease" / "owner.json"
        os.utime(path, (0, 0))
        deadline = time.time() + 5
        while path.stat().st_mtime < 1 and time.time() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


def test_the_lease_goes_when_work_ends_and_when_it_fails(store: Store) -> None:
    with store.work(STAGE) as folder:
        (folder / "state.safetensors").write_bytes(b"so far")
    assert store.holder(STAGE) is None
    with pytest.raises(KeyError), store.work(STAGE):
        raise KeyError
    assert store.holder(STAGE) is None
    assert (folder / "state.safetensors").read_bytes() == b"so far"


def test_a_failure_is_noted_until_the_stage_succeeds(store: Store) -> None:
    store.note_failure(STAGE, "pretrain x", "it went wrong.")
    assert store.failure(STAGE) == "it went wrong."
    with store.work(STAGE):
        store.finish(STAGE, {})
    assert store.failure(STAGE) == "" and not list(store.failed.iterdir())


def test_a_stage_appears_whole_with_its_record(store: Store) -> None:
    with store.work(STAGE) as folder:
        (folder / "weights").write_text("made")
        assert not store.has(STAGE) and not list(store.records("pretrain"))
        store.finish(STAGE, {"facts": {"steps": 4}})
    made = {"weights": hashlib.sha256(b"made").hexdigest()}
    record = {"facts": {"steps": 4}, "files": made}
    assert store.has(STAGE) and store.record(STAGE) == {**record, "seal": seal_of(record)}
    assert [path.name for path, _ in store.records("pretrain")] == [STAGE]
    assert sorted(f.name for f in store.folder(STAGE).iterdir()) == ["record.json", "weights"]
    assert [f.name for f in store.stages.iterdir()] == [STAGE]


def test_what_a_killed_process_was_writing_is_no_part_of_the_stage(store: Store) -> None:
    half = f".{STATE}.{'0' * 32}.tmp"
    with pytest.raises(KeyError), store.work(STAGE) as folder:
        (folder / STATE).write_text("steps")
        (folder / half).write_text("st")
        raise KeyError
    with store.work(STAGE) as folder:
        assert (folder / STATE).is_file() and not (folder / half).exists()
        (folder / "weights").write_text("w")
        (folder / "deeper").mkdir()
        (folder / "deeper" / half).write_text("st")
        store.finish(STAGE, {})
    assert list(store.record(STAGE)["files"]) == ["weights"]
    assert not list(store.folder(STAGE).rglob(".*"))


def test_the_training_state_stays_until_the_record_stands_and_is_no_part_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.work("finetune-a") as folder:
        (folder / STATE).write_text("steps")
        (folder / "weights").write_text("w")
        with monkeypatch.context() as full, pytest.raises(OSError, match="no room"):
            full.setattr(module, "write_json", lambda *_: (_ for _ in ()).throw(OSError("no room")))
            store.finish("finetune-a", {})
        assert (folder / STATE).is_file()
        store.finish("finetune-a", {})
    assert sorted(f.name for f in store.folder("finetune-a").iterdir()) == ["record.json", "weights"]
    assert list(store.record("finetune-a")["files"]) == ["weights"]


@pytest.mark.parametrize("where", ["write_json", "rename"])
def test_a_failure_while_a_stage_is_finished_leaves_it_unfinished(
    store: Store, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "the cable was pulled")

    with monkeypatch.context() as patch:
        patch.setattr(*((module, "write_json") if where == "write_json" else (Path, "rename")), fail)
        with pytest.raises(OSError), store.work(STAGE):
            store.finish(STAGE, {"facts": {}})
    assert not store.has(STAGE) and not list(store.records("pretrain"))
    with store.work(STAGE):
        store.finish(STAGE, {"facts": {}})
    assert store.has(STAGE)


def test_a_full_disk_is_one_sentence_and_work_can_go_on_later(store: Store) -> None:
    with pytest.raises(UsbenchError, match="is full") as refusal, store.work(STAGE) as folder:
        (folder / "state.safetensors").write_bytes(b"so far")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert refusal.value.exit_code == 2
    with store.work(STAGE) as folder:
        assert (folder / "state.safetensors").read_bytes() == b"so far"


def test_a_full_disk_is_one_sentence_before_work_begins_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("mkdir", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, full)
            with pytest.raises(UsbenchError, match="is full"), store.work(STAGE):
                pass
    assert works(store)


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert [f.name for f in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_opening_a_store_twice_changes_nothing(store: Store) -> None:
    before = (store.root / "store.json").read_bytes()
    Store(store.root).open()
    assert (store.root / "store.json").read_bytes() == before
    assert not list(store.stages.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps({"schema": SCHEMA + 1}), f"schema {SCHEMA + 1}, newer than the {SCHEMA}"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
    ],
)
def test_a_store_of_another_schema_or_none_is_refused_and_left_alone(store: Store, text: str, words: str) -> None:
    (store.root / "store.json").write_text(text)
    with pytest.raises(UsbenchError) as refusal:
        Store(store.root).open()
    assert words in str(refusal.value)
    assert (store.root / "store.json").read_text() == text


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsbenchError, match="no usbench store"):
        Store(tmp_path).check_schema()


def test_a_damaged_record_is_refused_by_name(store: Store) -> None:
    with store.work(STAGE):
        store.finish(STAGE, {})
    (store.folder(STAGE) / "record.json").write_text('{"facts": ')
    with pytest.raises(UsbenchError, match=STAGE):
        store.record(STAGE)


# What is begun, and by whom.


def notes(store: Store) -> list[Path]:
    return sorted(store.begun.glob("*.json"))


def test_two_processes_with_one_plan_have_a_note_each(tmp_path: Path) -> None:
    ours, theirs = Store(tmp_path).open(), Store(tmp_path)
    with ours.wanting(["pretrain-a"]):
        with theirs.wanting(["pretrain-a"]):
            assert len(notes(ours)) == 2
        assert len(notes(ours)) == 1
    assert not ours.begun.exists()


def test_what_a_suite_has_done_in_turn_has_no_note_of_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path).open()
    with store.wanting(["pretrain-a", "pretrain-b"]), store.wanting(["pretrain-b"]):
        assert len(notes(store)) == 1


@pytest.mark.parametrize(("host", "pid"), [(socket.gethostname(), 2**22 + 1), ("elsewhere", 1), (None, 0)])
def test_who_ends_well_clears_the_notes_of_those_who_were_killed_at_the_same(
    tmp_path: Path, host: str | None, pid: int
) -> None:
    store = Store(tmp_path).open()
    with pytest.raises(KeyboardInterrupt), store.wanting(["pretrain-a"]):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), store.wanting(["pretrain-b"]):
        raise KeyboardInterrupt
    same = next(note for note in notes(store) if "pretrain-a" in note.read_text())
    said = json.loads(same.read_text())
    said["owner"] = {**said["owner"], "host": host, "pid": pid} if host else 3
    same.write_text(json.dumps(said))
    with store.wanting(["pretrain-a"]):
        pass
    (left,) = notes(store)
    assert "pretrain-b" in left.read_text()


def test_a_living_process_keeps_its_note_whoever_ends_well(tmp_path: Path) -> None:
    store = Store(tmp_path).open()
    with pytest.raises(KeyboardInterrupt), store.wanting(["pretrain-a"]):
        raise KeyboardInterrupt
    (note,) = notes(store)
    said = json.loads(note.read_text())
    note.write_text(json.dumps({**said, "owner": {**said["owner"], "pid": os.getppid()}}))
    with store.wanting(["pretrain-a"]):
        pass
    assert notes(store) == [note]


def test_what_was_refused_before_anything_was_done_leaves_no_note(tmp_path: Path) -> None:
    store = Store(tmp_path).open()
    with pytest.raises(UsbenchError), store.wanting(["pretrain-a"]):
        raise UsbenchError("a bad option")
    assert notes(store) == []
    with pytest.raises(RunFailed), store.wanting(["pretrain-a"]):
        raise RunFailed("it broke")
    assert len(notes(store)) == 1


# Names.


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../../etc", "pretrain-../x", "/etc/passwd", "pretrain-a/../../b", "pretrain-", "-a", "pretrain-x",
     "pretrain-a.part", "pretrain-a\n", "PRETRAIN-a", "pretrain-a\0", "pretrain-" + "a" * 200],
)  # fmt: skip
def test_a_name_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path).open()
    for use in (store.folder, store.part, store.has, store.record, store.holder, store.failure):
        with pytest.raises(UsbenchError, match="is no name of a stage"):
            use(name)
    with pytest.raises(UsbenchError, match="is no name of a stage"), store.work(name):
        pass
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["stages", "store.json"]


def test_a_finished_stages_name_is_its_folder(tmp_path: Path) -> None:
    assert Store(tmp_path).folder("finetune-0123456789abcdef") == tmp_path / "stages" / "finetune-0123456789abcdef"


# Files of finished stages.


def finished(store: Store, content: bytes) -> Path:
    with store.work(STAGE) as part:
        (part / "weights.safetensors").write_bytes(content)
        store.finish(STAGE, {"kind": "pretrain"})
    return store.folder(STAGE) / "weights.safetensors"


def test_a_file_is_given_only_as_it_was_recorded(store: Store) -> None:
    path = finished(store, b"abc" * 100)
    assert store.file(STAGE, path.name) == path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsbenchError) as error:
        store.file(STAGE, path.name)
    assert str(error.value) == (
        f"{path} is not what was recorded: delete the folder {path.parent} and run the same command again, which makes "
        f"it anew; 'usbench store check {store.root}' says what else is not whole."
    )
    path.unlink()
    with pytest.raises(UsbenchError, match=r"weights\.safetensors is missing: delete the folder"):
        store.file(STAGE, path.name)


def test_a_file_of_a_record_without_digests_is_given(store: Store) -> None:
    path = finished(store, b"abc")
    record = store.record(STAGE)
    del record["files"]
    write_json(path.parent / "record.json", record)
    assert store.file(STAGE, path.name) == path
