"""SIGKILL in runs on container engines: of the engine at any moment, of keeper and engine,
of what holds a phase or a service.

No container stays.

`CLEANROOM_KILLS=100 python -m pytest tests/faults/test_fault_container_kills.py` tries that many
moments instead of a few.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cleanroom.backends.containers.client import EngineName, find_socket
from support.command_harness import Project
from support.container_harness import ENGINES, IMAGE, require
from support.faults.containers import SECONDS, contained, of_the_runs, wait_begun
from support.faults.suite import run
from support.host_inventory import descendants, named

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

MOMENTS = random.Random(9).choices(
    range(100, 5000), k=int(os.environ.get("CLEANROOM_KILLS", "3"))
)  # milliseconds, into the phase on a quiet machine
PHASE = "echo begun; sleep 2; python3 ask.py"
ASK = """
import os, socket, time, urllib.parse
url = urllib.parse.urlsplit(os.environ["REDIS_URL"])
enough = time.monotonic() + 20
while time.monotonic() < enough:
    try:
        with socket.create_connection((url.hostname, url.port), 1) as end:
            end.sendall(b"AUTH %s\\r\\nPING\\r\\n" % url.password.encode())
            answers = end.makefile("rb")
            if (answers.readline(), answers.readline()) == (b"+OK\\r\\n", b"+PONG\\r\\n"):
                raise SystemExit(0)
    except OSError:
        time.sleep(0.05)
raise SystemExit(9)
"""


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    require(request.param, IMAGE, "cleanroom/redis")
    name: EngineName = request.param
    return name


@pytest.fixture
def served(project: Project) -> Project:
    """A project whose phase uses a service."""
    contained(project, {"test": PHASE}, containers='["redis"]')
    (project.root / "ask.py").write_text(ASK)
    return project


def settled(project: Project, engine: EngineName) -> tuple[list[str], dict[str, set[str]]]:
    """Containers and other things that are left, once there are none or half a minute is over:
    late is not left.
    """
    until = time.monotonic() + 30
    while (
        (left := of_the_runs(project, find_socket(engine, os.environ))) or project.settled()
    ) and time.monotonic() < until:
        time.sleep(0.05)  # polling for what other processes do
    return left, project.settled()


@pytest.mark.parametrize("moment_ms", MOMENTS)
def test_an_engine_killed_at_any_moment_leaves_no_container(
    served: Project, engine: EngineName, moment_ms: int
):
    """Nor a process, mount, group or folder; the keeper sees to it."""
    child = served.started("run", "test", "--backend", engine)
    time.sleep(moment_ms / 1000)  # the attack is the moment
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert settled(served, engine) == ([], {})


def test_what_dies_with_its_keeper_is_swept(served: Project, engine: EngineName):
    """The containers' processes end at once; `sweep` removes the containers,
    and the next run passes.
    """
    child = served.started("run", "test", "--backend", engine)
    wait_begun(served, child)
    (keeper,) = named(child.pid, "cleanroom-keep")
    os.kill(keeper, signal.SIGKILL)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert len(of_the_runs(served, find_socket(engine, os.environ))) == 2
    assert run(served, "sweep").code == 0
    assert settled(served, engine) == ([], {})
    again = run(served, backend=engine, timeout_seconds=SECONDS)
    assert again.code == 0, again.text


@pytest.mark.parametrize(
    ("wanted", "code", "says"),
    [
        ("cleanroom-keep", 5, "ended"),
        ("warden phase-1-", 5, "ended"),
        ("warden service-", 0, "restarted: service redis"),
    ],
)
def test_an_inner_process_that_is_killed_is_told(
    served: Project, engine: EngineName, wanted: str, code: int, says: str
):
    """What holds the phase's isolation ends the run with 5;
    what holds a service is started again in a new container, and the phase may pass.
    """
    child = served.started(
        "run", "test", "--backend", engine, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    wait_begun(served, child)
    os.kill(min(victims(child.pid, wanted)), signal.SIGKILL)
    said, _ = child.communicate(timeout=SECONDS)
    assert (child.returncode, says in said.decode()) == (code, True), said.decode()
    assert "Traceback" not in said.decode()
    assert settled(served, engine) == ([], {})


def victims(engine: int, begins: str) -> set[int]:
    """Living processes below the engine whose name begins so."""
    return {
        pid
        for pid in descendants(engine)
        if Path(f"/proc/{pid}/comm").read_text().startswith(begins[:15])
    }
