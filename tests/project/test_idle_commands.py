"""A command that gives an interpreter nothing to do is told apart from one that does something."""

from __future__ import annotations

import pytest

from cleanroom.project.idle import idle_interpreter

IDLE = (
    *(
        "sh",
        "bash",
        "dash",
        "zsh",
        "/bin/bash",
        "python",
        "python3",
        "python3.12",
        "node",
        "ruby",
        "perl",
    ),
    *("bash -l", "bash -i", "bash --login --norc", "bash -eu", "bash -o pipefail", "sh -", "sh -s"),
    *(
        "python3 -i",
        "python3 -u",
        "python3 -X dev",
        "python -W error -",
        "node -i",
        "node --interactive",
    ),
    *("exec bash", "env A=1 bash", "A=1 B=2 python3", "  bash  ", "bash; bash", "timeout 5 bash"),
)
BUSY = (
    *(
        "bash tests/run.sh",
        "bash -c true",
        "bash -lc 'make test'",
        "bash -ec ls",
        "sh < script",
        "ls | sh",
    ),
    *(
        "sh <<'E'\ntrue\nE",
        "python3 -m pytest",
        "python3 -c 1",
        "python3 setup.py",
        "python3 --version",
    ),
    *(
        "python3 -V",
        "node app.js",
        "node -e 1",
        "node --test",
        "node --version",
        "perl -v",
        "bash --version",
    ),
    *(
        "true",
        ":",
        "make test",
        "cat",
        "cd build",
        "bash && make",
        "make; bash",
        "sh run",
        "bashful",
        "",
    ),
    *("bash 'unclosed", "$SHELL", "python3 -X importtime app.py"),
)


@pytest.mark.parametrize("command", IDLE)
def test_an_interpreter_with_nothing_to_do_is_idle(command):
    """No script, no text, no input: whatever its options are."""
    assert idle_interpreter([command]) == command.strip()


@pytest.mark.parametrize("command", BUSY)
def test_a_command_that_does_something_is_not_idle(command):
    """A script, `-c`, an argument, something at its input, or another program."""
    assert idle_interpreter([command]) == ""


def test_a_phase_is_idle_only_when_all_its_commands_are():
    """One command that does something makes the phase tell something."""
    assert idle_interpreter(["bash", "python3"]) == "bash"
    assert idle_interpreter(["bash", "make test"]) == ""
    assert idle_interpreter([]) == ""
