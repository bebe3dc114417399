"""What a phase must not do is blocked, reported with process and target, and fails the run;
through the real command.
"""

from __future__ import annotations

import sys

import pytest

from support import sabotage
from support.command_harness import Project

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

CONNECT = (
    "/usr/bin/python3 -c 'import socket; socket.create_connection((\"192.0.2.1\", 443), 2)' || true"
)


def test_a_connection_out_is_blocked_and_reported(project: Project):
    """The phase itself ends well, yet the run does not pass: exit 1, with program and target."""
    project.write({"test": CONNECT})
    answer = project.call("run", "test")
    assert (answer.code, answer.result["outcome"]) == (1, "failed")
    told = answer.violation("network.egress")
    assert told["action"] == "blocked"
    assert "python3" in str(told["process"])
    assert "192.0.2.1:443" in str(told["target"]) or "192.0.2.1" in str(told["target"])
    assert answer.phase("test")["exit_code"] == 0


def test_a_write_outside_is_blocked_and_reported(project: Project):
    """So is a file under /usr."""
    project.write({"test": "touch /usr/made-by-a-test || true"})
    answer = project.call("run", "test")
    assert answer.code == 1
    assert "/usr/made-by-a-test" in str(answer.violation("filesystem.write")["target"])
    assert "touch" in str(answer.violation("filesystem.write")["process"])


def test_an_expected_attempt_is_blocked_and_does_not_fail(project: Project):
    """What is declared as expected is still refused and still reported."""
    project.write({"test": CONNECT}, expected='[{ target = "192.0.2.1:443", reason = "a test" }]')
    answer = project.call("run", "test")
    assert (answer.code, answer.result["outcome"]) == (0, "passed")
    told = answer.violation("network.egress")
    assert (told["action"], told["severity"]) == ("blocked", "tolerated")


def test_a_secret_of_the_home_folder_does_not_exist_inside(project: Project):
    """Neither at the caller's home, nor in the variables;
    the run passes because nothing was found.
    """
    (project.home / ".ssh").mkdir()
    (project.home / ".ssh/id_ed25519").write_text("secret")
    (project.home / ".netrc").write_text("secret")
    look = (
        f"test ! -e {project.home}/.netrc && test ! -e {project.home}/.ssh && test ! -e "
        '$HOME/.netrc && test -z "$PLANTED_TOKEN" && ! env | grep planted-value'
    )
    project.write({"test": look})
    answer = project.call("run", "test")
    assert (answer.code, answer.phase("test")["exit_code"]) == (0, 0), answer.err


def test_every_canary_is_in_the_answer_and_the_ledger_balances(project: Project):
    """A green run names what it proved and that nothing is left."""
    project.write({"test": "true"})
    answer = project.call("run", "test")
    assert answer.code == 0, answer.err
    assert len(answer.result["canaries"]) >= 20
    assert {canary["result"] for canary in answer.result["canaries"]} == {"passed"}
    assert answer.result["ledger"]["left"] == []
    assert answer.result["ledger"]["created"] > 0


def test_a_canary_that_fails_refuses_the_run(project: Project):
    """With held calls switched off nothing runs: exit 3, and the phase has no exit status."""
    project.write({"test": "touch ran"})
    answer = project.call("run", "test", before=sabotage.code(sabotage.held_calls_off))
    assert answer.code == 3, (answer.code, answer.err)
    assert not (project.root / "ran").exists()
    assert all(phase["exit_code"] is None for phase in answer.result["phases"])
