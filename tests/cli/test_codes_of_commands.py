"""Each code of a command is made to happen by that command."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

import cleanroom
from cleanroom.cli.app import execute
from cleanroom.core.beneath import Folder
from cleanroom.core.locks import locked
from cleanroom.evidence.audit.log import LOCK_NAME
from support.ordinary_user import ORDINARY, readable_python

MAKE = """
[project]
name = "x"
[lifecycle.test]
command = "true"
[lifecycle.host]
command = "true"
cleanroom.enabled = false
cleanroom.containers = ["thing"]
[cleanroom.services.thing]
command = "sleep 60"
port = 9000
ready = { tcp = 9000 }
"""
GENERIC = MAKE.replace("cleanroom.enabled = false", "")
RUN = ".ggen/cleanroom/runs/20260101-000000-aaaaa"
MEMORY = ["--backend", "memory"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "make.toml").write_text(MAKE)
    monkeypatch.chdir(root)
    monkeypatch.setenv("CLEANROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_COLOR", "1")
    return root


def placed(project: Path, name: str, text: str) -> None:
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text(text)


# Code -> files that are there, the command, its exit status.
COMMANDS = {
    "CR-CLI-004": ({}, ["explain", "CR-NOTHING-000"], 2),
    "CR-CONTAINER-010": ({}, ["image", "build", "nothing-like-it"], 2),
    "CR-HISTORY-001": ({}, ["trace", "nothing-like-it"], 2),
    "CR-HISTORY-003": ({f"{RUN}/events.jsonl": "no event\n{}\n"}, ["events", "show"], 2),
    "CR-INIT-001": ({}, ["init"], 2),
    "CR-PHASE-008": ({}, ["run", "host", *MEMORY], 0),
    "CR-SESSION-007": ({"make.toml": GENERIC}, ["pool", "start"], 2),
    "CR-STATE-001": ({".ggen/state.json": "no JSON"}, ["run", "host", *MEMORY], 2),
    "CR-STATE-003": ({".ggen/cleanroom/runs": "a file"}, ["run", "host", *MEMORY], 2),
    "CR-TRACE-001": (
        {f"{RUN}/events.jsonl": "", f"{RUN}/trace.otlp.json": "no trace"},
        ["trace"],
        2,
    ),
}


@pytest.mark.parametrize("code", COMMANDS)
def test_a_command_says_its_code(code: str, project: Path, capsys: pytest.CaptureFixture[str]):
    """On standard error or in the notes of its run, with the status that fits."""
    files, command, status = COMMANDS[code]
    for name, text in files.items():
        placed(project, name, text)

    ended = execute(command)

    said = capsys.readouterr()
    assert code in said.out + said.err
    assert ended == status


@pytest.mark.sandbox
def test_a_cache_inside_the_project_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A layer cannot lie in what it is a layer of."""
    monkeypatch.setenv("CLEANROOM_CACHE", str(project / "cache"))

    assert execute(["run", "test", "--backend", "embedded"]) == 3
    assert "error[CR-SANDBOX-003]" in capsys.readouterr().err


