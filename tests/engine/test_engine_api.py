"""The engine on real files with the memory backend: evidence, refusals, reading runs again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import anyio
import pytest

import cleanroom
from cleanroom import engine as door
from cleanroom.backends.base import Backend
from cleanroom.backends.memory.programs import Inside
from cleanroom.engine import Engine, Options
from cleanroom.model.errors import CleanroomError, Exit, ProjectError, UsageError
from cleanroom.model.events import Finished
from cleanroom.testing import MemoryBackend, Program, Script, egress_attempt, forever, succeed
from support.documented_spans import unnamed

FILE = """
[project]
name = "demo"
[lifecycle.init]
command = "one"
[lifecycle.test]
command = "two"
[lifecycle.empty]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "make.toml").write_text(FILE)
    return root


def caller(project: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(project.parent),
        "CLEANROOM_CACHE": str(project.parent / "cache"),
        **more,
    }


def scripted(
    project: Path,
    programs: dict[str, Program] | None = None,
    more: dict[str, str] | None = None,
    **options: object,
) -> Engine:
    """An engine whose memory backend has a script."""

    def make(name: str, **where: object) -> Backend:
        return MemoryBackend(Script(programs=programs or {}, otherwise=succeed(b"fine\n")))

    return Engine(
        project, caller(project, **(more or {})), Options(backend="memory", **options), make
    )


async def test_a_run_leaves_whole_evidence(project: Path):
    """Events, audit, reports, trace, logs, plan and state are there, agree,
    and the audit log verifies.
    """
    result = await scripted(project).pipeline("init", "test")
    assert (result.outcome, result.exit_code) == ("passed", 0), result.error
    assert {kind for kind in result.reports if (project / result.reports[kind]).is_file()} == set(
        result.reports
    )
    assert {"json", "junit", "html", "sarif", "events", "audit", "trace"} <= set(result.reports)
    assert json.loads((project / result.reports["json"]).read_bytes())["run_id"] == result.run_id
    folder = project / ".ggen/cleanroom/runs" / result.run_id
    assert (folder / "plan.json").is_file()
    assert (folder / "logs/test.log").read_text() == "fine\n"
    verification = door.verify_audit(project)
    assert verification.valid
    assert result.audit_head["seq"] == verification.records
    state = json.loads((project / ".ggen/state.json").read_text())
    assert [entry["phase"] for entry in state["phase_history"]] == ["init", "test"]
    assert not list((project.parent / "cache/runs").glob("*")), "scratch was left"


async def test_events_can_be_read_while_and_after(project: Path):
    """The iterator ends with the run and gives what the recorded events give."""
    engine = scripted(project)
    live = []

    async def follow(events) -> None:
        async for envelope in events:
            live.append(envelope)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow, engine.events())
        result = await engine.run("test")
    assert live == door.read_run(project)
    assert door.list_runs(project) == [result.run_id]
    written = door.render_reports(project, project / result.reports["events"], project / "again")
    again = json.loads(Path(written["json"]).read_bytes())
    assert again["outcome"] == "passed"


async def test_two_runs_in_one_engine(project: Path):
    """A second run has its own id and events, and the same audit chain."""
    engine = scripted(project)
    first, second = await engine.run("init"), await engine.run("test")
    assert first.run_id != second.run_id
    assert door.list_runs(project) == [first.run_id, second.run_id]
    assert door.verify_audit(project).valid
    assert [e.run_id for e in door.read_run(project, first.run_id)] == [first.run_id] * len(
        door.read_run(project, first.run_id)
    )


async def test_an_unscripted_memory_run_is_unverified(project: Path):
    """`--backend memory` from the command: exit 4, nothing recorded as passed."""
    async with cleanroom.open(project, caller=caller(project), backend="memory") as engine:
        result = await engine.pipeline("init")
    assert (result.outcome, result.exit_code) == ("unverified", 4)
    assert not (project / ".ggen/state.json").exists()


async def test_a_plan_that_does_not_stand_writes_nothing(project: Path):
    """Wrong files and names are raised before anything is written."""
    with pytest.raises(CleanroomError) as unknown:
        await scripted(project).pipeline("nope")
    assert unknown.value.exit is Exit.USAGE
    (project / "make.toml").write_text("[lifecycle.test]\ncommand = 5\n")
    with pytest.raises(ProjectError):
        await scripted(project).pipeline("test")
    assert not (project / ".ggen").exists()


async def test_an_engine_inside_a_run_refuses(project: Path):
    """CLEANROOM_RUN_ID in the caller's environment: usage error, nothing written."""
    with pytest.raises(UsageError) as refused:
        await scripted(project, more={"CLEANROOM_RUN_ID": "x"}).pipeline("test")
    assert refused.value.code == "CR-ENGINE-001"
    assert not (project / ".ggen").exists()


async def test_an_interrupt_unwinds_and_is_the_result(project: Path):
    """A signal ends the run with its own status, whole evidence and nothing left."""
    for code in (Exit.INTERRUPTED, Exit.TERMINATED):
        engine = scripted(project, {"one": forever})
        result = None

        async def watch(events, engine=engine, code=code) -> None:
            async for envelope in events:
                if envelope.event.subject.kind == "command":
                    engine.interrupt(code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, engine.events())
            result = await engine.pipeline("init", "test")
        assert (result.outcome, result.exit_code) == ("interrupted", int(code))
        assert result.ledger.left == ()
        assert door.verify_audit(project).valid


