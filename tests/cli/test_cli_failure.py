"""How exceptions become messages and exit statuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.cli.views.failure import Stopped, coded, explain
from cleanroom.model.errors import ArtifactError, CleanroomError, Exit, PolicyRefused, ProjectError


def test_cli_failure_names_the_place_first() -> None:
    """A file's error begins with the code and the position,
    and ends with the line that explains it.
    """
    error = ProjectError(
        "CR-PLAN-001",
        "lifecycle.test.command: expected text, found 5",
        hint="quote it",
        where="make.toml:4:11",
    )
    assert explain(error).text.splitlines() == [
        "error[CR-PLAN-001]: make.toml:4:11: lifecycle.test.command: expected text, found 5",
        "hint: quote it",
        "explain: cleanroom-engine explain CR-PLAN-001",
    ]


def test_cli_failure_hint_of_many_lines_can_be_pasted() -> None:
    """It begins once, and what follows are lines of a shell without a word of ours before them."""
    lines = coded("CR-X-001", "no", "on Debian:\napt-get update\ndockerd &\ntrue").splitlines()
    assert lines[1:-1] == ["hint: on Debian:", "  apt-get update", "  dockerd &", "  true"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), 130),
        (Stopped(Exit.TERMINATED), 143),
        (RecursionError(), 2),
        (MemoryError(), 2),
        (PolicyRefused("CR-X-001", "no"), 3),
        (ValueError("surprise"), 5),
        (
            BaseExceptionGroup(
                "g",
                [
                    ValueError(),
                    ExceptionGroup(
                        "h", [ProjectError("CR-X-001", "no"), ArtifactError("CR-X-002", "no")]
                    ),
                ],
            ),
            5,
        ),
        (BaseExceptionGroup("g", [ProjectError("CR-X-001", "no"), KeyboardInterrupt()]), 130),
    ],
)
def test_cli_failure_statuses(error: BaseException, status: int) -> None:
    """Each kind of exception, also inside groups, ends with its documented status."""
    assert explain(error).status == status


def test_cli_failure_unforeseen_error_hints_at_debug() -> None:
    """An error that nobody foresaw has a code, and its hint is --debug instead of a traceback."""
    text = explain(ValueError("surprise")).text
    assert text.startswith("error[CR-ENGINE-000]: ValueError: surprise\n")
    assert "--debug" in text


@given(st.text(), st.text())
def test_cli_failure_messages_cannot_forge_lines(message: str, hint: str) -> None:
    """Whatever a message or hint holds, exactly one line begins as an error,
    and the last line explains it.
    """
    lines = coded("CR-X-001", message, hint).rstrip("\n").split("\n")
    assert [line for line in lines if line.startswith("error[")] == lines[:1]
    assert lines[-1] == "explain: cleanroom-engine explain CR-X-001"
    assert [line for line in lines if line.startswith("explain: ")] == lines[-1:]


def test_cli_failure_exit_of_a_group_follows_the_order() -> None:
    """Of several errors of ours the one that the exit order puts first decides."""
    group = ExceptionGroup(
        "g", [ProjectError("CR-X-001", "file"), CleanroomError("CR-X-002", "engine")]
    )
    assert "CR-X-002" in explain(group).text
