"""Limits act on a phase of the real command, and the answer says which."""

from __future__ import annotations

import os
import sys

import pytest

from cleanroom.sandbox.kernel import cgroups
from support.command_harness import Project

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

GROUPS = bool(cgroups.homes().version) if os.geteuid() == 0 else False


def test_too_much_memory_is_named_as_that(project: Project):
    """RES-03: the phase is killed for memory, which is a violation and not an unexplained 137."""
    project.write(
        {"test": "/usr/bin/python3 -c 'held = []\nwhile True: held.append(bytearray(1 << 20))'"},
        limits='{ memory = "128MiB" }',
    )
    answer = project.call("run", "test")
    assert answer.code == 1
    told = answer.violation("resource.memory")
    # without groups samples find out, and the engine ends the phase
    assert told["action"] == ("killed" if GROUPS else "observed")
    assert "128" in str(told["target"])
    assert answer.phase("test")["result"] == "failed"


def test_too_many_processes_are_refused_and_named(project: Project):
    """RES-01: forks fail at the limit; the run does not pass though the shell goes on."""
    project.write(
        {
            "test": (
                "i=0; while [ $i -lt 100 ]; do sleep 5 & i=$((i+1)); done 2> /dev/null; kill "
                "$(jobs -p) 2> /dev/null; true"
            )
        },
        limits="{ pids = 32 }",
    )
    answer = project.call("run", "test")
    assert answer.code == 1
    if GROUPS:  # else the kernel refuses, and whether it is named depends on when a sample is taken
        assert "32" in str(answer.violation("resource.pids")["target"])


def test_too_much_time_ends_the_whole_tree(project: Project):
    """RES-14: exit 124, and nothing of what was started is left."""
    project.write({"test": "sleep 300 & sleep 300"}, timeout='"300ms"')
    answer = project.call("run", "test")
    assert (answer.code, answer.result["outcome"]) == (124, "timeout")
    assert answer.result["ledger"]["left"] == []


def test_too_large_a_file_is_refused_and_named(project: Project):
    """RES-09: not one byte beyond the limit is written, and it is named."""
    project.write({"test": "head -c 20000000 /dev/zero > large"}, limits='{ disk = "4MiB" }')
    answer = project.call("run", "test")
    assert answer.code == 1
    assert "4 MiB" in str(answer.violation("resource.disk")["target"])
    assert (
        not (project.root / "large").exists() or (project.root / "large").stat().st_size <= 4 << 20
    )
