"""What the relay of a service takes of the machine, and what it says where that is not enough."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from support.command_harness import Project, project
from support.host_inventory import descendants
from support.inside.harness import PROGRAMS
from support.paths import OLDER_KERNEL
from support.tiers_harness import wait_until

__all__ = ["project"]
pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]
PORT = 7119


def prepare(project: Project, text: str) -> None:
    for program in PROGRAMS:
        shutil.copy(program, project.root)
    project.write({"test": text.replace("CLIENT", f"python3 service_client.py {PORT}")})
    project.add('cleanroom.containers = ["asked"]\n[cleanroom.services.asked]\n')
    project.add(f'command = ["python3", "asked_service.py", "{PORT}"]\nready = {{ tcp = {PORT} }}')


def relay_descriptors(run: int) -> int:
    """How many the relay of a run's service has; 0 while there is none."""
    for pid in descendants(run):
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read() == "relay\n":
                    return len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
    return 0


def test_the_relay_has_the_descriptors_of_its_beginning_when_all_have_gone(project: Project):
    """A phase says with a sleep of its own length when to look."""
    prepare(project, "CLIENT 1 1; sleep 3.5; CLIENT 900 500; exec sleep 32.5")
    run = project.started("run", "test", "--backend", "embedded")
    try:
        project.wait_running(run, "sleep 3.5")
        assert wait_until(lambda: 0 < relay_descriptors(run.pid) < 40, 3)
        before = relay_descriptors(run.pid)
        assert wait_until(lambda: relay_descriptors(run.pid) > 1800, 60)
        project.wait_running(run, "sleep 32.5")
        assert wait_until(lambda: relay_descriptors(run.pid) <= before)
    finally:
        run.terminate()
        run.wait(60)


def test_connections_beyond_the_hard_limit_wait_and_a_notice_says_so(project: Project):
    """448 at once where 1,024 descriptors are all there are; later ones are answered later."""
    prepare(project, "CLIENT waves 600")
    lowered = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))"
    answer = project.call("run", "test", before=lowered)
    assert answer.code == 0, answer.err[-2000:]
    (found,) = answer.result["notices"]
    assert (found["rule"], found["code"]) == ("resource.connections", "CR-RES-005")
    assert found["target"]["limit"] == f"448 connections at once to tcp:{PORT}"


def test_a_service_reaches_another_one_without_namespaces(project: Project):
    """In tier E3: the second one listens only after it has been answered by the first."""
    front = f"python3 service_client.py {PORT} half-close && exec python3 asked_service.py 7120"
    prepare(project, "python3 service_client.py 7120 half-close")
    project.add(f'\n[cleanroom.services.front]\ncommand = ["sh", "-c", "{front}"]\n')
    project.add('ready = { tcp = 7120, timeout = "20s" }\ndepends_on = ["asked"]\n')
    text = (project.root / "make.toml").read_text()
    (project.root / "make.toml").write_text(text.replace('["asked"]\n[', '["front"]\n['))
    words = project.argv("run", "test")
    done = subprocess.run(
        [words[0], str(OLDER_KERNEL), "namespaces", "--", *words],
        cwd=project.root,
        env=project.variables(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "(E3)" in done.stdout + done.stderr
