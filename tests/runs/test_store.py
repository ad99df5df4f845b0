"""The store: a stage is finished or absent, one process at a time works on it, and a newer store is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from usbench.errors import RunFailed, UsbenchError
from usbench.runs import store as module
from usbench.runs.store import SCHEMA, STALE_SECONDS, Store, seal_of, write_json

STAGE = "pretrain-0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs").open()


def lease(store: Store, **owner: Any) -> Path:
    """Somebody's lease on the stage."""
    part = store.stages / f"{STAGE}.part"
    part.mkdir(parents=True)
    path = part / "lease.json"
    path.write_text(json.dumps({"host": socket.gethostname(), "since": time.time(), **owner}))
    return path


def a_dead_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def works(store: Store) -> bool:
    """Whether the stage can be worked on now."""
    with store.work(STAGE) as folder:
        return json.loads((folder / "lease.json").read_text())["pid"] == os.getpid()


def test_a_second_process_is_refused_while_the_first_lives(store: Store) -> None:
    path = lease(store, pid=os.getppid())
    with pytest.raises(RunFailed, match=rf"{STAGE} is being computed by process {os.getppid()}"), store.work(STAGE):
        pass
    assert path.exists()


def test_a_dead_owners_lease_is_taken_over(store: Store) -> None:
    lease(store, pid=a_dead_process())
    assert works(store)


def test_another_machines_lease_holds_as_long_as_it_beats(store: Store) -> None:
    path = lease(store, pid=1, host="another-machine")
    with pytest.raises(RunFailed, match="another-machine"), store.work(STAGE):
        pass
    old = time.time() - STALE_SECONDS - 1
    os.utime(path, (old, old))
    assert works(store)


@pytest.mark.parametrize("text", ["", '{"host": "x', "[]", "{}", '{"host": "HERE"}', '{"host": "HERE", "pid": "x"}'])
def test_a_lease_that_was_cut_short_is_taken_over(store: Store, text: str) -> None:
    path = lease(store, pid=1)
    path.write_text(text.replace("HERE", socket.gethostname()))
    os.utime(path, (0, 0))
    assert works(store)


def test_a_lease_that_is_just_being_written_is_waited_for(store: Store) -> None:
    path = lease(store, pid=1)
    path.write_text("")
    owner = json.dumps({"host": socket.gethostname(), "pid": os.getppid()})
    thread = threading.Timer(0.2, path.write_text, [owner])
    thread.start()
    with pytest.raises(RunFailed, match="is being computed"), store.work(STAGE):
        pass
    thread.join()


def test_work_that_made_nothing_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.work(STAGE):
        raise ZeroDivisionError
    assert not list(store.stages.iterdir())


def test_the_lease_beats_while_work_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    with store.work(STAGE) as folder:
        path = folder / "lease.json"
        os.utime(path, (0, 0))
        deadline = time.time() + 5
        while path.stat().st_mtime < 1 and time.time() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


def test_the_lease_goes_when_work_ends_and_when_it_fails(store: Store) -> None:
    with store.work(STAGE) as folder:
        (folder / "state.safetensors").write_bytes(b"so far")
    assert not (folder / "lease.json").exists()
    with pytest.raises(KeyError), store.work(STAGE):
        raise KeyError
    assert not (folder / "lease.json").exists()
    assert (folder / "state.safetensors").read_bytes() == b"so far"


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
