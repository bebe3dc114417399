"""Claims about which programs a phase at High is shown."""

from __future__ import annotations

from pathlib import Path

from support.project_builder import HEAD, planned

PHASE = '[lifecycle.test]\ncommand = "a"\n'


def caller(tmp_path: Path) -> dict[str, str]:
    """Somebody with a folder of programs on PATH."""
    folder = tmp_path / "away" / "bin"
    folder.mkdir(parents=True)
    return {"PATH": str(folder), "HOME": "/home/nobody"}


def test_a_plan_at_high_lists_none_of_the_callers_programs(tmp_path: Path):
    """The folders of PATH are not shown at High, so the plan does not name them;
    at Medium it does.
    """
    project, who = tmp_path / "p", caller(tmp_path)
    assert planned(project, HEAD + PHASE, caller=who).tools == (who["PATH"],)
    assert planned(project, HEAD + PHASE, caller=who, policy="High").tools == ()


def test_a_phase_below_high_keeps_them(tmp_path: Path):
    """Where one phase of the plan is at Medium the folders are listed, for it."""
    text = HEAD + PHASE + '[lifecycle.other]\ncommand = "b"\ncleanroom.policy = "High"\n'
    who = caller(tmp_path)
    assert planned(tmp_path / "p", text, caller=who).tools == (who["PATH"],)


def test_the_projects_own_virtual_environment_is_a_tool_at_high(tmp_path: Path):
    """It is a folder of programs that the host prepared before the run;
    a link to one elsewhere has to be declared.
    """
    venv = tmp_path / ".venv"
    venv.mkdir()
    (venv / "pyvenv.cfg").touch()
    (tmp_path / "venv").symlink_to(venv)
    assert [phase.tools for phase in planned(tmp_path, HEAD + PHASE, policy="High").phases] == [
        (str(venv),)
    ]
    assert [phase.tools for phase in planned(tmp_path, HEAD + PHASE).phases] == [()]


def test_builds_lets_programs_of_tmp_start_too(tmp_path: Path):
    """Without it neither may; what `tmp_exec` says goes before."""

    def said(settings: str, policy: str = "High") -> tuple[bool, bool]:
        text = f"{HEAD}{PHASE}{settings}"
        (phase,) = planned(tmp_path, text, policy=policy).phases
        return phase.builds, phase.policy.tmp_exec

    assert said("") == (False, False)
    assert said("cleanroom.builds = true") == (True, True)
    assert said("cleanroom.builds = true", "Locked") == (True, True)
    assert said("cleanroom.builds = true\ncleanroom.tmp_exec = false") == (True, False)
