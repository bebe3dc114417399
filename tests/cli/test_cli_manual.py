"""The manual page and the help of every command."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import click
import pytest

from cleanroom.cli.app import app, command_names
from cleanroom.cli.manual import page
from cleanroom.cli.reference import VARIABLES, children
from support.paths import ROOT

FILE = ROOT / "data/share/man/man1/cleanroom-engine.1"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command that can be run, by its whole name."""
    for name, command in command_names().items():
        inner = list(children(command))
        yield from (
            ((f"{name} {child}", found) for child, found in inner) if inner else [(name, command)]
        )


def test_manual_is_up_to_date() -> None:
    """The page that is installed is what the commands say today."""
    assert FILE.read_text() == page()


def test_manual_has_every_command_and_option() -> None:
    """Nothing that can be typed is missing."""
    text = page().replace(r"\-", "-")
    for name, command in commands():
        assert f".SS {name}" in text
        assert all(
            option in text
            for parameter in command.params
            if isinstance(parameter, click.Option)
            for option in parameter.opts
        )


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="no mandoc here")
def test_manual_is_well_formed() -> None:
    """mandoc's lint has nothing to say."""
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "style", FILE], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_command_has_an_example_of_itself() -> None:
    """`--help` of each shows a line to copy, and its line in a list is not cut."""
    for name, command in commands():
        assert f"cleanroom-engine {name}" in (command.help or ""), name
        assert " " not in name or not command.get_short_help_str(limit=60).endswith("..."), name


def test_every_variable_that_is_read_is_told() -> None:
    """What the environment can say is in the manual."""
    read = {
        name
        for file in (ROOT / "src").rglob("*.py")
        for name in re.findall(r'(?:get\(|environ\[)"(CLEANROOM_[A-Z_]+)"', file.read_text())
    }
    assert read <= set(VARIABLES)
    assert app.help