async def test_a_damaged_audit_log_stops_a_run_before_it_starts(project: Path):
    """A log that does not match its head is not continued: exit 5, no phase runs."""
    await scripted(project).run("init")
    log = project / ".ggen/cleanroom/audit/audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"init", b"tini", 1))
    before = log.read_bytes()
    log.write_bytes(before[: len(before) // 2])
    result = await scripted(project).run("test")
    assert (result.outcome, result.exit_code) == ("error", 5)
    assert "audit" in result.error["hint"] or "audit" in result.error["message"]
    assert not any(phase.result == "passed" for phase in result.phases)


async def test_a_secret_of_the_caller_is_nowhere(project: Path):
    """A value handed over by `pass` and printed is in no file of the run."""
    (project / "make.toml").write_text(FILE + 'cleanroom.pass = ["API_TOKEN"]\n')

    async def leak(inside) -> int:
        inside.write(inside.variables.get("API_TOKEN", "").encode() + b"\n")
        return 0

    text = FILE.replace('command = "two"', 'command = "two"\ncleanroom.pass = ["API_TOKEN"]')
    (project / "make.toml").write_text(text)
    result = await scripted(project, {"two": leak}, more={"API_TOKEN": "tok-4711-abcdef"}).run(
        "test"
    )
    assert result.exit_code == 0, result.error
    for file in (project / ".ggen").rglob("*"):
        if file.is_file():
            assert b"tok-4711-abcdef" not in file.read_bytes(), file


async def test_the_table_of_spans_is_true_of_a_run(project: Path):
    """`otel/spans.md` names every kind, event and attribute of a run with output, an attempt,
    a process left behind, and a failure.
    """

    async def program(inside: Inside) -> int:
        inside.write(b"some output\n")
        inside.attempt(egress_attempt("192.0.2.1", 443))
        inside.leave("daemon")
        return 3

    await scripted(project, {"two": program}).pipeline("init", "test", "empty")
    _, recorded = door.read_trace(project)

    assert {event.name for span in recorded for event in span.events} >= {
        "violation",
        "output",
        "canary",
        "ledger",
        "note",
    }
    assert unnamed(recorded) == set()


async def test_trace_context_comes_in(project: Path):
    """TRACEPARENT of the caller is the parent of the run's span."""
    trace, span = "ab" * 16, "cd" * 8
    result = await scripted(project, more={"TRACEPARENT": f"00-{trace}-{span}-01"}).run("test")
    assert result.trace_id == trace
    assert door.read_run(project)[0].parent == span


@pytest.mark.parametrize(
    ("variables", "flag"),
    [
        ({}, "01"),
        ({"TRACEPARENT": f"00-{'ab' * 16}-{'cd' * 8}-00"}, "00"),
        ({"TRACEPARENT": f"00-{'ab' * 16}-{'cd' * 8}-03"}, "01"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "00"),
        (
            {"TRACEPARENT": f"00-{'ab' * 16}-{'cd' * 8}-00", "OTEL_TRACES_SAMPLER": "always_on"},
            "01",
        ),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, "00"),
    ],
)
async def test_a_phase_is_told_whether_its_trace_is_sampled(
    project: Path, variables: dict[str, str], flag: str
):
    """The flag of its TRACEPARENT is what was decided for the run,
    by the caller's own flag or the sampler; the run's file is whole either way.
    """
    told = []

    async def program(inside: Inside) -> int:
        told.append(inside.variables["TRACEPARENT"])
        return 0

    result = await scripted(project, {"two": program}, variables).run("test")
    recorded = {span.span_id for span in door.read_trace(project)[1]}
    (_, trace, span, found) = told[0].split("-")

    assert (trace, found) == (result.trace_id, flag)
    assert span in recorded


async def test_a_host_phase_runs_on_the_host(project: Path):
    """`enabled = false`: a real process in the project's folder, reported as not hermetic."""
    (project / "make.toml").write_text(
        FILE
        + '[lifecycle.host]\ncommand = "pwd > where; echo $CLEANROOM"\ncleanroom.enabled = false\n'
    )
    result = await scripted(project).run("host")
    (row,) = result.phases
    assert (row.result, row.hermetic) == ("passed", False), row
    assert (project / "where").read_text().strip() == str(project)


async def test_a_torn_last_line_is_left_out(project: Path):
    """What a killed engine leaves can be read; a broken line in the middle is named."""
    result = await scripted(project).run("test")
    file = project / result.reports["events"]
    whole = door.read_run(project)
    with file.open("ab") as log:
        log.write(b'{"seq":99')
    assert door.read_run(project) == whole
    file.write_bytes(b"nonsense\n" + file.read_bytes())
    with pytest.raises(CleanroomError) as broken:
        door.read_run(project)
    assert "events.jsonl:1" in str(broken.value)


async def test_a_run_that_is_not_there_is_a_usage_error(project: Path):
    """Asking for an unknown run names those that exist."""
    with pytest.raises(UsageError):
        door.read_run(project)


async def test_the_run_is_the_last_event(project: Path):
    """Finished(run) closes the log with the result's own status."""
    result = await scripted(project, {"one": succeed(exit_code=3)}).pipeline("init", "test")
    last = door.read_run(project)[-1].event
    assert isinstance(last, Finished)
    assert (last.subject.kind, last.exit_code) == ("run", result.exit_code) == ("run", 1)


def test_of_runs_in_one_second_the_last_is_the_newest(project: Path):
    """Their ids begin alike and end at random; what was written last ended last."""
    names = [f"20260101-000000-{end}" for end in ("zzzzz", "aaaaa", "mmmmm")]
    for age, name in enumerate(names):
        events = project / ".ggen/cleanroom/runs" / name / "events.jsonl"
        events.parent.mkdir(parents=True)
        events.touch()
        os.utime(events, ns=(age, age + 1))

    assert door.list_runs(project) == names
