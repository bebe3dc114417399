"""The result as SARIF 2.1.0, as code scanning and editors read it.

One result for each kind of blocked attempt, each phase, service and canary that failed, and for
what ended the run where none of these does.
A rule's id is our code, its help what `explain` says, its place the lines that declare the phase.
Attempts that the project expects are suppressed, with the reason that it gives.
Fingerprints have no number of a process or a run in them: what goes wrong again is known again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from cleanroom.evidence.reports.result import (
    CanaryResult,
    PhaseResult,
    RunResult,
    ServiceResult,
    ViolationResult,
)
from cleanroom.evidence.reports.text import (
    describe_attempt,
    gone_wrong,
    judged,
    phase_name,
    place_of,
    plain,
)
from cleanroom.model.rule_codes import RULE_CODES

__all__ = ["SCHEMA_ADDRESS", "sarif"]

SCHEMA_ADDRESS = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_ROOT = "%SRCROOT%"  # as code scanning calls the folder of the sources
_FILE = "make.toml"  # where no phase says in which file the project is
_ORIGIN = re.compile(r"(?P<file>[^\n]+):(?P<line>[1-9]\d{0,8}):(?P<column>[1-9]\d{0,8})")
_LEVELS = {"violation": "error", "tolerated": "note", "notice": "note"}
_NOTE_LEVELS = {"info": "note", "warning": "warning", "degraded": "warning"}
# Code scanning's scale: from 7 high, from 4 medium.
# What leaves the environment is worse than what fills it.
_SEVERITY = {"network": "7.5", "filesystem": "7.0", "process": "7.0", "resource": "4.0"}


class _Found(NamedTuple):
    """One result before it is written."""

    rule: str  # CR-..., or what stands for one
    level: str
    message: str
    identity: Sequence[str]  # what makes it the same in another run
    origin: str = ""  # FILE:LINE:COLUMN
    place: str = ""  # `phase test`
    attempts: int = 1
    tolerated_for: str | None = None
    properties: tuple[tuple[str, str], ...] = ()


def sarif(result: RunResult) -> bytes:
    """The file's bytes."""
    found = list(_found(result))
    rules = list(dict.fromkeys(one.rule for one in found))
    file = next((m["file"] for p in result.phases if (m := _ORIGIN.fullmatch(p.origin))), _FILE)
    run = {
        "tool": {
            "driver": {
                "name": "cleanroom-engine",
                **({"version": plain(result.version)} if result.version else {}),
                "rules": _rules(rules),
            }
        },
        "automationDetails": {"id": _automation_id(result)},
        "invocations": [_invocation(result)],
        "columnKind": "unicodeCodePoints",
        "results": [_result(one, rules.index(one.rule), file) for one in found],
        "properties": {
            "outcome": result.outcome,
            "policy": plain(result.policy),
            "backend": plain(f"{result.backend} {result.tier}".strip()),
            "runId": plain(result.run_id),
        },
    }
    written = {"$schema": SCHEMA_ADDRESS, "version": "2.1.0", "runs": [run]}
    return msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"


def _found(result: RunResult) -> Iterator[_Found]:
    origins = {(phase.workspace, phase.name): phase.origin for phase in result.phases}
    for row in (*result.violations, *result.notices):
        yield _violation(row, origins.get((row.workspace, row.phase), ""))
    yield from map(_phase, gone_wrong(result))
    yield from (_service(service) for service in result.services if service.reason)
    yield from (_canary(canary) for canary in result.canaries if canary.result != "passed")
    if result.error and not _is_said(result):
        yield _error(result)


def _is_said(result: RunResult) -> bool:
    """Whether a phase or a service has the run's error already."""
    said = {phase.code for phase in gone_wrong(result)}
    return result.error.get("code") in said | {service.code for service in result.services}


def _violation(row: ViolationResult, origin: str) -> _Found:
    program = row.process.exe if row.process else ""
    tolerated = row.severity == "tolerated"
    return _Found(
        row.code or row.rule,
        _LEVELS.get(row.severity, "error"),
        f"{describe_attempt(row)}{judged(row)}",
        (row.severity, row.rule, row.workspace, row.phase, row.service, program, str(row.target)),
        origin,
        place_of(row),
        row.count,
        row.reason if tolerated else None,
        (("rule", row.rule), ("severity", row.severity), ("mechanism", row.mechanism)),
    )


def _phase(phase: PhaseResult) -> _Found:
    reason = f": {phase.reason}" if phase.reason and phase.reason != phase.result else ""
    status = "" if phase.exit_code is None else f", exit status {phase.exit_code}"
    name = phase_name(phase)
    return _Found(
        phase.code or f"phase.{phase.result}",
        "error",
        f"phase {name}: {phase.result}{status}{reason}{_hint(phase.hint)}",
        ("phase", phase.workspace, phase.name, phase.result),
        phase.origin,
        f"phase {name}",
        properties=(("log", plain(phase.log)),) if phase.log else (),
    )


def _service(service: ServiceResult) -> _Found:
    return _Found(
        service.code or "service.failed",
        "error",
        f"service {service.name}: {service.reason}{_hint(service.hint)}",
        ("service", service.name),
        place=f"service {service.name}",
    )


