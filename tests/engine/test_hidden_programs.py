"""Claims about programs that are on the machine and not shown to a phase."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cleanroom.engine.phases import hidden_programs
from cleanroom.model.capability import Target
from cleanroom.model.events import Finished
from cleanroom.model.policy import Level, default_policy
from cleanroom.testing import (
    Inside,
    MemoryBackend,
    Script,
    egress_attempt,
    phase,
    plan,
    run_plan,
    succeed,
)


def program(folder: Path, name: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_a_word_of_the_command_that_only_the_callers_path_knows_is_named(tmp_path: Path):
    """What both know is not hidden, and what neither knows is nowhere."""
    away, here = tmp_path / "away", tmp_path / "here"
    found = program(away, "tool")
    program(away, "both")
    program(here, "both")
    assert hidden_programs.hidden_on_path(
        "both && X=1 tool --flag nowhere", str(away), str(here)
    ) == (found,)


@pytest.mark.parametrize(
    ("place", "sign", "expected"),
    [
        ("py/bin", "py/lib", "py"),
        ("py/shims", "py/libexec", "py"),
        ("plain/bin", "plain/src", "plain/bin"),
        (".local/bin", ".local/lib", ".local/bin"),
        ("x", "lib", "x"),
    ],
)
def test_the_folder_that_shows_a_program_is_its_installation_or_its_own(
    tmp_path: Path, place: str, sign: str, expected: str
):
    """An interpreter needs its library beside it; a folder that holds what is private is never
    named.
    """
    path = program(tmp_path / place, "tool")
    (tmp_path / sign).mkdir(parents=True, exist_ok=True)
    assert hidden_programs.shown_by(path) == str(tmp_path / expected)


def test_the_explanation_names_program_level_and_key(tmp_path: Path):
    """Where it is, and the line to paste."""
    said, hint = hidden_programs.explained([program(tmp_path / "bin", "tool")], "High")
    assert f"{tmp_path}/bin/tool" in said
    assert "High" in said
    assert f'`cleanroom.tools = ["{tmp_path}/bin"]`' in hint


@pytest.mark.looptime
async def test_a_phase_that_lacks_a_hidden_program_says_where_it_is(tmp_path: Path):
    """A start that was refused since the level hides the program gives the phase its reason,
    code and the line that helps.
    """
    path = program(tmp_path / "bin", "tool")

    async def lacking(inside: Inside) -> int:
        attempt = egress_attempt("192.0.2.1", 443)
        inside.attempt(
            msgspec.structs.replace(
                attempt,
                dimension="process",
                rule="process.exec",
                target=Target(path=path),
                syscall="execve",
                errno="ENOENT",
            )
        )
        return hidden_programs.NOT_FOUND

    outcome = await run_plan(
        plan(phase("test", "tool", policy=default_policy(Level.HIGH))),
        MemoryBackend(Script(programs={"tool": lacking}, otherwise=succeed())),
    )
    (row,) = outcome.result.phases
    assert (row.result, row.exit_code) == ("failed", 127)
    assert path in row.reason
    assert "cleanroom.tools" in row.reason
    assert any(
        isinstance(e.event, Finished) and e.event.code == "CR-PHASE-009" for e in outcome.events
    )
