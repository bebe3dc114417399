"""The result as one page: no script, nothing loaded from anywhere, light and dark,
readable on a telephone.

Everything that came from a project or its processes goes through `markup.element`,
which escapes it; a content security policy forbids the rest.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import UTC, datetime

from cleanroom.core.text import format_size
from cleanroom.evidence.reports.html_elements import (
    Cell,
    bullet_list,
    code_element,
    section,
    table,
    table_row,
)
from cleanroom.evidence.reports.html_findings import (
    explained_by,
    notices,
    repeat_command,
    tolerated,
    what_went_wrong,
)
from cleanroom.evidence.reports.markup import Markup, element, join
from cleanroom.evidence.reports.result import CanaryResult, RunResult
from cleanroom.evidence.reports.style import STYLE
from cleanroom.evidence.reports.text import (
    gone_wrong,
    phase_name,
    plural,
    seconds,
    summary_line,
    with_code,
)
from cleanroom.evidence.reports.timeline import narrow_timeline, sparkline, timeline

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def html_report(result: RunResult) -> bytes:
    """The page's bytes."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{result.project or 'run'}: {result.outcome}"),
        element("style", Markup(STYLE)),
    )
    page = element("html", head, element("body", element("main", *_sections(result))), lang="en")
    return b"<!doctype html>\n" + page.encode() + b"\n"


def _sections(result: RunResult) -> Iterable[Markup | None]:
    return (
        _headline(result),
        *what_went_wrong(result),
        section(
            "Timeline",
            element("div", timeline(result), class_="picture"),
            element("div", narrow_timeline(result), class_="narrow picture"),
            element("p", summary_line(result)),
        ),
        section("Phases", _phases(result)),
        section("The run", _facts(result)),
        tolerated(result),
        section("Services", _services(result)),
        section("What was held, by dimension", _capabilities(result)),
        notices(result),
        section("Account", _ledger(result)),
        section("Notes", bullet_list((*result.recoveries, *result.notes))),
        section("Resources", _resources(result)),
        section(_canary_title(result.canaries), _canaries(result.canaries)),
        section("Check it yourself", _evidence(result)),
    )


def _headline(result: RunResult) -> Markup:
    """The verdict and, on one line, what tells this run from others."""
    told = (
        f"exit {result.exit_code}",
        f"run {result.run_id}" if result.run_id else "",
        _began(result),
        seconds(result.duration_seconds),
    )
    return element(
        "header",
        element(
            "h1",
            result.project or "run",
            " ",
            element("span", result.outcome.upper(), class_=f"badge {result.outcome}"),
        ),
        element("p", f"DEGRADED: {', '.join(result.degraded)}", class_="alarm")
        if result.degraded
        else None,
        _reason(result),
        element("p", " · ".join(part for part in told if part), class_="dim"),
    )


