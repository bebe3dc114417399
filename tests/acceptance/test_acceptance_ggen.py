"""Under the real ggen 1.2.0: what it does to the engine that is its phases' command,
and what the engine makes of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import cleanroom
from cleanroom.services.programs import find_postgres
from support.command_harness import Project, reap
from support.ggen_harness import children, leftovers, shared_servers, wait_for_command, wait_gone
from support.required_tools import real_tool

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]

SLEEP_COMMAND = "sleep 30"
MANY = 20


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.rstrip().splitlines()[-1]


class Ggen:
    """The real program, in a project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.program = real_tool("ggen")

    def write(
        self,
        phases: dict[str, str],
        *,
        command: str = "cleanroom-engine run {}",
        **settings: object,
    ) -> None:
        """Phases whose command is the engine; what they do is their `cleanroom.command`.

        `settings` are further keys under `cleanroom` of each.
        """
        lines = ["[project]", 'name = "ggenned"', ""]
        for name, inside in phases.items():
            lines += [f"[lifecycle.{name}]", f"command = {json.dumps(command.format(name))}"]
            lines += [f"cleanroom.command = {json.dumps(inside)}"] if inside else []
            lines += [
                f"cleanroom.{key} = {json.dumps(value)}" for key, value in settings.items()
            ] + [""]
        (self.project.root / "make.toml").write_text("\n".join(lines))

    def variables(self) -> dict[str, str]:
        known = self.project.variables()
        return known | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), known["PATH"]])}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.program, "lifecycle", *words],
            cwd=self.project.root,
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> Said:
        return end(self.start(*words))

    def ours(self) -> list[dict[str, object]]:
        return json.loads((self.project.root / ".ggen/cleanroom/state.json").read_text())["records"]

    def theirs(self) -> list[str]:
        return [
            entry["phase"]
            for entry in json.loads((self.project.root / ".ggen/state.json").read_text())[
                "phase_history"
            ]
        ]


def end(process: subprocess.Popen[str]) -> Said:
    out, err = process.communicate(timeout=110)
    return Said(process.returncode, out, err)


@pytest.fixture
def ggen(project: Project) -> Ggen:
    return Ggen(project)


def sql(statement: str) -> str:
    psql = find_postgres(os.environ["PATH"]).helpers["psql"]
    return f'{psql} "$DATABASE_URL" -Atc "{statement}"'


def test_a_pipeline_passes_and_its_phases_share_the_database(ggen: Ggen):
    """`init` migrates, `test` finds the schema and `validate` its rows,
    each in an engine of its own; then nothing is left.
    """
    phases = {
        "init": sql("CREATE TABLE item (n int)"),
        "test": sql("INSERT INTO item VALUES (7)"),
        "validate": sql("SELECT n FROM item") + " | grep 7",
    }
    ggen.write(phases, containers=["postgres"])
    said = ggen.run("pipeline", "init", "test", "validate")
    assert said.code == 0, said.out + said.err
    assert said.last == "✅ Pipeline completed: init → test → validate"
    assert said.err.count("is held by session-") == 3
    assert leftovers(ggen.project) == {}


def test_a_failure_is_1_for_ggen_and_told_by_the_engines_last_line(ggen: Ggen):
    """ggen exits 1 and calls the phase unknown; the engine's last line names phase and exit status;
    only our own state knows of the failure.
    """
    ggen.write({"bad": "echo trouble; exit 7"})
    said = ggen.run("run", "bad")
    assert said.code == 1
    assert "Command failed in phase 'unknown'" in said.err
    assert said.last.startswith("exit 1: phase bad failed: exit status 7"), said.out
    assert [(record["phase"], record["success"]) for record in ggen.ours()] == [("bad", False)]
    assert ggen.theirs() == []


def test_a_timeout_is_told_although_ggen_says_1(ggen: Ggen):
    """The engine's own status, 124, is in ggen's message and in the engine's last line."""
    ggen.write({"slow": "sleep 60"}, timeout="300ms")
    said = ggen.run("run", "slow")
    assert said.code == 1
    assert "Exit code: 124" in said.err
    assert said.last.startswith("exit 124: phase slow timed out"), said.out


