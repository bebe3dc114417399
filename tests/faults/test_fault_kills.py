"""An inner process of a run killed with SIGKILL: the run ends by itself, says so,
passes only what was proven, and leaves nothing.

`CLEANROOM_KILLS=200 python -m pytest tests/faults/test_fault_kills.py` tries that many moments
instead of a few.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from support import sabotage
from support.command_harness import Project
from support.host_inventory import command, descendants

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

MOMENTS = random.Random(5).choices(
    range(20, 1400), k=int(os.environ.get("CLEANROOM_KILLS", "8"))
)  # milliseconds: start, proof, phases, unwinding
VICTIMS = ("cleanroom-keep", "warden phase", "warden service", "relay", "server.py")

# Answers with its moment of birth, by which a client knows a new life of it.
SERVER = """
import socket, time
born = b"%020d" % time.time_ns()
listening = socket.create_server(("127.0.0.1", 9100))
while True:
    connection, _ = listening.accept()
    connection.sendall(born)
    connection.close()
"""
# Forgives whatever happens to the service for a while, and then needs an answer.
CLIENT = """
import socket, sys, time
enough = time.monotonic() + float(sys.argv[1])
while time.monotonic() < enough + 30:
    try:
        with socket.create_connection(("echo", 9100), 1) as end:
            if end.recv(20) and time.monotonic() > enough:
                raise SystemExit(0)
    except OSError:
        pass
    time.sleep(0.01)
raise SystemExit(9)
"""
# The same, until another life of the service answers. Once the first has, its command line
# says so: whoever kills something waits for that.
OUTLAST = """
import os, socket, sys, time
end_at = time.monotonic() + 60
while time.monotonic() < end_at:
    try:
        with socket.create_connection(("echo", 9100), 1) as end:
            answer = end.recv(20).decode()
    except OSError:
        answer = ""
    if answer and len(sys.argv) == 1:
        os.execv(sys.executable, [sys.executable, "outlast.py", "answered", answer])
    if answer and answer != sys.argv[2]:
        raise SystemExit(0)
    time.sleep(0.01)
raise SystemExit(9)
"""


@pytest.fixture
def served(project: Project) -> Project:
    """A project whose phases use a service: for a moment, and until it has been restarted."""
    project.write(
        {
            "test": "/usr/bin/python3 client.py 0.6",
            "outlast": "/usr/bin/python3 outlast.py",
        },
        containers='["echo"]',
    )
    project.add(
        '[cleanroom.services.echo]\ncommand = ["/usr/bin/python3", '
        f'"{project.root}/server.py"]\nready = {{ tcp = 9100 }}\n'
    )
    (project.root / "server.py").write_text(SERVER)
    (project.root / "client.py").write_text(CLIENT)
    (project.root / "outlast.py").write_text(OUTLAST)
    return project


def name(pid: int) -> str:
    """What a process calls itself, and its arguments: a forked warden has its parent's."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return (
                f"{file.read().strip()} "
                f"{'' if command(pid).startswith(sys.executable) else command(pid)}"
            )
    except OSError:
        return ""


def victims(engine: int, wanted: str) -> list[int]:
    """The run's processes of that name, oldest first: of a warden and its init,
    which bears its name, the warden.
    """
    return sorted(pid for pid in descendants(engine) if wanted in name(pid))


def running_victims(engine: int, wanted: str) -> list[int]:
    """The same, once there is one: a service's program may be about to replace its shell."""
    end = time.monotonic() + 30
    while not (found := victims(engine, wanted)):
        assert time.monotonic() < end, f"no process named {wanted}"
        time.sleep(0.01)
    return found


def told(project: Project, run: subprocess.Popen[bytes]) -> tuple[int, str]:
    out, _ = run.communicate(timeout=60)
    return run.returncode, out.decode()


@pytest.mark.parametrize(
    ("wanted", "code", "says"),
    [
        ("warden phase", 5, "environment phase-1-outlast ended"),
        ("cleanroom-keep", 5, "ended"),
        ("warden service", 0, "restarted: service echo"),
        ("relay", 0, "restarted: service echo"),
        ("server.py", 0, "restarted: service echo"),
    ],
)
def test_an_inner_process_that_is_killed_while_a_phase_runs_is_told(
    served: Project, wanted: str, code: int, says: str
):
    """CLN-03, PROC-26: what holds the phase's isolation ends the run with 5;
    what holds a service is started again, and the phase may pass.
    """
    run = served.started(
        "run",
        "outlast",
        "--backend",
        "embedded",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    served.wait_running(run, "outlast.py answered")
    os.kill(running_victims(run.pid, wanted)[0], signal.SIGKILL)
    status, text = told(served, run)

    assert (status, says in text) == (code, True), text
    assert "Traceback" not in text
    assert served.settled() == {}


@pytest.mark.parametrize("moment_ms", MOMENTS)
def test_any_inner_process_may_be_killed_at_any_moment(served: Project, moment_ms: int):
    """Whoever it is and whenever: the engine ends by itself with an exit code of the list,
    without a traceback, and nothing is left.
    """
    run = served.started(
        "run", "test", "--backend", "embedded", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    time.sleep(moment_ms / 1000)  # the attack is the moment
    found = victims(run.pid, VICTIMS[moment_ms % len(VICTIMS)])
    if found:
        os.kill(found[0], signal.SIGKILL)
    status, text = told(served, run)

    assert status in (0, 5), text
    assert "Traceback" not in text
    assert served.settled() == {}


@pytest.mark.parametrize("which", [0, 1], ids=["warden", "init"])
def test_an_inner_process_that_is_stopped_is_ended_by_the_timeout(project: Project, which: int):
    """Nobody there acts on a signal then: what stands above kills it,
    and the phase has timed out like any other.
    """
    project.write({"test": "sleep 1000"}, timeout='"500ms"', limits='{ grace = "100ms" }')
    run = project.started(
        "run",
        "test",
        "--backend",
        "embedded",
        before=sabotage.code(sabotage.short_patience),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    project.wait_running(run, "sleep")
    os.kill(victims(run.pid, "warden phase")[which], signal.SIGSTOP)
    status, text = told(project, run)

    assert (status, "still running after 0.5 s" in text) == (124, True), text
    assert project.settled() == {}
