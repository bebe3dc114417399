"""`--pause`: a phase that failed stays as it is until somebody decides."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from support.command_harness import Project
from support.terminal_command import at_terminal

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

CHECK = 'echo tried; test "$(cat value.txt)" = good'
PAUSED = ("run", "test", "--backend", "embedded", "--pause")
# Counts in the service's data, which are the run's and not the attempt's.
COUNT = """/usr/bin/python3 - <<'END'
import os, socket, urllib.parse
url = urllib.parse.urlsplit(os.environ["REDIS_URL"])
with socket.create_connection((url.hostname, url.port)) as end:
    end.sendall(f"AUTH {url.username} {url.password}\\r\\nINCR phase_test:n\\r\\n".encode())
    said = b""
    while b":" not in said and b"-" not in said:
        said += end.recv(100)
    print("answer", said)
END
"""


def write(project: Project, value: str) -> None:
    (project.root / "value.txt").write_text(value)


def failing(project: Project, **phases: str) -> None:
    """A project whose phase `test` fails until value.txt says good."""
    project.write({**phases, "test": CHECK})
    write(project, "bad")


def report(project: Project) -> dict[str, Any]:
    path = project.root / ".ggen/cleanroom/reports/test_results.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_without_a_terminal_a_paused_run_is_left_behind_and_goes_on_after_a_fix(project: Project):
    """Exit 77 and how to go on, at once also for who reads the streams to their end; `retry` runs
    the phase in another environment, and what follows; its status and output are the run's.
    """
    failing(project, build="echo made > made.txt", after="echo followed")
    done = project.run("pipeline", "build", "test", "after", *PAUSED[2:])
    assert done.returncode == 77, done.stderr
    assert "cleanroom-engine retry" in done.stderr
    assert "tried" in done.stdout
    again = project.run("retry")
    assert again.returncode == 77
    assert "paused" in again.stderr
    write(project, "good")
    last = project.run("retry")
    assert last.returncode == 0, last.stderr
    assert "followed" in last.stdout
    assert (project.root / "made.txt").read_text() == "made\n"
    assert [phase["result"] for phase in report(project)["phases"]] == ["passed"] * 3
    assert project.settled() == {}


def test_a_retry_writes_over_what_was_fixed_without_a_conflict(project: Project):
    """What a person changed since the attempt began is what the phase saw."""
    project.write({"test": 'grep -q good value.txt && echo "good, checked" > value.txt'})
    write(project, "bad")
    assert project.run(*PAUSED).returncode == 77
    write(project, "good")
    assert project.run("retry").returncode == 0
    assert (project.root / "value.txt").read_text() == "good, checked\n"


def test_what_an_earlier_phase_changed_hides_a_fix_and_that_is_said(project: Project):
    """The run goes on with what it made: its file is named."""
    failing(project, build="echo other > value.txt; echo x > b.txt; rm -f b.txt")
    assert project.run("pipeline", "build", "test", *PAUSED[2:], "--dry-run").returncode == 77
    write(project, "good")
    again = project.run("retry")
    assert again.returncode == 77
    assert "value.txt" in again.stderr
    assert "CR-PAUSE-002" in again.stderr
    assert project.run("retry", "--end").returncode == 1
    assert project.settled() == {}


@pytest.mark.parametrize("how", ["killed", "forgotten", "ended"])
def test_the_end_of_a_pause_leaves_nothing(project: Project, how: str):
    """Killed with 9, after its time, by a decision: nothing is left, and nothing can be retried."""
    failing(project)
    limit = "1s" if how == "forgotten" else "30m"
    assert project.run(*PAUSED, "--pause-for", limit).returncode == 77
    holder = [int(name) for name in os.listdir("/proc") if name.isdigit() and is_run(name)]
    if how == "ended":
        assert project.run("retry", "--end").returncode == 1
    elif how == "killed":
        assert len(holder) == 1
        os.kill(holder[0], signal.SIGKILL)
    until = time.monotonic() + 20
    while project.left() and time.monotonic() < until:
        project.settled()
    assert project.settled() == {}
    done = project.run("retry")
    assert done.returncode == 2
    assert "CR-PAUSE-003" in done.stderr
    assert not list((project.cache / "paused").iterdir())


def test_a_run_that_is_killed_during_a_retry_is_told_to_who_waits(project: Project):
    """It has no exit status any more, and leaves nothing."""
    project.write({"test": f"{CHECK} && exec sleep 1000"})
    write(project, "bad")
    assert project.run(*PAUSED).returncode == 77
    write(project, "good")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    retry = project.started("retry", **pipes)
    assert retry.stdout is not None
    while b"tried" not in (line := retry.stdout.readline()):
        assert line, "the run has ended"
    (holder,) = [int(name) for name in os.listdir("/proc") if name.isdigit() and is_run(name)]
    os.kill(holder, signal.SIGKILL)
    _, errors = retry.communicate(timeout=30)
    assert retry.returncode == 5
    assert b"CR-PAUSE-004" in errors
    until = time.monotonic() + 20
    while project.left() and time.monotonic() < until:
        project.settled()
    assert project.settled() == {}


def is_run(pid: str) -> bool:
    """Whether this process holds the paused run, which this process adopted."""
    try:
        with open(f"/proc/{pid}/stat") as stat, open(f"/proc/{pid}/cmdline") as line:
            parent = stat.read().rpartition(")")[2].split()[1]
            return parent == str(os.getpid()) and "--pause" in line.read()
    except OSError:
        return False


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_command_that_is_ended_before_a_pause_takes_its_run_along(
    project: Project, number: signal.Signals, status: int
):
    """Only a pause lets the run outlive its command."""
    project.write({"test": "exec sleep 1000"})
    command = project.started(*PAUSED)
    project.wait_running(command, "sleep 1000")
    command.send_signal(number)
    assert command.wait(timeout=30) == status
    until = time.monotonic() + 20
    while project.left() and time.monotonic() < until:
        project.settled()
    assert project.settled() == {}


def test_at_a_terminal_a_person_looks_fixes_and_retries(project: Project):
    """The environment is the one in which the phase failed; its services' data stay."""
    failing(project)
    text = f"echo trace > made.txt; {CHECK}"
    project.write({"test": text})
    with at_terminal(project, *PAUSED) as terminal:
        before = terminal.modes()
        terminal.wait("[e]nd? ")
        terminal.type("s\r")
        terminal.wait("[cleanroom attacked:test Medium]")
        terminal.wait("$ ")
        assert "trace" in terminal.run("cat made.txt")
        terminal.type("exit 4\r")
        terminal.wait("exit status 4")
        terminal.wait("[e]nd? ")
        assert terminal.modes() == before
        write(project, "good")
        terminal.type("r\r")
        assert terminal.ended() == 0
    assert report(project)["outcome"] == "passed"