def _canary(canary: CanaryResult) -> _Found:
    message = f"canary {canary.name}: expected {canary.expected}, found {canary.found}"
    return _Found(
        RULE_CODES.get(canary.rule, "canary.failed"),
        "error",
        message,
        ("canary", canary.name, canary.rule),
        place=f"environment {canary.environment}" if canary.environment else "",
    )


def _error(result: RunResult) -> _Found:
    """What ended the run before a phase could, such as a download that was rejected."""
    error = result.error
    message = error.get("message") or result.reason or result.outcome
    code = error.get("code") or f"run.{result.outcome}"
    text = f"{message}{_hint(error.get('hint', ''))}"
    return _Found(code, "error", text, ("run", result.project), place="run")


def _hint(hint: str) -> str:
    return f"; {hint}" if hint else ""


def _result(found: _Found, index: int, file: str) -> dict[str, Any]:
    digest = sha256("\0".join((found.rule, *found.identity)).encode("utf-8", "replace")).hexdigest()
    suppressed: dict[str, Any] = {}
    if found.tolerated_for is not None:
        reason = {"justification": plain(found.tolerated_for)} if found.tolerated_for else {}
        suppressed = {"suppressions": [{"kind": "inSource", **reason}]}
    return {
        "ruleId": plain(found.rule),
        "ruleIndex": index,
        "level": found.level,
        "message": {"text": _message(found.message)},
        "locations": [_location(found, file)],
        # Code scanning knows this name only, and takes a number behind the hash.
        "partialFingerprints": {
            "cleanroomAttempt/v1": digest,
            "primaryLocationLineHash": f"{digest[:16]}:1",
        },
        "occurrenceCount": max(1, found.attempts),
        **suppressed,
        **({"properties": dict(found.properties)} if found.properties else {}),
    }


def _location(found: _Found, file: str) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": _artifact(file)}
    if place := _ORIGIN.fullmatch(found.origin):
        physical = {
            "artifactLocation": _artifact(place["file"]),
            "region": {"startLine": int(place["line"]), "startColumn": int(place["column"])},
        }
    location: dict[str, Any] = {"physicalLocation": physical}
    if found.place:
        location["logicalLocations"] = [{"fullyQualifiedName": plain(found.place)}]
    return location


def _artifact(path: str) -> dict[str, str]:
    """A path of the project as an address below its root."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    address = quote("/".join(parts).encode("utf-8", "backslashreplace")) or _FILE
    return {"uri": address, "uriBaseId": _ROOT}


def _rules(names: Iterable[str]) -> list[dict[str, Any]]:
    rules = list(names)
    if not rules:
        return []
    # The texts of all codes: a run that passed needs none.
    from cleanroom.model.codes.table import CODES

    return [_rule(name, CODES.get(name)) for name in rules]


def _rule(name: str, code: Any) -> dict[str, Any]:
    policy_rule = next((rule for rule, of in RULE_CODES.items() if of == name), "")
    written: dict[str, Any] = {"id": plain(name), "defaultConfiguration": {"level": "error"}}
    if policy_rule:
        dimension = policy_rule.partition(".")[0]
        written["properties"] = {
            "tags": ["security", dimension],
            "precision": "very-high",
            "security-severity": _SEVERITY[dimension],
        }
    if code is None:
        return written
    example = "\n".join(code.example_lines)
    named = f"{name} ({policy_rule})" if policy_rule else name
    return {
        **written,
        "shortDescription": {"text": f"{named}: {code.title}"},
        "fullDescription": {"text": code.paragraph},
        "help": {
            "text": f"{code.paragraph}\n\n{example}",
            "markdown": f"{code.paragraph}\n\n```\n{example}\n```",
        },
    }


def _invocation(result: RunResult) -> dict[str, Any]:
    """Whether the engine could do its work: a run that failed is one that was carried out."""
    began = result.started_unix_ns / 1e9
    times = (began, began + result.duration_seconds)
    start, end = (datetime.fromtimestamp(time, UTC) for time in times)
    form = "%Y-%m-%dT%H:%M:%S.%fZ"
    return {
        "executionSuccessful": result.outcome in ("passed", "failed"),
        "exitCode": result.exit_code,
        "exitCodeDescription": result.outcome,
        "startTimeUtc": start.strftime(form),
        "endTimeUtc": end.strftime(form),
        "toolExecutionNotifications": [
            {
                "message": {"text": _message(note.text) or note.level},
                "level": _NOTE_LEVELS.get(note.level, "warning"),
                **({"descriptor": {"id": plain(note.code)}} if note.code else {}),
            }
            for note in result.note_details
        ],
    }


def _automation_id(result: RunResult) -> str:
    """What comes before the last slash is the category that uploads are told apart by."""
    project = plain(result.project).replace("/", "-") or "project"
    return f"cleanroom-engine/{project}/{plain(result.run_id)}"


def _message(text: str) -> str:
    """As a message's text: no link and no placeholder comes of it."""
    shown = plain(text).replace("\\", "\\\\")
    for special in "[]":
        shown = shown.replace(special, f"\\{special}")
    return shown.replace("{", "{{").replace("}", "}}")