def _began(result: RunResult) -> str:
    began = datetime.fromtimestamp(result.started_unix_ns // 1_000_000_000, UTC)
    return began.strftime("%Y-%m-%d %H:%M:%S UTC")


def _facts(result: RunResult) -> Markup:
    engine = seconds(result.engine_seconds)
    facts = {
        "policy": result.policy,
        "backend": f"{result.backend} {result.tier}".strip(),
        "environment": result.environment,
        "took": f"{seconds(result.duration_seconds)}, {engine} of it the engine's own",
        "SLO": f"{seconds(result.slo_seconds)}, {'met' if result.slo_met else 'missed'}",
        "seed": str(result.seed),
        "engine": result.version,
    }
    rows = (
        join((element("dt", name), element("dd", value))) for name, value in facts.items() if value
    )
    return element("dl", *rows)


def _reason(result: RunResult) -> Markup | None:
    """Why the run did not pass, where no section about a phase says it."""
    code = result.error.get("code", "")
    wrong = gone_wrong(result)
    if wrong and (not code or code in {phase.code for phase in wrong}):
        return None
    reason = element("p", result.reason, class_="alarm") if result.reason else None
    return _error(result.error) or reason


def _error(error: dict[str, str]) -> Markup | None:
    if not error:
        return None
    hint = f" Hint: {error['hint']}." if error.get("hint") else ""
    code = error.get("code", "")
    words = f"error[{code}]: {error.get('message', '')}.{hint}"
    return element("div", element("p", words, *explained_by(code)), class_="alarm")


def _phases(result: RunResult) -> Markup:
    rows = (
        table_row(
            phase_name(phase),
            _result_cell(phase.result),
            "yes" if phase.hermetic else Cell("no", "bad"),
            phase.policy,
            "" if phase.exit_code is None else str(phase.exit_code),
            seconds(phase.duration_seconds),
            "" if phase.budget_seconds is None else seconds(phase.budget_seconds),
            phase.role,
            with_code(phase.reason, phase.code)
            or (f"not from the cache: {phase.cache}" if phase.cache else ""),
            id_=f"phase-{number}",
        )
        for number, phase in enumerate(result.phases, 1)
    )
    return table(
        ("phase", "result", "hermetic", "policy", "exit", "took", "budget", "role", "why"),
        rows,
        "No phase ran.",
    )


def _result_cell(result: str) -> Cell:
    if result in ("passed", "cached"):
        return Cell(result, "good")
    return Cell(result, "dim" if result in ("skipped", "unverified") else "bad")


def _canary_title(canaries: tuple[CanaryResult, ...]) -> str:
    passed = sum(canary.result == "passed" for canary in canaries)
    return (
        f"Canaries: {passed} of {len(canaries)} came back as expected"
        if canaries
        else "Canaries: none, nothing was proven"
    )


def _canaries(canaries: tuple[CanaryResult, ...]) -> Markup:
    """One row for equal canaries of several environments."""
    grouped: dict[tuple[str, ...], list[str]] = {}
    for canary in canaries:
        key = (
            canary.name,
            canary.dimension,
            canary.rule,
            canary.expected,
            canary.found,
            canary.result,
        )
        grouped.setdefault(key, []).append(canary.environment)
    everywhere = {canary.environment for canary in canaries}

    def where(environments: list[str]) -> str:
        return (
            f"all {len(everywhere)} environments"
            if len(everywhere) > 1 and set(environments) == everywhere
            else ", ".join(dict.fromkeys(environments))
        )

    rows = (
        table_row(name, dimension, rule, expected, found, _result_cell(result), where(environments))
        for (name, dimension, rule, expected, found, result), environments in grouped.items()
    )
    return table(
        ("tried", "dimension", "rule", "expected", "found", "result", "in"),
        rows,
        "No canary ran, so this run proves nothing about its isolation.",
    )


def _capabilities(result: RunResult) -> Markup:
    rows = (
        table_row(
            row.dimension,
            _extent(row.enforced),
            _extent(row.detected),
            _extent(row.attributed),
            _extent("yes" if row.verified_by_canary else "no"),
            row.mechanism,
            row.completeness,
            row.evidence,
        )
        for row in result.capabilities
    )
    columns = (
        "dimension",
        "enforced",
        "detected",
        "attributed",
        "verified here",
        "by",
        "completeness",
        "evidence of the probe",
    )
    return table(columns, rows, "The backend was not asked.")


def _extent(extent: str) -> Cell:
    return Cell(extent, {"yes": "good", "no": "bad"}.get(extent, "dim"))


def _services(result: RunResult) -> Markup:
    rows = (
        table_row(
            service.name,
            service.version,
            Cell("never", "bad")
            if service.ready_seconds is None
            else seconds(service.ready_seconds),
            str(service.restarts),
            seconds(max(0.0, service.ended_seconds - service.started_seconds)),
            with_code(service.reason, service.code)
            or (f"held by {service.held_by}" if service.held_by else ""),
        )
        for service in result.services
    )
    return table(
        ("service", "version", "ready after", "restarts", "lived", "why"),
        rows,
        "None was asked for.",
    )


def _resources(result: RunResult) -> Markup:
    end = max(
        [
            result.duration_seconds,
            *(at for resource in result.resources for at, _, _ in resource.samples),
        ]
    )
    rows = (
        table_row(
            resource.environment,
            resource.subject,
            seconds(resource.cpu_seconds),
            format_size(resource.peak_memory_bytes),
            Cell(sparkline(resource, end)) if resource.samples else "",
        )
        for resource in result.resources
    )
    return table(
        ("environment", "for", "CPU", "peak memory", "memory (area) and CPU (line) over the run"),
        rows,
        "No readings were taken.",
    )


def _ledger(result: RunResult) -> Markup:
    ledger = result.ledger
    back = result.brought_back
    conflicts = (
        f", {plural(back['conflicts'], 'conflict')}: left as they are"
        if back.get("conflicts")
        else ""
    )
    files, written, deleted = (back.get(name, 0) for name in ("files", "bytes", "deleted"))
    gone = f"; deleted {deleted}" if deleted else ""
    text = f"Brought back {plural(files, 'file')}, {format_size(written)}{gone}{conflicts}."
    return join(
        (
            element(
                "p",
                (
                    f"{ledger.created} created, {ledger.removed} removed, {len(ledger.held)} "
                    f"held, {len(ledger.left)} left."
                ),
            ),
            element("p", "Left: ", ", ".join(ledger.left), class_="alarm") if ledger.left else None,
            element("p", "Held: ", ", ".join(ledger.held)) if ledger.held else None,
            element("p", text) if back else None,
            _would_change(result),
            _autorun(result),
        )
    )


def _would_change(result: RunResult) -> Markup | None:
    """What a dry run would have brought back."""
    if not result.dry_run:
        return None
    rows = [
        element("li", row.kind, " ", code_element(f"{row.workspace}/{row.path}".lstrip("/")))
        for row in result.would_change
    ]
    title = element("p", f"A dry run: {plural(len(rows), 'change')} would come back.")
    return join((title, element("ul", *rows) if rows else None))


def _autorun(result: RunResult) -> Markup | None:
    """The number of files that came back and that tools of the host start, and some by name."""
    count = result.brought_back.get("autorun", 0)
    if not count:
        return None
    more = count - len(result.autorun)
    rows = [
        join(
            (
                code_element(f"{row.workspace}/{row.path}".lstrip("/")),
                f": {row.by}, phase {row.phase}",
            )
        )
        for row in result.autorun
    ]
    files = f"{plural(count, 'file')} of them"
    listed = element("ul", *(element("li", row) for row in rows))
    rest = element("p", f"And {more} more.") if more > 0 else None
    title = element("p", f"{files} are such as the host's tools start or read by themselves:")
    return join((title, listed, rest))


def _evidence(result: RunResult) -> Markup:
    head = result.audit_head
    lines = [
        join(
            ("Run it again, in the project's folder: ", code_element(repeat_command(result, None)))
        ),
        join(("Verify the audit log: ", code_element("cleanroom-engine audit verify"))),
        join(
            (
                "Make this page again from the events: ",
                code_element(
                    "cleanroom-engine report --from "
                    f"{shlex.quote(result.reports.get('events', 'events.jsonl'))}"
                ),
            )
        ),
        *(
            [
                Markup(
                    join(
                        (
                            (
                                f"Audit log at the end of this run: {head.get('bytes')} bytes, "
                                f"record {head.get('seq')}, hash "
                            ),
                            code_element(str(head.get("hash"))),
                        )
                    )
                )
            ]
            if head
            else []
        ),
        *([join(("Trace id: ", code_element(result.trace_id)))] if result.trace_id else []),
    ]
    files = [join((f"{kind}: ", code_element(path))) for kind, path in result.reports.items()]
    return element("ul", *(element("li", line) for line in [*lines, *files]))