def test_both_write_the_state_and_neither_loses_records(ggen: Ggen):
    """After three phases ggen's file has both ways of recording each, ggen reads it,
    and our copy is complete.
    """
    ggen.write({"one": "true", "two": "true", "three": "true"})
    assert ggen.run("pipeline", "one", "two", "three").code == 0
    assert ggen.theirs() == ["one", "one", "two", "two", "three", "three"]
    assert [record["phase"] for record in ggen.ours()] == ["one", "two", "three"]
    listed = ggen.run("list")
    assert listed.code == 0
    assert "Last executed: three" in listed.out


@pytest.mark.slow
def test_twenty_at_once_lose_nothing_of_ours(ggen: Ggen):
    """ggen itself loses records when many write at once; our state has every run,
    and the audit log verifies.
    """
    names = [f"p{number}" for number in range(MANY)]
    ggen.write(dict.fromkeys(names, "true"))
    started = [ggen.start("run", name) for name in names]
    said = [end(process) for process in started]
    assert [
        name for name in names if not any(f"phase {name} passed" in one.err for one in said)
    ] == []
    assert sorted(str(record["phase"]) for record in ggen.ours()) == sorted(names)
    verified = subprocess.run(
        ggen.project.argv("audit", "verify"),
        cwd=ggen.project.root,
        env=ggen.variables(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert leftovers(ggen.project) == {}


def test_a_phase_without_its_own_command_is_refused(ggen: Ggen):
    """`command` is the engine and there is no `cleanroom.command`:
    exit 2 with the line to paste, and nothing ran.
    """
    ggen.write({"bare": ""})
    said = ggen.run("run", "bare")
    assert said.code == 1
    assert "Exit code: 2" in said.err
    assert "CR-PROJECT-013" in said.err
    assert "cleanroom.command = " in said.err


def test_the_engine_refuses_to_run_inside_itself(ggen: Ggen):
    """Hidden from the plan in a script, an engine inside a phase is refused there,
    and the phase fails.
    """
    script = ggen.project.root / "inner.sh"
    script.write_text("cleanroom-engine run good\n")
    ggen.write(
        {"good": "true", "nested": "sh inner.sh"}, tools=[str(Path(cleanroom.__file__).parents[1])]
    )
    said = ggen.run("run", "nested")
    assert said.code == 1
    assert "CR-ENGINE-001" in said.out
    assert said.last.startswith("exit 1: phase nested failed: exit status 2"), said.out


# What ggen starts is `sh -c COMMAND`; a shell becomes its only command, so both shapes occur.
SHAPES = {
    "the engine in the shell's place": "cleanroom-engine run {}",
    "a shell between": "true && cleanroom-engine run {}; exit $?",
}


@pytest.mark.parametrize("command", SHAPES.values(), ids=SHAPES.keys())
def test_what_the_time_limit_kills_leaves_nothing(ggen: Ggen, command: str):
    """After 300 s ggen kills the one process that it started, with SIGKILL. ggen says 1,
    and nothing of the run outlives it.
    """
    ggen.write({"long": f"exec {SLEEP_COMMAND}"}, containers=["redis"], command=command)
    process = ggen.start("run", "long")
    wait_for_command(SLEEP_COMMAND)
    (only,) = children(process.pid)
    os.kill(only, signal.SIGKILL)
    said = end(process)
    assert said.code == 1
    assert leftovers(ggen.project) == {}


@pytest.mark.parametrize("command", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_ggen_that_is_killed_takes_engine_and_session_with_it(
    ggen: Ggen, command: str, number: int
):
    """ggen leaves its shell behind; the engine ends itself, and services, groups,
    folders and mounts of the session go.
    """
    ggen.write({"long": f"exec {SLEEP_COMMAND}"}, containers=["redis"], command=command)
    process = ggen.start("run", "long")
    wait_for_command(SLEEP_COMMAND)
    engines = children(process.pid)
    assert len(shared_servers(ggen.project)) == 1
    process.send_signal(number)
    said = end(process)
    assert said.code == -number
    for pid in engines:
        wait_gone(pid)
    reap()
    assert leftovers(ggen.project) == {}
    assert said.last.startswith("exit 143: phase long cancelled"), said.out + said.err
