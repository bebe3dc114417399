"""`shell` at a real terminal: the environment of a phase, a prompt, job control, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.command_harness import Project, command, descendants
from support.terminal_command import TerminalCommand, at_terminal, without_terminal
from support.tiers_harness import wait_until

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

PROMPT = "[cleanroom attacked:test Medium]"
WORDS = ("shell", "test", "--backend", "embedded")


def opened(terminal: TerminalCommand) -> None:
    terminal.wait(PROMPT)
    terminal.wait("$ ")


def is_in_foreground(run: subprocess.Popen[bytes], words: str) -> bool:
    """Whether a job below the run has the terminal, and is not stopped."""
    for pid in descendants(run.pid):
        if words in command(pid):
            # proc_pid_stat(5): state, ppid, pgrp, session, tty_nr, tpgid
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return fields[0] == "S" and fields[2] == fields[5]
    return False


def result_of(project: Project) -> dict[str, Any]:
    (folder,) = (project.root / ".ggen/cleanroom/runs").iterdir()
    (path,) = (folder / "reports").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_a_shell_has_the_phases_environment_and_its_status_is_the_commands(project: Project):
    """The prerequisite ran, the variables are the phase's, all canaries were stopped; nothing
    comes back, what changed is listed, and no phase counts as passed.
    """
    project.write({"build": "echo made > made.txt", "test": "exit 1"})
    text = (project.root / "make.toml").read_text()
    text = text.replace("[lifecycle.test]", '[lifecycle.test]\nneeds = ["build"]')
    (project.root / "make.toml").write_text(text)
    with at_terminal(project, *WORDS) as terminal:
        opened(terminal)
        assert "here 42\r\n" in terminal.run("echo here $((6*7)); echo x > new.txt")
        assert "Medium" in terminal.run("echo $CLEANROOM_POLICY $TERM; env | grep -c CLEANROOM")
        terminal.run("cat < /dev/tcp/203.0.113.7/80")
        terminal.type("exit 7\r")
        assert terminal.ended() == 7
        end = terminal.seen
    assert "ended with exit status 7" in end
    assert "file new.txt" in end
    assert "203.0.113.7:80 [network.egress]" in end
    assert not (project.root / "new.txt").exists()
    result = result_of(project)
    assert result["exit_code"] == 4
    assert [phase["code"] for phase in result["phases"]][-1] == "CR-SHELL-003"
    assert {canary["result"] for canary in result["canaries"]} == {"passed"}
    assert not list((project.root / ".ggen").glob("*state*"))
    assert project.settled() == {}


def test_a_shell_has_job_control_and_the_terminals_size(project: Project):
    """Ctrl-Z stops a job and Ctrl-C ends it, as outside; a new size arrives; Ctrl-D is the end."""
    project.write({"test": "true"})
    with at_terminal(project, *WORDS) as terminal:
        before = terminal.modes()
        opened(terminal)
        assert "30 100" in terminal.run("stty size")
        terminal.resize(41, 77)
        assert "41 77" in terminal.run("sleep 0.2; stty size")
        terminal.type("sleep 1000\r")
        terminal.wait("sleep 1000")
        project.wait_running(terminal.process, "sleep 1000")
        terminal.type("\x1a")
        terminal.wait("Stopped")
        terminal.run("fg", end="sleep 1000\r\n")
        # The shell says so first, and gives the terminal and goes on with the job afterwards.
        assert wait_until(lambda: is_in_foreground(terminal.process, "sleep 1000"))
        terminal.type("\x03")
        terminal.wait("$ ")
        assert "130" in terminal.run("echo $?")
        terminal.type("\x04")
        assert terminal.ended() == 0
        assert terminal.modes() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_shell_that_is_killed_leaves_nothing_and_gives_the_terminal_back(
    project: Project, number: signal.Signals
):
    """Its processes end with the engine, and the modes of the terminal are as before."""
    project.write({"test": "true"})
    with at_terminal(project, *WORDS) as terminal:
        before = terminal.modes()
        opened(terminal)
        terminal.type("sleep 1000\r")
        project.wait_running(terminal.process, "sleep 1000")
        assert terminal.modes() != before
        os.kill(terminal.process.pid, number)
        assert terminal.ended() == (-number if number == signal.SIGKILL else 143)
        assert project.settled() == {}
        assert terminal.modes() == before


@pytest.mark.parametrize("paused", [False, True])
def test_a_shell_ends_with_its_terminal_also_where_no_signal_says_so(
    project: Project, paused: bool
):
    """After `trap '' HUP` a closed window is only the end of what is typed: else the shell, its
    environment and its services would stay for a day, or a pause beyond its time.
    """
    project.write({"test": "false"})
    words = WORDS
    if paused:
        assert project.run("run", *WORDS[1:], "--pause").returncode == 77
        words = ("shell",)
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    with at_terminal(project, *words, before=ignored) as terminal:
        opened(terminal)
        terminal.hang_up()
        terminal.process.wait(timeout=30)
    if paused:
        assert project.run("retry", "--end").returncode == 1
    assert project.settled() == {}


def test_what_runs_in_a_shell_cannot_type_into_the_callers_terminal(project: Project):
    """Its terminal is its own: what it puts into its input (TIOCSTI) stays there."""
    code = "import fcntl, termios; [fcntl.ioctl(0, termios.TIOCSTI, bytes([c])) for c in b'id']"
    (project.root / "inject.py").write_text(code)
    project.write({"test": "true"})
    with at_terminal(project, *WORDS) as terminal:
        opened(terminal)
        terminal.run("/usr/bin/python3 inject.py; exit 3", end="exit status 3")
        assert terminal.ended() == 3
        os.set_blocking(terminal.theirs, False)
        with pytest.raises(BlockingIOError):
            os.read(terminal.theirs, 100)


def test_without_a_terminal_a_shell_is_refused(project: Project):
    """A script at standard input proves nothing: it is refused by name and nothing is made."""
    project.write({"test": "true"})
    done = without_terminal(project, *WORDS)
    assert done.returncode == 2
    assert "CR-SHELL-001" in done.stderr
    assert not Path(project.root / ".ggen").exists()


def test_a_phase_on_the_host_has_no_environment_for_a_shell(project: Project):
    """Its shell would be the caller's own."""
    project.write({"test": "true"}, enabled="false")
    with at_terminal(project, *WORDS) as terminal:
        assert terminal.ended() == 2
        assert "CR-SHELL-002" in terminal.seen
