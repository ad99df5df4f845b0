"""The page of a running store, served to this machine only. Nothing is written, and nothing but reading is answered."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import ipaddress
import json
import socket
import socketserver
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from usbench.errors import UsbenchError
from usbench.report.cells import Memo, cells
from usbench.report.files import one_line
from usbench.report.index import Index
from usbench.report.kept import RUN, SUITE, together
from usbench.report.page import page_text
from usbench.runs.lease import holder
from usbench.runs.records import RECORD
from usbench.runs.store import Store

HEADERS = {
    "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip


class Watched:
    """Some stores, what state they are in, and the page of that state: made once."""

    def __init__(self, stores: Sequence[Store], *, images: bool) -> None:
        self.stores, self.images = stores, images
        self._memo = Memo()  # what was computed for a page is there for the next one
        self._lock = threading.Lock()
        self._made = ("", "")

    def state(self) -> dict[str, Any]:
        """How many stages are finished, what is being worked on, and a tag that changes when the page would."""
        finished, working = 0, []
        shown = hashlib.sha256()
        for store in self.stores:
            for folder in sorted(store.stages.iterdir()) if store.stages.is_dir() else []:
                if folder.suffix == ".part":
                    if holder(folder) is not None:
                        working.append(folder.stem)
                elif (folder / RECORD).is_file():
                    finished += 1
                    if folder.name.startswith("evaluate-"):
                        shown.update(f"{folder}\n".encode())
            for kept in sorted(path for name in (RUN, SUITE) for path in store.root.glob(f"*/{name}")):
                with contextlib.suppress(OSError):
                    shown.update(f"{kept} {kept.stat().st_mtime_ns}\n".encode())
        return {"tag": shown.hexdigest()[:16], "finished": finished, "working": working}

    def page(self) -> tuple[str, str]:
        """The page of the present state, and its tag."""
        with self._lock:
            tag = str(self.state()["tag"])
            if self._made[0] != tag:
                for store in self.stores:
                    if store.there:  # one that was not at first may be a newer usbench's
                        store.check_schema()
                index = Index(self.stores)
                for key in index.memo.keys() - self._memo.keys():
                    self._memo[key] = index.memo[key]
                every = cells(index.results, self._memo, [t for store in self.stores for t in together(store.root)])
                self._made = tag, page_text(every, self.stores, index.broken, images=self.images, live=tag)
            return self._made


class Server(ThreadingHTTPServer):
    """A server of one page on a loopback address."""

    daemon_threads = True

    def __init__(self, host: str, port: int, watched: Watched) -> None:
        self.watched = watched
        if not _loopback(host):
            raise UsbenchError(f"--host {host}: the page is served to this machine only; give 127.0.0.1 or ::1.")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UsbenchError(f"--port {port} is in use: give another one, or 0 for any that is free.") from None
            raise UsbenchError(f"--port {port} of {host} cannot be listened on ({error.strerror}).") from None

    def server_bind(self) -> None:
        """Bind without asking a name server what this machine is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who leaves is nothing to tell of; anything else is one sentence, and the next reader is served."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            why = one_line(f"{type(error).__name__}: {error}")
            print(f"usbench: the page could not be made ({why}).", file=sys.stderr)

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the page and its state."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "usbench", ""
    timeout = 30
    server: Server

    def do_GET(self) -> None:
        """The page at /, its state at /state, nothing else."""
        # A stranger's page that has its name resolve to this machine sends that name: it may not read along.
        try:
            name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        except ValueError:
            name = ""
        if not _loopback(name):
            return self._answer(403, "this page is for this machine only\n")
        path = urlsplit(self.path).path
        try:
            if path == "/state":
                state = self.server.watched.state()
                return self._answer(200, json.dumps(state), kind="application/json")
            if path == "/":
                tag, text = self.server.watched.page()
                return self._answer(200, text, kind="text/html", tag=tag)
        except (UsbenchError, OSError) as error:  # a store in motion: the next look finds it whole
            return self._answer(503, f"{error}\n")
        return self._answer(404, "there is the page at / and its state at /state\n")

    do_HEAD = do_GET

    def refuse(self) -> None:
        """Nothing here can be changed."""
        self.close_connection = True  # a body may follow that nobody reads
        self._answer(405, "only GET and HEAD are answered\n", allow="GET, HEAD")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = refuse

    def _answer(self, code: int, text: str, *, kind: str = "text/plain", tag: str = "", allow: str = "") -> None:
        body, etag = text.encode(), f'"{tag}"'
        known = bool(tag) and self.headers.get("If-None-Match") == etag
        self.send_response(304 if known else code)
        more = {"ETag": etag if tag else "", "Allow": allow}
        for name, value in {**HEADERS, **more}.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", "0" if known else str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and not known:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is the user's."""


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
