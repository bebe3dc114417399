"""Serves files over HTTP on the loopback while a command runs: a program of the fetch step.

    python serve.py FILES COMMAND...

FILES is a JSON file: {"files": {"/path": "/file", ...}}. "{served}" in the command's words, in its
variables and in the files of the folder where it starts stands for "http://127.0.0.1:PORT".
Exits as the command does.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from urllib.parse import unquote, urlsplit

MARK = "{served}"
REWRITTEN_MAX = 64 << 20


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
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer(False)

        def do_GET(self) -> None:
            self._answer(True)

        def _answer(self, whole: bool) -> None:
            path = files.get(unquote(urlsplit(self.path).path))
            if path is None:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(os.path.getsize(path)))
            self.send_header("Content-Type", _kind(path, self.path))
            self.end_headers()
            if whole:
                with open(path, "rb") as stream:
                    shutil.copyfileobj(stream, self.wfile)

    return Handler


def _kind(path: str, asked: str) -> str:
    if asked.endswith("/"):
        return "application/vnd.pypi.simple.v1+html"
    return "application/json" if path.endswith(".json") else "application/octet-stream"


if __name__ == "__main__":
    sys.exit(main())