def test_a_service_and_its_data_outlive_the_attempt(project: Project):
    """The second attempt counts on."""
    project.write({"test": f"{COUNT}\n{CHECK}"}, containers='["redis"]')
    write(project, "bad")
    done = project.run(*PAUSED)
    assert ":1" in done.stdout, done
    write(project, "good")
    again = project.run("retry")
    assert again.returncode == 0
    assert ":2" in again.stdout


def test_a_shell_in_another_terminal_looks_into_a_paused_run(project: Project):
    """`shell` without a phase finds it; its status is the command's, and the pause goes on."""
    project.write({"test": f"echo trace > made.txt; {CHECK}"})
    write(project, "bad")
    assert project.run(*PAUSED).returncode == 77
    with at_terminal(project, "shell") as terminal:
        terminal.wait("[cleanroom attacked:test Medium]")
        terminal.wait("$ ")
        assert "trace" in terminal.run("cat made.txt")
        terminal.type("exit 6\r")
        assert terminal.ended() == 6
    assert project.run("retry", "--end").returncode == 1


def test_a_shell_in_a_pause_that_ends_meanwhile_says_so(project: Project):
    """It has no status of its own, and the terminal is as before."""
    failing(project)
    assert project.run(*PAUSED).returncode == 77
    with at_terminal(project, "shell") as terminal:
        before = terminal.modes()
        terminal.wait("$ ")
        assert project.run("retry", "--end").returncode == 1
        assert terminal.ended() == 5
        assert "CR-PAUSE-004" in terminal.seen
        assert terminal.modes() == before
    assert project.settled() == {}
