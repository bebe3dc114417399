"""Git repositories over HTTPS, on the network of `lying_registry`, and the command beside it.

    python -m support.git_server REPOSITORIES FOLDER COMMAND...

REPOSITORIES is a JSON string: the folder that holds bare repositories, which are served below
https://registry.test:8443/ by `git http-backend`. FOLDER has the server's key and certificate.
"""

from __future__ import annotations

import http.server
import os
import ssl
import subprocess
import sys
from pathlib import Path

from cleanroom.sandbox.kernel import constants, syscalls
from support.lying_registry import PORT, Answer, main


def serve(repositories: object, folder: Path) -> None:
    """Answer until the process ends."""
    syscalls.unshare(constants.CLONE_NEWNET)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    log = (folder / "requests").open("a", buffering=1)

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """The log is a file of its own."""

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            log.write(f"{self.headers.get('Authorization', '-')} {self.command} {self.path}\n")
            path, _, query = self.path.partition("?")
            variables = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(repositories),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            }
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = subprocess.run(
                ["git", "http-backend"], input=body, env=variables, capture_output=True, check=False
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            fields = [line.decode().split(": ", 1) for line in head.split(b"\r\n") if line]
            status = next((value for name, value in fields if name == "Status"), "200")
            self.send_response(int(status.split()[0]))
            for name, value in fields:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = http.server.ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
    os._exit(0)


def _main() -> int:
    def answer(repositories: dict[str, Answer], folder: Path) -> None:
        serve(repositories, folder)

    return main(answer)


if __name__ == "__main__":
    sys.exit(_main())
