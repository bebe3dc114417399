"""A registry on a network of its own, which lies as a test asks, and the command beside it.

    python -m support.lying_registry ANSWERS FOLDER COMMAND...

As root. Makes two network namespaces with a wire between them: the command runs in one, where
"registry.test" is 198.51.100.2 and "private.test" is 10.77.0.2, and an HTTPS server answers in the
other. Both go with this process. ANSWERS is a JSON file: path -> `Answer`; FOLDER has the server's
key and certificate, as `make_certificates` writes them.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from cleanroom.sandbox.kernel import constants, syscalls

NAMES = {
    "registry.test": "198.51.100.2",
    "objects.test": "198.51.100.2",
    "private.test": "10.77.0.2",
}
ENGINE = ("198.51.100.1/24", "10.77.0.1/24")
PORT = 8443


class Answer(TypedDict, total=False):
    """What the server answers for one path."""

    status: int
    body: str  # hexadecimal
    location: str  # "{login}" stands for what the request's Authorization says,
    # "{host}" for the other one of two names
    reason: str  # of the status line; the same
    length: int  # that is announced
    pause: float  # seconds before each byte


def make_certificates(folder: Path) -> Path:
    """A certificate for all names, which is its own authority; returns its file."""
    names = ",".join(f"DNS:{name}" for name in NAMES)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=registry.test"),
            *("-addext", f"subjectAltName={names}"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "certificate.pem"


def main(serve: Callable[[dict[str, Answer], Path], None] | None = None) -> int:
    """The command's exit status; `serve` answers in the other namespace, which it makes."""
    answers, folder, *command = sys.argv[1:]
    syscalls.unshare(constants.CLONE_NEWNET | constants.CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    server = os.fork()
    if server == 0:
        syscalls.set_parent_death_signal(signal.SIGKILL)
        (serve or _serve)(json.loads(Path(answers).read_text()), Path(folder))
    hosts = Path(folder, "hosts")
    hosts.write_text(
        "127.0.0.1 localhost\n" + "".join(f"{to} {name}\n" for name, to in NAMES.items())
    )
    subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
    _wire(server)
    try:
        return subprocess.run(command, check=False).returncode
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def _wire(server: int) -> None:
    """A wire to the server's namespace, once that is another one."""
    ours = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{server}/ns/net") == ours:
        time.sleep(0.005)

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def there(*words: str) -> None:
        subprocess.run(["nsenter", "--net", f"--target={server}", "ip", *words], check=True)

    ip("link", "set", "lo", "up")
    ip("link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", str(server))
    for address in ENGINE:
        ip("address", "add", address, "dev", "wire")
    ip("link", "set", "wire", "up")
    for address in sorted(set(NAMES.values())):
        there("address", "add", f"{address}/24", "dev", "wire")
    there("link", "set", "lo", "up")
    there("link", "set", "wire", "up")


def _serve(answers: dict[str, Answer], folder: Path) -> None:
    syscalls.unshare(constants.CLONE_NEWNET)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    log = (folder / "requests").open("a", buffering=1)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """The log is a file of its own."""

        def end_headers(self) -> None:
            if self.path.endswith("/"):  # a package's page of an index
                self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            super().end_headers()

        def do_GET(self) -> None:
            log.write(f"{self.headers.get('Authorization', '-')} {self.path}\n")
            answer = answers.get(self.path, Answer(status=404))
            body = bytes.fromhex(answer.get("body", ""))
            login = self.headers.get("Authorization", "-")
            if "{host}" in answer.get("location", ""):  # it leads to itself, by the other name
                ours = self.headers.get("Host", "").partition(":")[0]
                other = "objects.test" if ours == "registry.test" else "registry.test"
                answer = {**answer, "location": answer["location"].replace("{host}", other)}
            body = body.replace(b"{login}", login.encode())
            reason = answer.get("reason", "So").replace("{login}", login)
            self.send_response(answer.get("status", 200), reason)
            self.send_header("Content-Length", str(answer.get("length", len(body))))
            if "location" in answer:
                encoded = login.rpartition(" ")[2]
                self.send_header("Location", answer["location"].replace("{login}", encoded))
            self.end_headers()
            if not answer.get("pause"):
                self.wfile.write(body)
                if answer.get("length", len(body)) != len(body):
                    self.close_connection = True
                return
            for byte in body:
                time.sleep(answer["pause"])
                self.wfile.write(bytes((byte,)))

    server = http.server.ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
