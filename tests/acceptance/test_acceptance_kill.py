"""The engine killed at any moment leaves nothing on the host, and the next run is as good as the first."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from acceptance_bench import Project

pytestmark = [pytest.mark.sandbox, pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux")]

GRACE_SECONDS = 1.0
MOMENTS = random.Random(20240229).sample(
    range(30, 900), 5
)  # milliseconds after the start, from before the first process to within the phase


def started(project: Project, signal_number: int, moment_ms: int, *, keeper_too: bool = False) -> tuple[int, list[str]]:
    """Start a run, send a signal to its engine at that moment; the engine's status, and what there was of the run before."""
    argv = project.argv("run", "test", "--backend", "embedded")
    child = subprocess.Popen(
        argv,
        cwd=project.root,
        env=project.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(moment_ms / 1000)  # the attack is the moment
    before = left(project)
    if keeper_too:
        for pid in children(child.pid):
            os.kill(pid, signal.SIGKILL)
    child.send_signal(signal_number)
    return child.wait(timeout=30), before


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def left(project: Project) -> list[str]:
    """Processes of the session or in namespaces that name the project, mounts, groups."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="replace")
                where = os.readlink(f"/proc/{entry}/cwd")
            except OSError:
                continue
            if str(project.root) in words or where.startswith(str(project.root)) or "marker-of-this-test" in words:
                found.append(f"{entry} {words[:80]}")
    found += [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(project.root.parent) in line]
    runs = [folder.name for folder in (project.cache / "runs").glob("*")] if (project.cache / "runs").is_dir() else []
    found += [where for where, _, _ in os.walk("/sys/fs/cgroup") if any(f"cleanroom-{run}-" in where for run in runs)]
    return found + [f"folder {run}" for run in runs]


def settled(project: Project) -> list[str]:
    """What is left once the grace is over, or nothing as soon as there is nothing."""
    until = time.monotonic() + GRACE_SECONDS
    while (rest := left(project)) and time.monotonic() < until:
        time.sleep(0.02)  # polling for what other processes do
    return rest


@pytest.mark.parametrize("moment_ms", MOMENTS)
def test_killed_with_9_nothing_is_left(project: Project, moment_ms: int):
    """CLN-04, CLN-05: processes, mounts, groups and folders of the run are gone within a second."""
    project.write({"test": "exec sleep 30 # marker-of-this-test"})
    started(project, signal.SIGKILL, moment_ms)
    assert settled(project) == []


def test_after_a_kill_the_next_run_passes_and_the_log_verifies(project: Project):
    """Nothing that a dead run wrote stands in the way."""
    project.write({"test": "test -e slow || exit 0; exec sleep 30"})
    (project.root / "slow").touch()
    started(project, signal.SIGKILL, 500)
    (project.root / "slow").unlink()
    assert settled(project) == []
    assert project.call("run", "test").code == 0
    verify = subprocess.run(
        project.argv("audit", "verify"), cwd=project.root, env=project.variables(), capture_output=True, text=True, timeout=30
    )
    assert verify.returncode == 0, verify.stdout + verify.stderr


def test_engine_and_keeper_killed_together_leave_only_what_the_sweep_removes(project: Project):
    """CLN-06: no process outlives both; files and groups go with the next sweep."""
    project.write({"test": "exec sleep 30 # marker-of-this-test"})
    _, before = started(project, signal.SIGKILL, 1000, keeper_too=True)
    assert [thing for thing in before if "sleep 30" in thing.replace("\0", " ")], f"the phase did not run yet: {before}"
    rest = settled(project)
    assert [thing for thing in rest if not thing.startswith(("folder", "/sys/fs/cgroup"))] == []
    swept = subprocess.run(project.argv("sweep"), cwd=project.root, env=project.variables(), capture_output=True, text=True, timeout=30)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert left(project) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_unwinds_and_is_the_exit_code(project: Project, number: int, code: int):
    """CLN-07, CLN-08: in the middle of a phase; nothing is left."""
    project.write({"test": "exec sleep 30 # marker-of-this-test"})
    assert started(project, number, 700)[0] == code
    assert settled(project) == []
