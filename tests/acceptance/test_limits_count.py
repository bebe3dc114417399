"""A limit counts the same wherever it acts and whoever finds it:
control group, rlimit or sampler; of a phase or a service; in each tier.
"""

from __future__ import annotations

import sys

import pytest

from support import sabotage
from support.command_harness import Project, write_memory_hog

pytestmark = [
    pytest.mark.lower,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

# Without groups, limits are the kernel's rlimits, and what samples find.
BOTH_WAYS = pytest.mark.parametrize(
    "before", ["", sabotage.code(sabotage.no_control_groups)], ids=["as it is", "without groups"]
)


@BOTH_WAYS
def test_a_service_killed_for_its_memory_is_held_against_the_run(project: Project, before: str):
    """RES-03 of a service: it is restarted each time and every phase passes,
    and the run does not, whoever found the limit.
    """
    write_memory_hog(project, "test")
    answer = project.call("run", "test", before=before)
    assert answer.phase("test")["result"] == "passed", answer.err
    assert answer.result["services"][0]["restarts"] == 3
    assert (
        sum(row["count"] for row in answer.result["violations"] if row["rule"] == "resource.memory")
        == 3
    )
    assert (answer.code, answer.result["outcome"]) == (1, "failed")
    assert "3 violations" in answer.result["reason"]


@BOTH_WAYS
@pytest.mark.parametrize(
    ("command", "limit", "rule"),
    [
        ("(head -c 20000000 /dev/zero > large); true", 'disk = "4MiB"', "resource.disk"),
        (
            "for i in 1 2 3; do head -c 2000000 /dev/zero > f$i; done",
            'disk = "4MiB"',
            "resource.disk",
        ),
        (
            "/usr/bin/python3 -c 'held = []\nwhile True: held.append(bytearray(1 << 20))'; true",
            'memory = "64MiB"',
            "resource.memory",
        ),
    ],
    ids=["one file", "many files", "memory"],
)
def test_a_limit_that_acted_on_a_silent_child_is_no_pass(
    project: Project, before: str, command: str, limit: str, rule: str
):
    """A shell that goes on and ends with 0 after its child came to a limit passes nothing,
    and the reason names a limit or an attempt.
    """
    project.write({"test": command}, limits=f"{{ {limit} }}")
    answer = project.call("run", "test", before=before)
    assert (answer.code, answer.phase("test")["result"]) == (1, "failed")
    assert answer.violation(rule)
    assert answer.phase("test")["reason"]
    assert not list(project.root.glob("f[123]")) + list(project.root.glob("large"))
