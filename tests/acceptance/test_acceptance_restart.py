"""Claims about services that die while a phase uses them, through the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

# Answers each connection; ends when it is sent a q.
SERVER = (
    "import socket, os; s = socket.create_server(('127.0.0.1', 9100))\n"
    "while True:\n c, _ = s.accept(); d = c.recv(1)\n if d == b'q': os._exit(3)\n"
    " c.sendall(b'hi ' + d); c.close()"
)
CLIENT = """
import socket, time
def ask(letter):
    with socket.create_connection(("once", 9100)) as end:
        end.sendall(letter)
        return end.recv(10)
print(ask(b"a"))
print(ask(b"q"))
for _ in range(200):
    try:
        if (answer := ask(b"b")):
            break
    except OSError:
        pass
    time.sleep(0.02)
print(answer)
"""


def test_a_phase_reaches_a_service_that_was_started_again(tmp_path: Path):
    """The port inside leads to the new life of the service:
    doorways outlive the server that they lead to.
    """
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "make.toml").write_text(
        '[project]\nname = "restart"\n[cleanroom.services.once]\n'
        f'command = ["/usr/bin/python3", "{tmp_path}/server.py"]\nready = {{ tcp = 9100 }}\n'
        '[lifecycle.test]\ncommand = "/usr/bin/python3 client.py"\n'
        'cleanroom.containers = ["once"]\n'
    )
    environment = {**os.environ, "CLEANROOM_CACHE": str(tmp_path.parent / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "cleanroom", "pipeline", "test"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "b'hi b'" in done.stdout
    assert "restarted: service once" in done.stderr
