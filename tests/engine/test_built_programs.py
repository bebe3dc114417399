"""Claims about programs that a phase built and may not start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cleanroom.engine.phases import built_programs
from cleanroom.model.capability import Target
from cleanroom.model.events import Finished
from cleanroom.model.plan import PhaseRun
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

BUILDS = "`cleanroom.builds = true`"


def high(**settings: object) -> PhaseRun:
    return phase("test", "tool", policy=default_policy(Level.HIGH), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("program", ["/tmp/go-build1/x.test", "/work/p/target/debug/x"])
def test_one_line_is_missing_where_the_folder_is_declared(program: str):
    """The folder for temporary files needs no declaration, an output has one."""
    reason, hint = built_programs.explained([program], "/work/p", high(outputs=("target/",)))
    assert reason == f"{program} was built by the phase, and at High is not started"
    assert hint == f"{BUILDS} lets it run"


def test_the_folder_is_named_where_it_is_no_output():
    """What came back without outputs still does, and what is declared stays."""
    program = "/work/p/target/debug/x"
    hint = built_programs.explained([program], "/work/p", high())[1]
    assert hint == f'{BUILDS} and `cleanroom.outputs = [".", "target/"]` lets it run'
    declared = high(outputs=("dist/",), builds=True)
    hint = built_programs.explained([program], "/work/p", declared)[1]
    assert hint == '`cleanroom.outputs = ["dist/", "target/"]` lets it run'


def test_a_name_that_a_phase_made_adds_no_line():
    """Neither the program's nor its folder's."""
    program = "/work/p/ta\nrget/x\n::error::y"
    said = " ".join(built_programs.explained([program], "/work/p", high()))
    assert "::error::" in said
    assert "\n" not in said


def test_what_the_phase_did_not_build_is_not_explained(tmp_path: Path):
    """A program of the project that the host has, one directly in it, and one elsewhere."""
    script = tmp_path / "scripts" / "run"
    script.parent.mkdir()
    script.touch()
    programs = [str(script), str(tmp_path / "run"), "/home/cleanroom/x"]
    assert built_programs.explained(programs, str(tmp_path), high()) == ("", "")


def test_a_project_below_the_hosts_tmp_is_no_temporary_folder():
    """Its path there does not make its programs temporary files."""
    hint = built_programs.explained(["/tmp/p/made/x"], "/tmp/p", high(builds=True))[1]
    assert "outputs" in hint


async def test_a_phase_whose_program_was_refused_says_the_line():
    """The phase's reason and code, whatever status its tool made of the refusal."""

    async def refused(inside: Inside) -> int:
        inside.attempt(
            msgspec.structs.replace(
                egress_attempt("192.0.2.1", 443),
                dimension="process",
                rule="process.exec",
                target=Target(path="/tmp/go-build1/x.test"),
                syscall="execve",
                errno="EACCES",
            )
        )
        return 1

    backend = MemoryBackend(Script(programs={"tool": refused}, otherwise=succeed()))
    outcome = await run_plan(plan(high()), backend)
    (row,) = outcome.result.phases
    assert (row.result, row.exit_code) == ("failed", 1)
    assert BUILDS in row.reason
    assert "CR-PHASE-011" in [e.event.code for e in outcome.events if isinstance(e.event, Finished)]