@pytest.mark.sandbox
def test_a_cache_where_nothing_can_be_made_cannot_be_used(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The path and what helps are said."""
    monkeypatch.setenv("CLEANROOM_CACHE", "/proc/nothing-can-be-made-here")

    assert execute(["run", "test", "--backend", "embedded"]) == 5
    assert "error[CR-SANDBOX-009]" in capsys.readouterr().err


@pytest.mark.sandbox
def test_what_cannot_be_brought_back_is_said(project: Path, capsys: pytest.CaptureFixture[str]):
    """A pipe stays where it was made, and a note names it."""
    placed(project, "make.toml", '[lifecycle.test]\ncommand = "mkfifo pipe"\n')

    assert execute(["run", "test", "--backend", "embedded"]) == 0
    assert "CR-WORKSPACE-002" in capsys.readouterr().err
    assert not os.path.lexists("pipe")


@pytest.mark.sandbox
def test_a_name_of_a_file_that_parts_from_its_others_is_said(
    project: Path, capsys: pytest.CaptureFixture[str]
):
    """A phase gave one of two names a file of its own: afterwards they are two files."""
    command = "cp first x; echo more >> x; mv x first"
    placed(project, "make.toml", f'[lifecycle.test]\ncommand = "{command}"\n')
    placed(project, "first", "one\n")
    os.link("first", "second")

    assert execute(["run", "test", "--backend", "embedded"]) == 0
    assert "CR-WORKSPACE-007" in capsys.readouterr().err
    assert (Path("first").read_text(), Path("second").read_text()) == ("one\nmore\n", "one\n")


@pytest.mark.sandbox
def test_a_failed_phase_names_what_leads_out_and_the_line_that_shows_it(
    project: Path, capsys: pytest.CaptureFixture[str]
):
    """A link leads to a folder beside the project."""
    outside = project.parent / "beside"
    outside.mkdir()
    Path("shared").symlink_to(outside)
    placed(project, "make.toml", '[lifecycle.test]\ncommand = "ls shared/"\n')

    assert execute(["run", "test", "--backend", "embedded"]) == 1
    said = capsys.readouterr().err
    assert "CR-PHASE-012" in said
    assert f'`cleanroom.tools = ["{os.path.realpath(outside)}"]`' in said


@pytest.mark.sandbox
def test_a_doctor_that_cannot_probe_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Where the temporary folder is gone, that is a failed check and no traceback."""
    monkeypatch.setattr(tempfile, "tempdir", str(project / "missing"))

    assert execute(["doctor"]) != 0
    said = capsys.readouterr()
    assert "CR-DOCTOR-001" in said.out + said.err


def test_without_the_extra_its_package_is_named(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """What programs send cannot be read then: the phase could not be run, with what to install."""
    monkeypatch.setitem(
        sys.modules, "opentelemetry.proto.collector.trace.v1.trace_service_pb2", None
    )
    placed(project, "make.toml", '[lifecycle.test]\ncommand = "true"\ncleanroom.telemetry = true\n')

    assert execute(["run", "test", *MEMORY]) == 5
    said = capsys.readouterr().err
    assert "error[CR-TRACE-006]" in said
    assert "[otlp]'" in said


@pytest.mark.sandbox
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_files_that_a_phase_cannot_change_are_named(project: Path, open_tmp_path: Path):
    """Of another owner, in a run of an ordinary user."""
    home = open_tmp_path / "home"
    home.mkdir()
    placed(project, "roots", "x")
    for path in (home, project, project / "make.toml"):
        os.chown(path, ORDINARY, ORDINARY)
    who: dict[str, Any] = {"user": ORDINARY, "group": ORDINARY, "extra_groups": []}
    libraries = str(Path(anyio.__file__).parents[1])
    source = str(Path(cleanroom.__file__).parents[1])
    done = subprocess.run(
        [
            readable_python(libraries, who),
            "-B",
            "-m",
            "cleanroom",
            "run",
            "test",
            "--backend",
            "embedded",
        ],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": f"{source}:{libraries}"},
        cwd=project,
        capture_output=True,
        text=True,
        timeout=100,
        **who,
    )
    assert "such as roots" in done.stderr
    assert "CR-WORKSPACE-003" in done.stderr


HELD = """
[lifecycle.host]
command = "touch begun; while [ ! -e held ]; do sleep 0.02; done"
cleanroom.enabled = false
"""


def test_evidence_that_is_not_written_in_time_is_an_error(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Another process has the audit log, as one that hangs would:
    the run does not pass, and ends.
    """
    monkeypatch.setattr("cleanroom.engine.run_subscribers.DRAIN_SECONDS", 0.1)
    monkeypatch.setattr("cleanroom.evidence.audit.log.LOCK_SECONDS", 1.0)
    placed(project, "make.toml", HELD)
    done = threading.Event()

    def hold() -> None:
        while not (project / "begun").exists():
            time.sleep(0.01)  # polling for what another process does
        with (
            Folder.at(project / ".ggen/cleanroom/audit") as audit,
            locked(audit, LOCK_NAME, seconds=20),
        ):
            (project / "held").touch()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        status = execute(["run", "host", *MEMORY])
    finally:
        (project / "begun").touch()
        done.set()
        holder.join()
    assert status == 5
    assert "CR-ENGINE-002" in capsys.readouterr().err
