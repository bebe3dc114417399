"""The downloader of the fetch step, as a program, against a server that is slow."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cleanroom.dependencies.inside import download

BODY = b"0123456789"
IDLE_SECONDS = 0.3  # in place of half a minute
ANSWER_SECONDS = 1.5  # in place of two minutes
CHUNKED = b"HTTP/1.1 200 So\r\nTransfer-Encoding: chunked\r\n\r\n"
# What a server says and repeats, none of which is an answer or its end.
ENDLESS = {
    "/head": (b"HTTP/1.1 200 So\r\nX: ", b"x"),
    "/continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "/trailers": (CHUNKED + b"1\r\na\r\n0\r\n", b"X: y\r\n"),
}


@pytest.fixture
def slow_server() -> Iterator[str]:
    """A server on the loopback whose path says how it answers; its address."""
    ended = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            if self.path == "/silent":
                ended.wait(60)
                return
            if self.path in ENDLESS:
                begin, more = ENDLESS[self.path]
                self.wfile.write(begin)
                with suppress(OSError):  # until the other end goes
                    while not ended.wait(IDLE_SECONDS / 10):
                        self.wfile.write(more)
                return
            if self.path in ("/404", "/403"):
                self.send_error(int(self.path[1:]))
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            for byte in BODY:
                self.wfile.write(bytes((byte,)))
                if self.path == "/trickle" and ended.wait(IDLE_SECONDS / 3):
                    return
                if self.path == "/stalls":
                    ended.wait(60)
                    return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"127.0.0.1:{server.server_port}"
    ended.set()
    server.shutdown()
    serving.join()
    server.server_close()


def downloaded(folder: Path, host: str, path: str, **more: object) -> dict[str, Any]:
    """The last line that the program says of one file."""
    orders = {
        "files": [{"url": f"http://{host}{path}", "limit": 1000, **more}],
        "hosts": [host],
        "retries": 1,
        "idle_seconds": IDLE_SECONDS,
        "answer_seconds": ANSWER_SECONDS,
    }
    (folder / "orders.json").write_text(json.dumps(orders))
    done = subprocess.run(
        [sys.executable, download.__file__, str(folder / "orders.json"), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("path", ["/silent", "/stalls", "/trickle"])
def test_a_slow_server_is_given_up(tmp_path: Path, slow_server: str, path: str):
    """No answer, an answer that stops, and one byte now and then: an error that says it."""
    said = downloaded(tmp_path, slow_server, path)
    assert said["kind"] == "network"
    assert "timed out" in said["failed"] or "bytes a second" in said["failed"]


@pytest.mark.parametrize("path", ENDLESS)
def test_a_server_that_never_comes_to_the_answer_is_given_up(
    tmp_path: Path, slow_server: str, path: str
):
    """It is never silent for long, and says nothing of a file."""
    said = downloaded(tmp_path, slow_server, path)
    assert (said["kind"], said["failed"].partition(" in ")[0]) == ("network", "no answer")


def test_a_server_that_answers_is_not(tmp_path: Path, slow_server: str):
    """The file is there, whole."""
    assert downloaded(tmp_path, slow_server, "/") == {"n": 0, "done": len(BODY)}
    assert (tmp_path / "0").read_bytes() == BODY


@pytest.mark.parametrize("status", ["404", "403"])
def test_an_optional_file_that_is_not_there_is_empty(tmp_path: Path, slow_server: str, status: str):
    """And is an error where it is none."""
    assert downloaded(tmp_path, slow_server, f"/{status}")["kind"] in ("absent", "refused")
    said = downloaded(tmp_path, slow_server, f"/{status}", optional=True)
    assert said == {"n": 0, "done": 0}
    assert (tmp_path / "0").read_bytes() == b""


def test_a_window_that_is_not_over_is_not_judged(monkeypatch: pytest.MonkeyPatch):
    """A pause is allowed, and each window is judged by itself."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    pace = download.Pace(30)
    now = 29.0
    assert not pace.too_slow(1)
    now = 30.0
    assert not pace.too_slow(download.SLOWEST * 30)
    now = 61.0
    assert pace.too_slow(download.SLOWEST * 30)
