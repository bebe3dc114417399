"""What a program that opens engines has: typed options, results that explain themselves, events
for readers that come late, several engines at once.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import anyio
import msgspec
import pytest

import cleanroom
from cleanroom import engine as door
from cleanroom.engine import Engine, Options, RunOptions
from cleanroom.engine.options import PolicyName
from cleanroom.evidence.reports.result import (
    LedgerResult,
    PhaseResult,
    RunResult,
    ServiceResult,
    ViolationResult,
)
from cleanroom.model.capability import Target
from cleanroom.model.errors import UsageError
from cleanroom.model.events import Envelope
from cleanroom.model.policy import Level
from cleanroom.testing import MemoryBackend, Program, Script, forever, succeed
from support.paths import ROOT

FILE = """
[project]
name = "demo"
[lifecycle.init]
command = "one"
[lifecycle.test]
command = "two"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "make.toml").write_text(FILE)
    return root


def caller_of(project: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(project.parent),
        "CLEANROOM_CACHE": str(project.parent / "cache"),
    }


def scripted(project: Path, **programs: Program) -> Engine:
    """An engine whose memory backend has a script."""
    script = Script(programs=programs, otherwise=succeed(b"fine\n"))
    return Engine(
        project,
        caller_of(project),
        Options(backend="memory"),
        lambda name, **where: MemoryBackend(script),
    )


# --- options


def test_the_typed_options_are_those_of_the_engine() -> None:
    """Each field of `Options` has its name among the arguments of `cleanroom.open`."""
    assert set(get_type_hints(RunOptions)) == set(Options.__struct_fields__)
    assert get_args(PolicyName) == tuple(level.value for level in Level)


def test_a_type_checker_finds_a_wrong_option(tmp_path: Path) -> None:
    """A misspelt name and a value of another kind are errors, a right one is none."""
    program = tmp_path / "program.py"
    program.write_text("""
import cleanroom

right = cleanroom.open(".", policy="High", seed=7, allow_degraded=["filesystem.write"])
also = cleanroom.open(".", cleanroom.Options(keep="always"), fresh=True)
misspelt = cleanroom.open(".", polcy="High")
wrong = cleanroom.open(".", policy="Hihg")

async def main() -> str:
    async with right as engine:
        result = await engine.run("test")
    result.assert_passed().bogus
    return result.explain()
""")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-incremental",
            "--cache-dir",
            tmp_path / "c",
            program,
        ],
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    found = [
        line.partition(": error: ")[2] for line in done.stdout.splitlines() if ": error:" in line
    ]
    assert len(found) == 3, done.stdout
    assert 'Unexpected keyword argument "polcy"' in found[0]
    assert 'Argument "policy"' in found[1]
    assert '"RunResult" has no attribute "bogus"' in found[2]


async def test_options_may_be_one_value(project: Path) -> None:
    """As `Options`, with some of them said again; what is in it is looked at too."""
    options = Options(backend="memory", seed=1)
    async with cleanroom.open(project, options, seed=2, caller=caller_of(project)) as engine:
        result = await engine.run("test")
    assert (result.backend, result.seed) == ("memory", 2)
    with pytest.raises(UsageError, match=r"cleanroom\.open: policy: expected Low"):
        async with cleanroom.open(project, Options(policy="Hihg")):
            pass
    with pytest.raises(UsageError, match=r"cleanroom\.open: options: expected cleanroom\.Options"):
        async with cleanroom.open(project, {"seed": 2}):  # type: ignore[arg-type]
            pass


# --- the result


def failed(**more: object) -> RunResult:
    phase = PhaseResult(
        name="test",
        result="failed",
        hermetic=True,
        exit_code=3,
        duration_seconds=0.5,
        log="logs/test.log",
        excerpt=("1 failed, \x1b[31min red\x1b[0m",),
    )
    fields = {
        "run_id": "20260101-000000-abcde",
        "project": "demo",
        "outcome": "failed",
        "exit_code": 1,
        "reason": "phase 'test' failed: exit status 3",
        "phases": (phase,),
        "reports": {"html": ".ggen/cleanroom/reports/test_results.html"},
        **more,
    }
    return RunResult(**fields)  # type: ignore[arg-type]


def test_a_result_is_shown_on_one_line() -> None:
    """With its outcome and why, and not with a thousand fields; all of them are still there."""
    assert repr(failed()) == (
        "<RunResult failed (exit 1), demo 20260101-000000-abcde, test: "
        "phase 'test' failed: exit status 3>"
    )
    assert repr(RunResult()) == "<RunResult error (exit 5), run, no phase>"
    assert msgspec.to_builtins(failed())["phases"][0]["exit_code"] == 3


