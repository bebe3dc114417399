"""What a shell is in the place of a phase: the plan, its variables, its verdict. Values."""

from __future__ import annotations

import pytest

from cleanroom.engine.phases.interactive import (
    SHELL,
    SHELL_RAN,
    shell_plan,
    shell_variables,
    shell_verdict,
)
from cleanroom.engine.phases.verdict import Verdict
from cleanroom.model.errors import UsageError
from cleanroom.testing import phase, plan


def test_a_shell_takes_the_place_of_the_phases_commands_and_nothing_follows_it():
    """What runs before the phase stays, hooks after it do not, and nothing comes back."""
    before, after = phase("lint", role="hook", of="test"), phase("notify", role="hook", of="test")
    whole = plan(before, phase("test", "pytest", cache_inputs=("src",)), after)
    made = shell_plan(whole, "test")
    assert made.dry_run
    assert [found.name for found in made.phases] == ["lint", "test"]
    assert made.phases[0] == before
    assert made.phases[1].commands == (SHELL,)
    assert made.phases[1].cache_inputs == ()


def test_a_phase_without_commands_has_an_environment_for_a_shell():
    """Neither no command nor an interpreter with nothing to do is in its way."""
    made = shell_plan(plan(phase("test", idle="bash")), "test")
    assert made.phases[0].runs_commands
    assert made.phases[0].idle == ""


def test_a_phase_on_the_host_is_refused():
    """It has no environment."""
    with pytest.raises(UsageError, match="runs on the host"):
        shell_plan(plan(phase("test", hermetic=False)), "test")


def test_a_prompt_starts_nothing_whatever_the_project_is_called():
    """A shell expands its prompt: of names it has letters, digits and three signs."""
    named = phase("a`id`", "true")
    variables = shell_variables(plan(named, project="x$(id)\\w"), named, {"TERM": "xterm"})
    assert variables["PS1"] == "[cleanroom x??id??w:a?id? Medium] $PWD \\$ "
    assert variables["TERM"] == "xterm"


@pytest.mark.parametrize("value", ["", "/etc/x", "../x", "x\x1b[0m", "x" * 80])
def test_a_terminal_that_is_no_name_does_not_enter(value: str):
    """Libraries look for a file of that name."""
    named = phase("test", "true")
    assert "TERM" not in shell_variables(plan(named), named, {"TERM": value})


@pytest.mark.parametrize("status", [0, 1, 130])
def test_a_shell_is_no_pass_whatever_its_status(status: int):
    """A failure that it ends with is none of the phase either."""
    judged = Verdict("passed" if not status else "failed", status)
    assert shell_verdict(judged)[:2] == ("unverified", status)
    assert shell_verdict(judged).code == SHELL_RAN


def test_a_shell_that_was_ended_says_so():
    """For its memory, for instance."""
    ended = Verdict("failed", 137, "killed for its memory limit", "CR-PHASE-004")
    assert shell_verdict(ended) == ended
