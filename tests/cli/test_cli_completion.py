"""Completion as the shells ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom.cli.commands.completion import VARIABLE, script

MAKE = (
    '[lifecycle.test]\ncommand = "true"\n[lifecycle.tidy]\ncommand = "true"\n[lifecycle.build]\n'
    'command = "true"\n'
)
SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project beside a folder of programs with the command in it."""
    program = tmp_path / "bin" / "cleanroom-engine"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cleanroom "$@"\n')
    program.chmod(0o755)
    (tmp_path / "make.toml").write_text(MAKE)
    for shell in SHELLS:
        (tmp_path / f"completion.{shell}").write_text(script(shell))
    return tmp_path


def ask(project: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{project / 'bin'}:{os.environ['PATH']}", **variables}
    return subprocess.run(
        command,
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def bash(project: Path, *words: str) -> list[str]:
    """What COMPREPLY holds after TAB at the end of these words."""
    code = f"""
        source completion.bash
        COMP_WORDS=({" ".join(f'"{word}"' for word in words)})
        COMP_CWORD={len(words) - 1}
        _cleanroom_engine_completion cleanroom-engine
        printf '%s\\n' "${{COMPREPLY[@]}}"
        complete -p cleanroom-engine >&2
    """
    done = ask(project, "bash", "--norc", "-c", code)
    assert "-F _cleanroom_engine_completion" in done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_completion_in_bash(project: Path) -> None:
    """Bash completes commands, subcommands, options, their values, the project's phases,
    and codes.
    """
    assert bash(project, "cleanroom-engine", "pi") == ["pipeline"]
    assert bash(project, "cleanroom-engine", "config", "s") == ["show"]
    assert "--policy" in bash(project, "cleanroom-engine", "pipeline", "--po")
    assert bash(project, "cleanroom-engine", "run", "--policy", "H") == ["High"]
    assert bash(project, "cleanroom-engine", "pipeline", "t") == ["test", "tidy"]
    assert bash(project, "cleanroom-engine", "explain", "cr-net-00")[0] == "CR-NET-003"


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_completion_in_fish(project: Path) -> None:
    """Fish completes commands and the project's phases."""
    for line, expected in (("pipel", "pipeline"), ("run te", "test")):
        done = ask(
            project,
            "fish",
            "--no-config",
            "-c",
            f"source completion.fish; complete -C 'cleanroom-engine {line}'",
        )
        assert done.stdout.split()[0] == expected, done.stderr


ZSH = """
zmodload zsh/zpty
zpty shell 'PS1=%% zsh -f -i'
zpty -w shell 'cd $PWD; autoload -Uz compinit && compinit -u -D; source completion.zsh; stty -echo; print rea"dy"'
zpty -r -m shell seen '*ready*'
zpty -w -n shell $'cleanroom-engine pipeline bui\\t'
zpty -r -m shell seen '*build*' && print -r -- found
zpty -d shell
"""  # noqa: E501


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_completion_in_zsh(project: Path) -> None:
    """In an interactive zsh, TAB completes the project's phase."""
    assert ask(project, "zsh", "-f", "-c", ZSH).stdout.split() == ["found"]


def test_completion_of_a_project_that_cannot_be_read_is_silent(project: Path) -> None:
    """Where make.toml is broken, completing a phase prints nothing and no error."""
    (project / "make.toml").write_text("[lifecycle\n")
    done = ask(
        project,
        "cleanroom-engine",
        **{VARIABLE: "bash_complete", "COMP_WORDS": "cleanroom-engine run t", "COMP_CWORD": "2"},
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_prints_the_script_without_starting_a_shell(shell: str, tmp_path: Path) -> None:
    """The command prints what `script` has, also where no shell is on PATH."""
    done = subprocess.run(
        [sys.executable, "-m", "cleanroom", "completion", shell],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == script(shell).strip()