def test_a_result_explains_itself() -> None:
    """What was blocked, what a service ended with, the end of the output, where the rest is."""
    blocked = ViolationResult(
        rule="network.egress",
        action="blocked",
        certainty="held_syscall",
        mechanism="seccomp_notify",
        process=None,
        target=Target(host="example.org", port=443),
        count=2,
        dimension="network",
        phase="test",
    )
    service = ServiceResult(
        name="redis", version="9", ready_seconds=None, restarts=3, reason="given up"
    )
    error = {"code": "CR-PHASE-001", "message": "it failed", "hint": "look at it"}
    result = failed(
        violations=(blocked,),
        services=(service,),
        error=error,
        ledger=LedgerResult(created=1, left=("a folder",)),
    )
    lines = result.explain().splitlines()
    assert lines[0] == "demo: FAILED (exit 1) · run 20260101-000000-abcde"
    assert "why: phase 'test' failed: exit status 3" in lines
    assert "hint: look at it" in lines
    assert "explain: cleanroom-engine explain CR-PHASE-001" in lines
    assert any(
        "example.org:443" in line and "[network.egress], phase test" in line for line in lines
    )
    assert "service redis: given up" in lines
    assert "left behind: a folder" in lines
    assert "test | 1 failed, in red" in lines
    assert "full log: logs/test.log" in lines
    assert lines[-1] == "html: .ggen/cleanroom/reports/test_results.html"


def test_a_result_is_asserted() -> None:
    """One that passed is given back; another one is an AssertionError with its explanation."""
    passed = RunResult(outcome="passed", exit_code=0)
    assert passed.assert_passed() is passed
    assert passed.passed
    with pytest.raises(AssertionError) as raised:
        failed().assert_passed()
    assert str(raised.value) == failed().explain()


# --- events


async def read(events: object, into: list[Envelope]) -> None:
    async for envelope in events:  # type: ignore[attr-defined]
        into.append(envelope)


async def test_events_that_are_entered_late_begin_with_the_run(project: Path) -> None:
    """In the middle of a run, twice, and after it: every reader has every event, in order."""
    engine = scripted(project, two=forever)
    first: list[Envelope] = []
    late: list[list[Envelope]] = [[], []]

    results: list[RunResult] = []

    async def run() -> None:
        results.append(await engine.pipeline("init", "test"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, engine.events(), first)
        tasks.start_soon(run)
        with anyio.fail_after(20):
            while not any("name='test'" in repr(envelope.event) for envelope in first):
                await anyio.sleep(0.01)
        tasks.start_soon(read, engine.events(), late[0])
        untouched = engine.events()
        await anyio.sleep(0.05)
        engine.interrupt()
    await read(untouched, late[1])
    recorded = door.read_run(project)
    assert [envelope.seq for envelope in recorded] == list(range(1, len(recorded) + 1))
    assert first == late[0] == late[1] == recorded
    again: list[Envelope] = []
    await read(engine.events(results[0].run_id), again)
    assert again == recorded
    with pytest.raises(UsageError, match="no run 20200101-000000-aaaaa"):
        engine.events("20200101-000000-aaaaa")


async def test_events_of_the_next_run_are_waited_for(project: Path) -> None:
    """Asked for between two runs, they are the second's only."""
    engine = scripted(project)
    await engine.run("init")
    events: list[Envelope] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read, engine.events(), events)
        await anyio.sleep(0.01)
        result = await engine.run("test")
    assert {envelope.run_id for envelope in events} == {result.run_id}
    assert events[0].seq == 1


# --- several at once


async def test_a_second_run_on_a_busy_engine_is_refused(project: Path) -> None:
    """As an error of usage at once; the run under way goes on, and a second engine has its own."""
    engine, other = scripted(project, two=forever), scripted(project)
    results: list[RunResult] = []

    async def keep() -> None:
        results.append(await engine.run("test"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep)
        await anyio.sleep(0.05)
        with pytest.raises(UsageError) as refused:
            await engine.run("init")
        assert refused.value.code == "CR-ENGINE-007"
        assert (await other.run("init")).assert_passed()
        engine.interrupt()
    assert results[0].outcome == "interrupted"
    assert (await engine.run("init")).assert_passed()


@pytest.mark.sandbox
async def test_two_engines_run_at_once(project: Path) -> None:
    """Real runs of one project and of another in one process: each has its own events, its own
    result, and the project's audit log holds both.
    """
    other = project.parent / "other"
    other.mkdir()
    for root in (project, other):
        (root / "make.toml").write_text(
            '[project]\nname = "demo"\n[lifecycle.test]\ncommand = "echo hello; sleep 0.3"\n'
        )
    results: list[tuple[RunResult, list[Envelope]]] = []

    async def run(root: Path) -> None:
        events: list[Envelope] = []
        async with (
            cleanroom.open(root, caller=caller_of(project)) as engine,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(read, engine.events(), events)
            results.append((await engine.run("test"), events))

    async with anyio.create_task_group() as tasks:
        for root in (project, project, other):
            tasks.start_soon(run, root)
    assert len({result.assert_passed().run_id for result, _ in results}) == 3
    for result, events in results:
        assert {envelope.run_id for envelope in events} == {result.run_id}
    assert door.verify_audit(project).valid
    assert len(door.list_runs(project)) == 2
