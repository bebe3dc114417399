"""SARIF: what it says of a run, that the standard's own schema takes it, and that nothing hostile
gets out of its place.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.result import (
    CanaryResult,
    NoteResult,
    PhaseResult,
    RunResult,
    ServiceResult,
    ViolationResult,
)
from cleanroom.evidence.reports.sarif import SCHEMA_ADDRESS, sarif
from cleanroom.model.capability import Process, Target
from cleanroom.model.codes.table import CODES
from cleanroom.model.policy import CONTROLS
from cleanroom.model.rule_codes import RULE_CODES
from support.event_log_builder import EventLogBuilder, begin, egress, phase, shop
from support.paths import TESTS

SCHEMA = json.loads((TESTS / "fixtures" / "schemas" / "sarif-schema-2.1.0.json").read_bytes())
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)


def read(result: RunResult) -> dict[str, Any]:
    """The file's only run, after the schema took the file."""
    document = json.loads(sarif(result))
    VALIDATOR.validate(document)
    (run,) = document["runs"]
    return run


def row(**changes: Any) -> ViolationResult:
    """A connection that was refused in phase test."""
    fields: dict[str, Any] = {
        "rule": "network.egress",
        "action": "blocked",
        "certainty": "held_syscall",
        "mechanism": "seccomp_notify",
        "process": Process(pid=7, exe="/usr/bin/curl", argv=("curl", "https://a.example/")),
        "target": Target(host="a.example", port=443),
        "count": 3,
        "phase": "test",
        "dimension": "network",
        "code": "CR-NET-003",
    }
    return ViolationResult(**{**fields, **changes})


def failed_phase(**changes: Any) -> PhaseResult:
    fields: dict[str, Any] = {
        "name": "test",
        "result": "failed",
        "hermetic": True,
        "exit_code": 7,
        "duration_seconds": 1.0,
        "origin": "make.toml:12:1",
        "code": "CR-PHASE-001",
    }
    return PhaseResult(**{**fields, **changes})


def test_the_schema_is_the_one_that_the_file_names() -> None:
    """A file that names one and is checked against another is checked against neither."""
    assert SCHEMA["id"] == SCHEMA_ADDRESS


def test_a_run_that_passed_has_no_result_and_no_rule() -> None:
    """And says that it was carried out."""
    run = read(fold(shop(failing=False)))

    assert [found for found in run["results"] if found["level"] == "error"] == []
    assert run["invocations"][0]["executionSuccessful"] is True
    assert run["invocations"][0]["exitCode"] == 0


