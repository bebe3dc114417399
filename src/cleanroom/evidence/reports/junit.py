"""The result as JUnit XML, as CI systems read it (Jenkins' xUnit2 and testmoapp/junitxml).

A run is two test suites: its phases and services are the cases of the first, which has the
project's name; canaries and the account at the end are those of the second, NAME.isolation, which
tools can leave out.
What the project did wrong is a failure (`type="policy"` where a rule was broken),
what we or the clock did is an error, what did not run is skipped:
nothing counts as passed that nothing earned.
Messages begin with the code where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from xml.etree import ElementTree

from cleanroom.evidence.reports.result import (
    CanaryResult,
    LedgerResult,
    PhaseResult,
    RunResult,
    ServiceResult,
    ViolationResult,
)
from cleanroom.evidence.reports.text import (
    broken_rules,
    describe_violation,
    notice_line,
    phase_name,
    plain,
    plural,
)

_ORIGIN = re.compile(r"(?P<file>[^\n]+):(?P<line>\d+):\d+")
_PATH = re.compile(r"[^\[\]|\n]+")  # what an attachment can name


class _Case(NamedTuple):
    group: str
    name: str
    seconds: float = 0.0
    verdict: Literal["", "failure", "error", "skipped"] = ""
    kind: str = ""
    message: str = ""
    details: str = ""
    output: str = ""
    code: str = ""
    attached: str = ""  # a path
    origin: str = ""  # FILE:LINE:COLUMN


def junit(result: RunResult) -> bytes:
    """The file's bytes."""
    name = plain(result.project) or "cleanroom"
    work, isolation = _work(result), _isolation(result)
    took = result.duration_seconds
    suites = ElementTree.Element("testsuites", _totals(name, [*work, *isolation], took))
    began = datetime.fromtimestamp(result.started_unix_ns // 1_000_000_000, UTC)
    timestamp = {"timestamp": began.strftime("%Y-%m-%dT%H:%M:%S")}
    first = ElementTree.SubElement(suites, "testsuite", {**_totals(name, work, took), **timestamp})
    _properties(first, result)
    for case in work:
        _write(first, name, case)
    if isolation:
        counted = _totals(f"{name}.isolation", isolation, 0.0)
        second = ElementTree.SubElement(suites, "testsuite", {**counted, **timestamp})
        for case in isolation:
            _write(second, name, case)
    ElementTree.indent(suites)
    written: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _totals(name: str, cases: Sequence[_Case], took_seconds: float) -> dict[str, str]:
    """The attributes of a suite with these cases."""
    counts = {
        name: str(sum(case.verdict == verdict for case in cases))
        for name, verdict in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    return {"name": name, "tests": str(len(cases)), **counts, "time": _time(took_seconds)}


def _work(result: RunResult) -> list[_Case]:
    """The cases of phases and services; one of them always says that a run did not pass."""
    cases = [
        *(_phase(phase, broken_rules(result, phase)) for phase in result.phases),
        *map(_service, result.services),
    ]
    explained = any(case.verdict in ("failure", "error") for case in cases)
    if result.outcome != "passed" and not explained:
        cases.append(_run(result))
    return cases


def _isolation(result: RunResult) -> list[_Case]:
    """The cases of canaries and of the account at the end."""
    cases = [*map(_canary, result.canaries)]
    if result.ledger.created or result.ledger.left:
        cases.append(_ledger(result.ledger))
    return cases


def _phase(phase: PhaseResult, violations: Sequence[ViolationResult]) -> _Case:
    broken = [describe_violation(row) for row in violations]
    excerpt = "\n".join(phase.excerpt)
    case = _Case(
        "phase",
        phase_name(phase),
        phase.duration_seconds,
        output=excerpt,
        code=phase.code,
        attached=phase.log,
        origin=phase.origin,
    )
    message = phase.reason or phase.result
    match phase.result:
        case "passed":
            return case._replace(output="\n".join((*broken, excerpt)) if broken else excerpt)
        case "cached" | "skipped" | "unverified":
            return case._replace(
                verdict="skipped",
                message=phase.reason
                or ("ran no command" if phase.result == "unverified" else "skipped"),
            )
        case "failed" if broken:
            # a blocked attempt usually explains the exit status, so it stands first
            also = f"; {message}" if phase.exit_code else ""
            return case._replace(
                verdict="failure",
                kind="policy",
                message=f"{broken[0]}{also}",
                details="\n".join([*broken, message]),
            )
        case "failed":
            return case._replace(verdict="failure", kind="exit", message=message, details=excerpt)
        case "refused":
            return case._replace(verdict="failure", kind="policy", message=message)
    details = "\n".join(part for part in (*broken, phase.hint, excerpt) if part)
    return case._replace(verdict="error", kind=phase.result, message=message, details=details)


def _service(service: ServiceResult) -> _Case:
    case = _Case("service", service.name, service.ready_seconds or 0.0, code=service.code)
    if service.ready_seconds is None:
        return case._replace(
            verdict="error",
            kind="service",
            message=service.reason or "it did not become ready",
            details=service.hint,
        )
    return (
        case._replace(verdict="error", kind="service", message=service.reason, details=service.hint)
        if service.reason
        else case
    )


def _canary(canary: CanaryResult) -> _Case:
    case = _Case(
        "canary", f"{canary.name} in {canary.environment}" if canary.environment else canary.name
    )
    if canary.result == "passed":
        return case
    return case._replace(
        verdict="failure",
        kind="policy",
        message=f"expected {canary.expected}, found {canary.found}",
        details=canary.rule,
    )


def _ledger(ledger: LedgerResult) -> _Case:
    case = _Case("account", "nothing is left")
    if not ledger.left:
        return case
    return case._replace(
        verdict="error",
        kind="leak",
        message=f"{len(ledger.left)} left",
        details="\n".join(ledger.left),
    )


def _run(result: RunResult) -> _Case:
    """For an outcome that no phase or service explains, such as a refusal."""
    verdicts: dict[str, tuple[Literal["failure", "error", "skipped"], str]] = {
        "refused": ("failure", "policy"),
        "failed": ("failure", "run"),
        "unverified": ("skipped", ""),
    }
    verdict, kind = verdicts.get(result.outcome, ("error", result.outcome))
    return _Case(
        "run",
        "outcome",
        result.duration_seconds,
        verdict,
        kind,
        result.reason or result.outcome,
        result.error.get("hint", ""),
        code=result.error.get("code", ""),
    )


def _properties(suite: ElementTree.Element, result: RunResult) -> None:
    shown = {
        "run_id": result.run_id,
        "outcome": result.outcome,
        "exit_code": str(result.exit_code),
        "backend": result.backend,
        "tier": result.tier,
        "policy": result.policy,
        "degraded": ", ".join(result.degraded),
        "seed": str(result.seed),
        "trace_id": result.trace_id,
        "version": result.version,
        "notices": _notices(result),
    }
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in shown.items():
        if value:
            ElementTree.SubElement(properties, "property", {"name": name, "value": plain(value)})


def _notices(result: RunResult) -> str:
    """What they are and where they are listed; empty where there is none."""
    if not result.notices:
        return ""
    place = result.reports.get("html", "the page beside this report")
    return f"{plural(len(result.notices), 'notice')}: {notice_line(result)}; listed in {place}"


def _write(suite: ElementTree.Element, project: str, case: _Case) -> None:
    fields = {
        "name": plain(case.name),
        "classname": f"{project}.{case.group}",
        "time": _time(case.seconds),
    }
    if place := _ORIGIN.fullmatch(case.origin):
        fields |= {"file": plain(place["file"]), "line": place["line"]}
    element = ElementTree.SubElement(suite, "testcase", fields)
    if case.verdict:
        kind = {"type": plain(case.kind)} if case.kind else {}
        # programs find the code where the message begins: no attribute of the format is for it
        message = f"{case.code} {case.message}" if case.code else case.message
        found = ElementTree.SubElement(element, case.verdict, {"message": plain(message), **kind})
        found.text = _quoted(case.details) or None
    attachment = f"[[ATTACHMENT|{plain(case.attached)}]]" if _PATH.fullmatch(case.attached) else ""
    if case.output or attachment:
        ElementTree.SubElement(element, "system-out").text = "\n".join(
            part for part in (_quoted(case.output), attachment) if part
        )


def _quoted(text: str) -> str:
    """As text: nobody attaches files to the report by printing, or being called,
    the words for it.
    """
    return plain(text).replace("[[ATTACHMENT", "[ [ATTACHMENT")


def _time(value: float) -> str:
    return f"{value:.3f}"
