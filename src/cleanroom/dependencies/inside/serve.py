"""Serves files over HTTP on the loopback while a command runs: a program of the fetch step.

    python serve.py FILES COMMAND...

FILES is a JSON file: {"files": {"/path": "/file", ...}}. "{served}" in the command's words, in its
variables and in the files of the folder where it starts stands for "http://127.0.0.1:PORT".
As a proxy it answers for every host: "/HOST/path" is the file of "https://HOST/path". Its clients
are told not to verify its certificate.
Exits as the command does.
"""

from __future__ import annotations

import http.server
import json
import os
import runpy
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from urllib.parse import unquote, urlsplit

MARK = "{served}"
REWRITTEN_MAX = 64 << 20
KEPT_SECONDS = 10 * 365 * 24 * 3600


def main() -> int:
    """Serve, run the command, and return its exit status."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        files = json.load(stream)["files"]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(files))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    _rewrite(address)
    own = ("PYTHONPATH",)
    variables = {
        name: value.replace(MARK, address) for name, value in os.environ.items() if name not in own
    }
    command = [word.replace(MARK, address) for word in sys.argv[2:]]
    return subprocess.run(command, env=variables, check=False).returncode


def _rewrite(address: str) -> None:
    for folder, _, names in os.walk("."):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path) or os.path.getsize(path) > REWRITTEN_MAX:
                continue
            with open(path, "rb") as stream:
                data = stream.read()
            if MARK.encode() in data:
                with open(path, "wb") as stream:
                    stream.write(data.replace(MARK.encode(), address.encode()))


def _handler(files: dict[str, str]) -> type[http.server.BaseHTTPRequestHandler]:
    tls = _Tls()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        host = ""  # that the client wants of a proxy

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def do_CONNECT(self) -> None:
            host, _, port = self.path.rpartition(":")
            self.host = host if port == "443" else self.path
            if not any(one.startswith(f"/{self.host}/") for one in files):
                self.send_error(502)
                return
            self.send_response(200)
            self.end_headers()
            self.connection = tls.context().wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb", buffering=0)
            self.close_connection = False

        def _answer(self, whole: bool) -> None:
            parts = urlsplit(self.path)
            host = self.host or parts.netloc
            path = files.get((f"/{host}" if host else "") + unquote(parts.path))
            if path is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(os.path.getsize(path)))
            self.send_header("Content-Type", _kind(path, self.path))
            if host:
                # What a client keeps under the address is the file of the lock, and stays it.
                self.send_header("Cache-Control", f"max-age={KEPT_SECONDS}, immutable")
            self.end_headers()
            if whole:
                with open(path, "rb") as stream:
                    shutil.copyfileobj(stream, self.wfile)

    return Handler


class _Tls:
    """What a server needs to speak TLS, made when a client first wants it."""

    def __init__(self) -> None:
        self._made: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def context(self) -> ssl.SSLContext:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def _make(self) -> ssl.SSLContext:
        # No folder of this program is searched for modules.
        beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "certificate.py")
        text = runpy.run_path(beside)["self_signed"]("loopback")
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w") as stream:
            stream.write(text)
            stream.flush()
            made.load_cert_chain(stream.name)
        return made


def _kind(path: str, asked: str) -> str:
    if asked.endswith("/"):
        return "application/vnd.pypi.simple.v1+html"
    return "application/json" if path.endswith(".json") else "application/octet-stream"


if __name__ == "__main__":
    sys.exit(main())