def test_an_attempt_is_an_error_where_the_phase_is_declared() -> None:
    """One result for equal attempts, with their number, the code as its rule."""
    result = RunResult(outcome="failed", violations=(row(),), phases=(failed_phase(),))
    attempt, failure = read(result)["results"]

    assert (attempt["ruleId"], attempt["level"]) == ("CR-NET-003", "error")
    assert attempt["occurrenceCount"] == 3
    assert "curl" in attempt["message"]["text"]
    assert "a.example:443" in attempt["message"]["text"]
    place = attempt["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "make.toml", "uriBaseId": "%SRCROOT%"}
    assert place["region"] == {"startLine": 12, "startColumn": 1}
    assert (failure["ruleId"], "exit status 7" in failure["message"]["text"]) == (
        "CR-PHASE-001",
        True,
    )


def test_an_attempt_in_a_workspace_lies_where_that_workspace_declares_the_phase() -> None:
    """Two workspaces have a phase of the same name, and each its own violations."""
    story = EventLogBuilder()
    run = begin(story)
    for name in ("api", "web"):
        span = phase(story, run, "test", workspace=name, origin=f"{name}/make.toml:3:1")
        environment = story.start(
            msgspec.structs.replace(egress("x").subject, kind="environment", name=name),
            span,
            role="phase",
            of="test",
        )
        attempt = egress("test", host=f"{name}.example")
        subject = msgspec.structs.replace(attempt.subject, kind="environment", name=name)
        story.tell(msgspec.structs.replace(attempt, subject=subject, environment=name), environment)
        story.finish(environment)
        story.finish(span, "failed", exit_code=1)
    story.finish(run, "failed", exit_code=1)
    result = fold(story.envelopes)
    found = {
        one["message"]["text"].partition("reach ")[2].partition(":")[0]: one["locations"][0]
        for one in read(result)["results"]
        if one["ruleId"] == "CR-NET-003"
    }

    assert [violation.workspace for violation in result.violations] == ["api", "web"]
    for name in ("api", "web"):
        place = found[f"tcp {name}.example"]
        assert place["physicalLocation"]["artifactLocation"]["uri"] == f"{name}/make.toml"
        assert place["logicalLocations"] == [{"fullyQualifiedName": f"phase {name}/test"}]


def test_what_the_project_expects_is_suppressed_with_its_reason() -> None:
    """Still there, still a note."""
    tolerated = row(severity="tolerated", reason="the licence check asks home")
    (found,) = read(RunResult(outcome="passed", violations=(tolerated,)))["results"]

    assert found["level"] == "note"
    assert found["suppressions"] == [
        {"kind": "inSource", "justification": "the licence check asks home"}
    ]


def test_a_failed_service_canary_and_download_are_results() -> None:
    """Whatever makes a run fail is in the file; a failed run is never an empty one."""
    service = ServiceResult(
        name="db",
        version="",
        ready_seconds=None,
        restarts=0,
        reason="gave up",
        code="CR-SERVICE-001",
    )
    canary = CanaryResult(
        name="connect-out",
        dimension="network",
        expected="refused",
        result="failed",
        found="connected",
        rule="network.egress",
    )
    for result, expected in (
        (RunResult(outcome="error", services=(service,)), "CR-SERVICE-001"),
        (RunResult(outcome="refused", canaries=(canary,)), "CR-NET-003"),
        (
            RunResult(
                outcome="error",
                error={"code": "CR-FETCH-003", "message": "left-pad-1.3.0.tgz: another digest"},
            ),
            "CR-FETCH-003",
        ),
    ):
        run = read(result)
        assert [found["ruleId"] for found in run["results"]] == [expected]
        assert run["invocations"][0]["executionSuccessful"] is False
        assert run["tool"]["driver"]["rules"][0]["id"] == expected


def test_an_error_that_a_phase_has_is_said_once() -> None:
    """The run's error is that of its phase."""
    result = RunResult(
        outcome="failed",
        phases=(failed_phase(),),
        error={"code": "CR-PHASE-001", "message": "phase test: exit status 7"},
    )

    assert len(read(result)["results"]) == 1


def test_every_rule_says_what_explain_says() -> None:
    """Title, text and example; those of the policy are about security."""
    rows = tuple(row(rule=rule, code=code) for rule, code in RULE_CODES.items())
    rules = read(RunResult(outcome="failed", violations=rows))["tool"]["driver"]["rules"]

    assert [rule["id"] for rule in rules] == list(RULE_CODES.values())
    for rule in rules:
        code = CODES[rule["id"]]
        assert code.title in rule["shortDescription"]["text"]
        assert code.paragraph in rule["help"]["text"]
        assert "security" in rule["properties"]["tags"]
        assert 0 < float(rule["properties"]["security-severity"]) < 10
    assert {rule["properties"]["tags"][1] for rule in rules} == {
        control.dimension for control in CONTROLS
    }


def test_a_fingerprint_is_the_same_in_the_next_run() -> None:
    """Other numbers of processes, times, counts and ids: the same attempt."""
    first = RunResult(run_id="a", outcome="failed", violations=(row(),), phases=(failed_phase(),))
    moved = msgspec.structs.replace(row().process, pid=99, argv=("curl", "-s"))
    second = RunResult(
        run_id="b",
        outcome="failed",
        violations=(row(process=moved, count=1, environment="test-2"),),
        phases=(failed_phase(origin="make.toml:40:1", duration_seconds=9.0),),
    )
    other = RunResult(outcome="failed", violations=(row(target=Target(host="b.example")),))

    def prints(result: RunResult) -> list[Any]:
        return [found["partialFingerprints"] for found in read(result)["results"]]

    assert prints(first) == prints(second)
    assert prints(other)[0] not in prints(first)
    assert len({json.dumps(each) for each in prints(first)}) == 2


def test_notes_are_the_tools_own_notifications() -> None:
    """What a reader has to be told is no result of the project's."""
    notes = (NoteResult(level="degraded", text="no cgroups", code="CR-POLICY-002"),)
    (said,) = read(RunResult(outcome="passed", note_details=notes))["invocations"][0][
        "toolExecutionNotifications"
    ]

    assert said["level"] == "warning"
    assert said["descriptor"] == {"id": "CR-POLICY-002"}


@pytest.mark.parametrize(
    ("origin", "uri"),
    [
        ("a b/make.toml:1:1", "a%20b/make.toml"),
        ("../../etc/passwd:1:1", "etc/passwd"),
        ("/etc/passwd:1:1", "etc/passwd"),
        ("http://x/y:1:1", "http%3A/x/y"),
        ("#?:1:1", "%23%3F"),
        ("..:1:1", "make.toml"),
        ("make.toml:0:0", "make.toml"),
        ("make.toml:99999999999999999999:1", "make.toml"),
    ],
)
def test_a_place_is_a_relative_address_below_the_project(origin: str, uri: str) -> None:
    """Whatever a file is called."""
    result = RunResult(outcome="failed", phases=(failed_phase(origin=origin),))
    (found,) = read(result)["results"]

    assert found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=30))
def test_any_text_gives_a_file_that_the_schema_takes(text: str) -> None:
    """In every place that a project or its processes can name; no link, no control character."""
    process = Process(pid=1, exe=text, comm=text, argv=(text,), cwd=text)
    result = RunResult(
        run_id=text,
        outcome="failed",
        project=text,
        policy=text,
        version=text,
        phases=(failed_phase(name=text, reason=text, origin=text, log=text, code="", hint=text),),
        services=(
            ServiceResult(name=text, version="", ready_seconds=None, restarts=0, reason=text),
        ),
        violations=(
            row(process=process, target=Target(path=text), phase=text, workspace=text),
            row(process=None, attribution_gap=text, severity="tolerated", reason=text),
        ),
        note_details=(NoteResult(level="warning", text=text),),
        error={"code": "CR-X-001", "message": text, "hint": text},
    )
    run = read(result)

    for found in run["results"]:
        shown = found["message"]["text"]
        assert not any(ord(sign) < 32 and sign not in "\n\t" for sign in shown)
        assert "\x1b" not in shown
        assert "](" not in shown.replace("\\]", "")
