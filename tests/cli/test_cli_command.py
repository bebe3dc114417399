"""The command from outside, as a process: help, version, usage errors, lost output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cleanroom.cli.app import COMMANDS

BANNED = (
    "asyncio",
    "msgspec",
    "anyio",
    "rich",
    "tomllib",
    "subprocess",
    "ssl",
    "opentelemetry",
    "psutil",
    "importlib.metadata",
    "cleanroom.model.codes.table",
    "tempfile",
)


def call(
    *arguments: str, cwd: Path | None = None, options: tuple[str, ...] = (), shell: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1"}
    command = [sys.executable, *options, "-m", "cleanroom", *arguments]
    if shell:
        line = f"{sys.executable} -m cleanroom {' '.join(arguments)} {shell}"
        return subprocess.run(
            line, shell=True, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
        )
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_cli_help_imports_no_heavy_module() -> None:
    """`--help` and `COMMAND --help` load nothing of the engine's machinery,
    and the whole of `--help` stays under 110 modules.
    """
    for arguments in (["--help"], ["pipeline", "--help"]):
        done = call(*arguments, options=("-X", "importtime"))
        loaded = [
            line.rpartition("|")[2].strip()
            for line in done.stderr.splitlines()
            if line.startswith("import time:")
        ]
        assert not set(BANNED) & set(loaded)
        assert len(loaded) < 110


def test_cli_version_imports_no_click() -> None:
    """`--version` says the version and loads not even click."""
    done = call("--version", options=("-X", "importtime"))
    assert done.stdout.startswith("cleanroom-engine ")
    assert "click" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_cli_help_of_every_command_is_on_stdout(name: str) -> None:
    """Every command of the table exists, and its help exits 0 on standard output with an
    example.
    """
    from click.testing import CliRunner

    from cleanroom.cli.app import app

    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert "cleanroom-engine" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pipelin"], "did you mean pipeline?"),
        (["pipeline"], "PHASE"),
        (["pipeline", "ok", "--no-such-option"], "--no-such-option"),
        (["pipeline", "ok", "--polcy", "Low"], "--policy"),
        (["pipeline", "ok", "--slo", "soonish"], "20s"),
        (["readiness"], "readiness"),
        (["plan", "--root", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_cli_usage_errors_are_coded(arguments: list[str], said: str) -> None:
    """What the command line gets wrong ends with 2, a coded error and a hint,
    without a traceback and with nothing on standard output.
    """
    done = call(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error[CR-CLI-001]: ")
    assert "\nhint: " in done.stderr
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["explain", "CR-NET-003"], ["events", "schema"]]
)
@pytest.mark.parametrize("sink", [">/dev/full", ">&-"])
def test_cli_lost_output_is_never_a_success(arguments: list[str], sink: str) -> None:
    """Where standard output is full or closed the exit status is 5,
    and standard error says why, without a traceback.
    """
    done = call(*arguments, shell=sink)
    assert done.returncode == 5
    assert done.stderr.startswith("error[CR-CLI-002]: standard output")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_cli_a_reader_that_goes_away_is_silent() -> None:
    """`| head -n 1` and `| true` leave no noise on standard error."""
    for arguments in (["events", "schema"], ["--help"], ["--version"]):
        for reader in ("| head -n 1", "| true"):
            assert call(*arguments, shell=reader).stderr == ""


def test_cli_without_standard_error_still_ends_with_its_status() -> None:
    """A closed standard error changes no exit status."""
    assert call("explain", "CR-NOPE-999", shell="2>&-").returncode == 2


def test_cli_explain_unknown_code_names_near_ones() -> None:
    """An unknown code is a usage error that names codes like it."""
    done = call("explain", "CR-NET-03")
    assert done.returncode == 2
    assert "CR-NET-003" in done.stderr


def test_cli_explain_tells_cause_and_help() -> None:
    """`explain` of the code that the design names tells how to see who tried and how to declare the
    connection.
    """
    done = call("explain", "cr-net-003")
    assert done.returncode == 0
    assert "egress" in done.stdout
    assert "expected" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["audit", "verify"], ["audit", "show"], ["events", "show"], ["events", "replay"], ["report"]],
)
def test_cli_nothing_recorded_is_unverified(arguments: list[str], tmp_path: Path) -> None:
    """Commands that read what runs left end with 4 where no run has been, and write nothing."""
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr.startswith("error[CR-CLI-005]: ")
    assert list(tmp_path.iterdir()) == []


def test_cli_finds_the_project_upwards_and_names_it(tmp_path: Path) -> None:
    """From a subfolder a command reads the project above it and says which; `-q` and `--root` say
    nothing, and `init` makes a project where it is called.
    """
    make = tmp_path / "make.toml"
    make.write_text('[lifecycle.test]\ncommand = "true"\n')
    below = tmp_path / "src" / "deep"
    below.mkdir(parents=True)

    done = call("plan", "--output", "json", cwd=below)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["root"] == str(tmp_path)
    assert done.stderr == f"project: {make}\n"
    assert call("plan", cwd=tmp_path).stderr == ""
    assert "project:" not in call("plan", "--root", "../..", cwd=below).stderr

    quiet = call("run", "nothing", "-q", cwd=below)
    assert "expected a phase" in quiet.stderr or "nothing" in quiet.stderr
    assert "project:" not in quiet.stderr

    assert call("init", cwd=below).returncode == 0
    assert (below / "make.toml").exists()
