"""Primitives switched off one by one: Medium is held in another way,
or the run is refused by the name of the rule.

Never a traceback, a hang or a left-over.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.tiers_harness import engine

pytestmark = [
    pytest.mark.lower,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
]

PROJECT = """
[project]
name = "small"
[cleanroom]
allow_degraded = ["filesystem.secrets", "filesystem.write", "process.visibility"]
[lifecycle.test]
command = "echo made > made; test $(id -u) != 0"
"""
HELD = (
    "namespaces",
    "mount_setattr",
    "unshare",
    "namespaces,close_range",
    "namespaces,memfd_create",
)
# A rule that has to be named; where namespaces cannot be made anyway it is that of the row with
# `namespaces`.
REFUSED = {
    "landlock": "filesystem.write",
    "namespaces,landlock": "filesystem.write",
    "pidfd_open": "process.tree",
    "namespaces,pidfd_open": "process.tree",
    "namespaces,pidfd_send_signal": "process.tree",
    "seccomp": "network.names",
    "namespaces,seccomp": "filesystem.metadata",
    "openat2": "filesystem.write",
    "namespaces,openat2": "filesystem.metadata",
}
LET_GO = [
    word
    for rule in ("filesystem.secrets", "filesystem.write", "process.visibility")
    for word in ("--allow-degraded", rule)
]


@pytest.fixture
def small(project: Path) -> Path:
    (project / "make.toml").write_text(PROJECT)
    return project


@pytest.mark.parametrize("names", HELD)
def test_medium_is_held_without_these(small: Path, tmp_path: Path, names: str):
    """The run passes in tier E3, every canary was stopped, and nothing is left."""
    status, result, said = engine(names, "pipeline", "test", cwd=small, cache=tmp_path / "cache")
    assert (status, result["tier"], result["degraded"]) == (0, "E3", []), said
    assert {canary["result"] for canary in result["canaries"]} == {"passed"}
    assert result["ledger"]["left"] == []
    assert (small / "made").read_text() == "made\n"


@pytest.mark.parametrize("names", REFUSED)
def test_a_run_is_refused_by_name_without_these(small: Path, tmp_path: Path, names: str):
    """Exit 3, and the rule that cannot be held is named; nothing was run."""
    status, result, said = engine(names, "pipeline", "test", cwd=small, cache=tmp_path / "cache")
    assert status == 3, said
    refusal = next(line for line in said.splitlines() if line.startswith("error[CR-POLICY-004]"))
    assert any(
        rule in refusal
        for rule in {REFUSED[names], REFUSED.get(f"namespaces,{names}", REFUSED[names])}
    ), refusal
    assert result["ledger"]["left"] == []
    assert not (small / "made").exists()


@pytest.mark.parametrize("names", ["landlock", "namespaces,landlock"])
def test_without_landlock_a_run_goes_when_file_and_command_line_let_go(
    small: Path, tmp_path: Path, names: str
):
    """It passes in tier E4 and names what was let go; canaries of those rules may fail and are
    shown, all others passed.
    """
    status, result, said = engine(
        names, "pipeline", "test", *LET_GO, cwd=small, cache=tmp_path / "cache"
    )
    assert (status, result["tier"]) == (0, "E4"), said
    assert "filesystem.write" in result["degraded"]
    assert {canary["rule"] for canary in result["canaries"] if canary["result"] != "passed"} <= set(
        result["degraded"]
    )
    assert result["ledger"]["left"] == []
