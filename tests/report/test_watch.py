"""The served page: of the present state, to this machine only, and nothing but reading."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up import put

from usbench.errors import UsbenchError
from usbench.report.watch import Handler, Server, Watched
from usbench.runs.store import Store


@pytest.fixture
def server(store: Store) -> Iterator[Server]:
    """A real server on a free port, of an empty store."""
    with Server("127.0.0.1", 0, Watched([store], images=True)) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """What the server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()
    finally:
        connection.close()


def test_the_page_is_that_of_the_present_state(server: Server, store: Store) -> None:
    code, headers, text = ask(server, "/")
    assert code == 200 and "There is no finished result yet" in text and "connect-src" in text
    before = json.loads(ask(server, "/state")[2])
    assert before == {"tag": headers["ETag"].strip('"'), "finished": 0, "working": []}
    put(store, "mine", 0, 0.1)
    with store.work("finetune-0123"):
        after = json.loads(ask(server, "/state")[2])
    assert after["tag"] != before["tag"] and (after["finished"], after["working"]) == (3, ["finetune-0123"])
    code, headers, text = ask(server, "/")
    assert "mine" in text and headers["ETag"].strip('"') == after["tag"]
    assert ask(server, "/", If_None_Match=headers["ETag"])[::2] == (304, "")
    assert json.loads(ask(server, "/state")[2])["working"] == []


def test_a_reader_who_leaves_is_not_told_of_and_a_page_that_cannot_be_made_is_a_sentence(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def failing(error: Exception) -> Callable[..., None]:
        def fail(*_: object) -> None:
            raise error

        return fail

    for where, name, error in (
        (Handler, "end_headers", ConnectionResetError("gone")), (Watched, "page", ZeroDivisionError("a\nb"))
    ):  # fmt: skip
        with monkeypatch.context() as patch, pytest.raises(http.client.RemoteDisconnected):
            patch.setattr(where, name, failing(error))
            ask(server, "/")
    assert ask(server, "/state")[0] == 200
    assert capfd.readouterr().err == "usbench: the page could not be made (ZeroDivisionError: a b).\n"


def test_serving_writes_nothing(server: Server, store: Store) -> None:
    put(store, "mine", 0, 0.1)
    before = sorted(store.root.rglob("*"))
    assert ask(server, "/")[0] == 200
    assert sorted(store.root.rglob("*")) == before


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "10.0.0.1", "[::"])
def test_a_name_that_is_not_this_machines_is_refused(server: Server, host: str) -> None:
    for path in ("/", "/state"):
        assert ask(server, path, Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "127.0.0.1:80", "[::1]:80"])
def test_this_machines_own_names_are_answered(server: Server, host: str) -> None:
    assert ask(server, "/state", Host=host)[0] == 200


def test_nothing_but_reading_is_answered(server: Server) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(server, "/", method)[0] == 405
    code, headers, text = ask(server, "/", "HEAD")
    assert (code, text) == (200, "") and int(headers["Content-Length"]) > 1000
    for path in ("/store.json", "/../store.json", "/%2e%2e/store.json", "//evil/state2"):
        assert ask(server, path)[0] == 404


def test_only_loopback_is_listened_on_and_a_port_in_use_is_said(
    store: Store, server: Server, usbench: Callable[..., Any]
) -> None:
    for host in ("0.0.0.0", "192.168.0.1", "example.org", ""):
        with pytest.raises(UsbenchError, match="this machine only"):
            Server(host, 0, Watched([store], images=False))
    said = usbench("watch", store.root, "--port", server.server_port)
    assert said.code == 2 and "is in use" in said.one_sentence()


@contextlib.contextmanager
def watching(store: Store) -> Iterator[subprocess.Popen[str]]:
    """`usbench watch` in a process that hears Ctrl-C even where ours does not, and that does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "usbench", "watch", str(store.root), "--port", "0"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_store_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    later = Store(tmp_path / "later")
    with watching(later) as process:
        assert process.stdout is not None
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())[0])
        assert process.stdout.readline() == f"no store yet at {later.root}: the page waits for a run with --out there\n"

        def page() -> str:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/")
            answer = connection.getresponse()
            assert answer.status == 200
            return answer.read().decode()

        assert "There is no finished result yet" in page() and not later.root.exists()
        put(later.open(), "mine", 0, 0.1)
        assert "mine" in page()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130


def test_what_can_be_no_store_is_refused(usbench: Callable[..., Any], store: Store, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "is no usbench store" in usbench("watch", file).one_sentence()
    (store.root / "store.json").write_text('{"schema": 99}')
    assert "newer than" in usbench("watch", store.root).one_sentence()


def test_ctrl_c_ends_it_cleanly(store: Store) -> None:
    with watching(store) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)/", line)[0])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/state")
        assert connection.getresponse().status == 200
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and out == "" and err.startswith("usbench: stopped") and err.count("\n") == 1
