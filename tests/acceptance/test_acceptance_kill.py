"""The engine killed at any moment leaves nothing on the host,
and the next run is as good as the first.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cleanroom.sandbox.kernel import cgroups
from support.command_harness import Project
from support.host_inventory import command, descendants, named

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

MOMENTS = random.Random(20240229).sample(
    range(30, 900), 5
)  # milliseconds after the start, from before the first process to within the phase


def ended(
    project: Project, signal_number: int, moment_ms: int | None = None, *, keeper_too: bool = False
) -> tuple[int, dict[str, set[str]]]:
    """Start a run, send a signal to its engine at that moment, or once its phase sleeps;
    its status, and what there was of the run before.
    """
    child = project.started("run", "test", "--backend", "embedded")
    if moment_ms is None:
        project.wait_running(child, "sleep 30")
    else:
        time.sleep(moment_ms / 1000)  # the attack is the moment
    before = project.left()
    if keeper_too:
        (keeper,) = named(child.pid, "cleanroom-keep")
        os.kill(keeper, signal.SIGKILL)
    child.send_signal(signal_number)
    return child.wait(timeout=30), before


@pytest.mark.parametrize("moment_ms", MOMENTS)
def test_killed_with_9_nothing_is_left(project: Project, moment_ms: int):
    """CLN-04, CLN-05: processes, mounts, groups and folders of the run are gone within a second."""
    project.write({"test": "exec sleep 30"})
    ended(project, signal.SIGKILL, moment_ms)
    assert project.settled() == {}


def test_after_a_kill_the_next_run_passes_and_the_log_verifies(project: Project):
    """Nothing that a dead run wrote stands in the way."""
    project.write({"test": "test -e slow || exit 0; exec sleep 30"})
    (project.root / "slow").touch()
    ended(project, signal.SIGKILL)
    (project.root / "slow").unlink()
    assert project.settled() == {}
    assert project.call("run", "test").code == 0
    verify = subprocess.run(
        project.argv("audit", "verify"),
        cwd=project.root,
        env=project.variables(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert verify.returncode == 0, verify.stdout + verify.stderr


@pytest.fixture
def elsewhere() -> Iterator[Callable[[], None]]:
    """Moves the process that calls it into control groups of its own, where it can make some."""
    homes = cgroups.homes() if os.geteuid() == 0 else cgroups.Homes(0, {}, "")
    if homes.version != 1:
        yield lambda: None
        return
    group = cgroups.Group.within(homes, f"elsewhere-{os.getpid()}")
    for path in group.paths:
        path.mkdir()
    yield group.join
    assert group.remove() == []


def test_engine_and_keeper_killed_together_leave_only_what_the_sweep_removes(
    project: Project, elsewhere: Callable[[], None]
):
    """CLN-06: no process outlives both; files and groups go with the next sweep,
    wherever that is started.
    """
    project.write({"test": "exec sleep 30"})
    _, before = ended(project, signal.SIGKILL, keeper_too=True)
    assert before.keys() >= {"processes", "folders"}
    assert set(project.settled()) <= {"folders", "groups"}
    run = subprocess.run(
        project.argv("sweep"),
        cwd=project.root,
        env=project.variables(),
        capture_output=True,
        text=True,
        timeout=30,
        preexec_fn=elsewhere,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert project.left() == {}


def test_engine_and_keeper_killed_together_leave_only_what_the_next_run_removes(project: Project):
    """CLN-06: a start sweeps, and says what it removed."""
    project.write({"test": "test -e slow || exit 0; exec sleep 30"})
    (project.root / "slow").touch()
    ended(project, signal.SIGKILL, keeper_too=True)
    (project.root / "slow").unlink()
    # None where the engine found its keeper gone, and removed all, before its own end.
    dead = {Path(folder).name for folder in project.settled().get("folders", ())}
    answer = project.call("run", "test")
    assert answer.code == 0
    assert all(name in json.dumps(answer.result) + answer.err for name in dead), answer
    assert project.left() == {}


def test_engines_of_one_project_never_sweep_each_other(project: Project):
    """CLN-13, CLN-22: while one runs, the others' starts and sweeps leave it alone,
    and it passes.
    """
    project.write({"test": "sleep 30 || test $? = 143", "other": "true"})
    first = project.started("run", "test", "--backend", "embedded")
    project.wait_running(first, "sleep 30")
    assert project.call("run", "other").code == 0
    # Others may have runs of their own on this machine, whose containers it sees too.
    assert project.call("sweep").result["living"] >= 1
    (sleeper,) = (pid for pid in descendants(first.pid) if command(pid) == "sleep 30")
    os.kill(sleeper, signal.SIGTERM)
    assert first.wait(timeout=30) == 0
    assert project.settled() == {}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unwinds_and_is_the_exit_code(project: Project, number: int, code: int):
    """CLN-07, CLN-08: in the middle of a phase; nothing is left."""
    project.write({"test": "exec sleep 30"})
    assert ended(project, number)[0] == code
    assert project.settled() == {}
