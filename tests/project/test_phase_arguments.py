"""Arguments of `run PHASE -- ARGUMENT...`: where they go, and that a shell takes none apart."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cleanroom.model.errors import UsageError
from cleanroom.model.plan import PhaseRun
from cleanroom.model.policy import Level, default_policy
from cleanroom.project import load
from cleanroom.project.arguments import with_arguments

HOSTILE = ("$(id)", "a b", "'", '"; false #', "*", "-n", "", "`id`", "\\", "new\nline")


def phase(*commands: str) -> PhaseRun:
    policy = default_policy(Level.MEDIUM)
    return PhaseRun(name="test", commands=commands, policy=policy, timeout_seconds=600.0)


def printed(command: str) -> list[str]:
    """The words of a command that prints each with a NUL behind it."""
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize(
    "command",
    ["printf '%s\\0'", "printf '%s\\0' \"$@\"", 'for i in "$@"; do printf "%s\\0" "$i"; done'],
)
def test_arguments_stay_the_words_that_they_are(command: str) -> None:
    """A shell gives the command each argument as it was written, appended or as `"$@"`."""
    (made,) = with_arguments(phase(command), HOSTILE)
    assert printed(made) == list(HOSTILE)


@given(some.lists(some.text(some.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_arguments_are_quoted_whatever_they_contain(words: list[str]) -> None:
    """Whatever the words are, a shell reads the same words again."""
    (made,) = with_arguments(phase("tool"), words)
    assert shlex.split(made) == ["tool", *words]


def test_arguments_follow_the_last_command() -> None:
    """Earlier commands get none, and what ends in a new line is one command still."""
    assert with_arguments(phase("make", "pytest -q\n"), ["-x"]) == ("make", "pytest -q -x")
    assert with_arguments(phase("awk '{print $1}'"), ["file"]) == ("awk '{print $1}' file",)
    assert with_arguments(phase("make"), []) == ("make",)


@pytest.mark.parametrize(
    "command",
    [
        "",
        "make # all",
        "cat <<E\nE",
        "(make)",
        "make &",
        "if true; then make; fi",
        "make |",
        "a \\",
    ],
)
def test_arguments_are_refused_where_they_would_be_lost(command: str) -> None:
    """After a comment, a here-document or a compound command a word is no argument."""
    with pytest.raises(UsageError, match="that arguments can follow") as caught:
        with_arguments(phase(command), ["-x"])
    assert '"$@"' in caught.value.hint


def test_arguments_are_for_the_phase_that_was_asked_for(tmp_path: Path) -> None:
    """Hooks and prerequisites keep their commands."""
    (tmp_path / "make.toml").write_text(
        "[lifecycle.init]\ncommand = 'init'\n[lifecycle.lint]\ncommand = 'lint'\n"
        "[lifecycle.test]\ncommand = 'test'\ndepends_on = ['init']\n"
        "[hooks]\nbefore_test = ['lint']\n"
    )
    plan = load(tmp_path, ("test",), caller={}, single=True, arguments=("-k", "a b"))

    assert [found.commands for found in plan.phases] == [("init",), ("lint",), ("test -k 'a b'",)]
