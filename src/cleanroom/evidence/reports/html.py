"""The result as one page: no script, nothing loaded from anywhere, light and dark,
readable on a telephone.

Everything that came from a project or its processes goes through `markup.element`,
which escapes it; a content security policy forbids the rest.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
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
from cleanroom.evidence.reports.markup import Markup, element, join
from cleanroom.evidence.reports.result import CanaryResult, PhaseResult, RunResult, ViolationResult
from cleanroom.evidence.reports.style import STYLE
from cleanroom.evidence.reports.text import (
    broken_rules,
    counted,
    describe_process,
    describe_violation,
    failing,
    judged,
    phase_name,
    place_of,
    plural,
    seconds,
    summary_line,
    with_code,
)
from cleanroom.evidence.reports.timeline import narrow_timeline, sparkline, timeline

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_BROKEN_MAX = 5  # violations that stand beside the failure; the table below has all


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
        _failure(result),
        section(
            "Timeline",
            element("div", timeline(result), class_="picture"),
            element("div", narrow_timeline(result), class_="narrow picture"),
            element("p", summary_line(result)),
        ),
        section("Phases", _phases(result)),
        section(
            f"Found: {', '.join(counted(result)) or 'no violations'}",
            _violations(result.violations),
        ),
        section("Notices", _violations(result.notices)) if result.notices else None,
        section("Services", _services(result)),
        section("What was held, by dimension", _capabilities(result)),
        section("Account", _ledger(result)),
        section("Notes", bullet_list((*result.recoveries, *result.notes))),
        section("Resources", _resources(result)),
        section(_canary_title(result.canaries), _canaries(result.canaries)),
        section("Check it yourself", _evidence(result)),
    )


def _headline(result: RunResult) -> Markup:
    began = datetime.fromtimestamp(result.started_unix_ns // 1_000_000_000, UTC).strftime(
        "%Y-%m-%d %H:%M:%S UTC"
    )
    facts = {
        "exit code": str(result.exit_code),
        "run": result.run_id,
        "started": began,
        "policy": result.policy,
        "backend": f"{result.backend} {result.tier}".strip(),
        "environment": result.environment,
        "took": (
            f"{seconds(result.duration_seconds)}, {seconds(result.engine_seconds)} of it the "
            "engine's own"
        ),
        "SLO": f"{seconds(result.slo_seconds)}, {'met' if result.slo_met else 'missed'}",
        "seed": str(result.seed),
        "engine": result.version,
    }
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
        _error(result.error)
        or (element("p", result.reason, class_="alarm") if result.reason else None),
        element(
            "dl",
            *(
                join((element("dt", name), element("dd", value)))
                for name, value in facts.items()
                if value
            ),
        ),
    )


def _error(error: dict[str, str]) -> Markup | None:
    if not error:
        return None
    hint = f" Hint: {error['hint']}." if error.get("hint") else ""
    code = error.get("code", "")
    words = f"error[{code}]: {error.get('message', '')}.{hint}"
    return element("div", element("p", words, *_explained_by(code)), class_="alarm")


def _explained_by(code: str) -> Sequence[str | Markup]:
    if not code:
        return ()
    return " Explained by ", code_element(f"cleanroom-engine explain {code}"), "."


def _failure(result: RunResult) -> Markup | None:
    phase = failing(result)
    if phase is None:
        return None
    broken = broken_rules(result, phase)
    hint_is_new = bool(phase.hint) and phase.hint not in phase.reason
    return section(
        f"What went wrong: {phase_name(phase)}",
        element("p", _how_it_ended(phase), *_explained_by(phase.code)),
        element("p", f"Hint: {phase.hint}") if hint_is_new else None,
        bullet_list(_first_violations(broken)) if broken else None,
        element(
            "pre",
            "\n".join(phase.excerpt),
            tabindex="0",
            role="region",
            aria_label="the end of its output",
        )
        if phase.excerpt
        else None,
        element("p", "All of its output: ", code_element(phase.log)) if phase.log else None,
        element("p", "Run it again: ", code_element(_repeat_command(result, phase))),
    )


def _first_violations(rows: Sequence[ViolationResult]) -> list[str]:
    hidden = len(rows) - _BROKEN_MAX
    more = [f"and {plural(hidden, 'more row')} in the table below"] if hidden > 0 else []
    return [*map(describe_violation, rows[:_BROKEN_MAX]), *more]


def _how_it_ended(phase: PhaseResult) -> str:
    """One sentence with its exit status, and its reason where that says more."""
    after = f"after {seconds(phase.duration_seconds)}"
    status = f"exit status {phase.exit_code}" if phase.exit_code is not None else "no exit status"
    # what led to an exit status stands before it
    if phase.reason.endswith(status):
        return f"{phase.result}, {phase.reason}, {after}."
    reason = f" {phase.reason}" if phase.reason != phase.result else ""
    return f"{phase.result}, {status}, {after}.{reason}"


def _repeat_command(result: RunResult, phase: PhaseResult | None) -> str:
    """The command that runs the phase again, or the whole run.

    A phase of a workspace cannot be run alone: only a pipeline has workspaces.
    """
    command = (
        ["run", phase.name] if phase and not phase.workspace else ["pipeline", *result.requested]
    )
    return shlex.join(["cleanroom-engine", *command])


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


def _violations(rows: tuple[ViolationResult, ...]) -> Markup:
    return table(
        ("rule", "what became of it", "process", "target", "times", "where", "how it is known"),
        (
            table_row(
                with_code(row.rule, row.code),
                f"{row.action}{judged(row)}",
                describe_process(row.process, row.attribution_gap),
                f"{row.target} {row.syscall} {row.errno}".strip(),
                str(row.count),
                place_of(row),
                f"{row.mechanism}, {row.certainty}".replace("_", " "),
            )
            for row in rows
        ),
        "None.",
    )


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
            ("Run it again, in the project's folder: ", code_element(_repeat_command(result, None)))
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
