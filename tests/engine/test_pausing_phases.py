"""Phases that pause where they fail, on the memory backend: which, and what a decision does."""

from __future__ import annotations

from typing import Literal

import pytest

from cleanroom.backends.base import Renewed
from cleanroom.backends.memory.workspace import MemoryWorkspace
from cleanroom.engine.supervision.context import PausedPhase
from cleanroom.model.events import Note
from cleanroom.testing import (
    Inside,
    MemoryBackend,
    Outcome,
    Script,
    phase,
    plan,
    run_plan,
    succeed,
)

pytestmark = pytest.mark.looptime


class Decisions:
    """Decides as it was told, in turn."""

    outlives = False

    def __init__(self, *choices: Literal["retry", "end"]) -> None:
        self.left = list(choices)
        self.paused: list[PausedPhase] = []

    async def decide(self, paused: PausedPhase) -> Literal["retry", "end"]:
        self.paused.append(paused)
        return self.left.pop(0)


def failing(times: int) -> MemoryBackend:
    """A backend on which the command `flaky` fails so often, and `steady` never does."""
    left = [times]

    async def flaky(inside: Inside) -> int:
        left[0] -= 1
        return 1 if left[0] >= 0 else 0

    return MemoryBackend(Script(programs={"flaky": flaky}, otherwise=succeed()))


def results(outcome: Outcome) -> list[str]:
    return [found.result for found in outcome.result.phases]


async def test_a_phase_that_is_retried_runs_in_another_environment_and_what_follows_runs():
    """Its result is that of the last attempt, and a note says that there was another."""
    backend, decisions = failing(1), Decisions("retry")
    outcome = await run_plan(
        plan(phase("test", "flaky"), phase("after", "steady")), backend, pauser=decisions
    )
    assert results(outcome) == ["passed", "passed"]
    assert outcome.result.outcome == "passed"
    environments = [name for name, argv in backend.executed if argv[-1] == "flaky"]
    assert len(set(environments)) == 2
    notes = [e.event.text for e in outcome.events if isinstance(e.event, Note)]
    assert any("run again in another environment" in text for text in notes)


async def test_a_phase_that_is_ended_failed():
    """What follows does not run, as without a pause."""
    outcome = await run_plan(
        plan(phase("test", "flaky"), phase("after", "steady")),
        failing(1),
        pauser=Decisions("end"),
    )
    assert results(outcome) == ["failed", "skipped"]
    assert outcome.result.exit_code == 1


async def test_it_pauses_again_as_often_as_it_fails():
    """Each time it says which phase, and why."""
    decisions = Decisions("retry", "retry", "end")
    outcome = await run_plan(plan(phase("test", "flaky")), failing(3), pauser=decisions)
    assert [(paused.phase, paused.reason) for paused in decisions.paused] == [
        ("test", "exit status 1")
    ] * 3
    assert results(outcome) == ["failed"]


async def test_a_phase_that_passes_does_not_pause():
    """Nobody is asked."""
    decisions = Decisions()
    outcome = await run_plan(plan(phase("test", "steady")), failing(0), pauser=decisions)
    assert decisions.paused == []
    assert results(outcome) == ["passed"]


async def test_a_project_that_cannot_be_shown_as_it_is_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
):
    """A copy that all phases share would lose what earlier ones made: it is said, by name."""

    async def renew(workspace: MemoryWorkspace, since_ns: int) -> Renewed:
        return Renewed(possible=False)

    monkeypatch.setattr(MemoryWorkspace, "renew", renew)
    outcome = await run_plan(plan(phase("test", "flaky")), failing(1), pauser=Decisions("retry"))
    assert outcome.result.outcome == "error"
    assert [found.code for found in outcome.result.phases] == ["CR-PAUSE-001"]
