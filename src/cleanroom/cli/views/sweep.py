"""How a sweep of dead runs reads. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom.cli.views.text import safe
from cleanroom.evidence.reports.text import plural

if TYPE_CHECKING:
    from cleanroom.engine import SweepReport


def sweep_lines(report: SweepReport) -> list[str]:
    """What was found dead, what was removed, what is left and why, and which records are gone."""
    if report.dry_run:
        return _dry_run_lines(report)
    return [*_leftover_lines(report), *_expired_lines(report)]


def _dry_run_lines(report: SweepReport) -> list[str]:
    if not report.expired:
        return ["no records would be removed"]
    runs = plural(len(report.expired), "run")
    cut = f", and {plural(report.audit_records, 'record')} of the audit log cut off"
    return [
        safe(f"would be removed: records of {runs}: {', '.join(report.expired)}")
        + (cut if report.audit_records else "")
    ]


def _expired_lines(report: SweepReport) -> list[str]:
    if not report.expired:
        return []
    cut = f", and {plural(report.audit_records, 'record')} of the audit log cut off"
    runs = plural(len(report.expired), "run")
    return [
        safe(f"records of {runs} removed: {', '.join(report.expired)}")
        + (cut if report.audit_records else "")
    ]


def _leftover_lines(report: SweepReport) -> list[str]:
    living = f"; {plural(report.living, 'run')} under way, left alone" if report.living else ""
    if not (report.runs or report.removed or report.left or report.waiting):
        return ["nothing was left behind" + living]
    lines = [
        f"{plural(len(report.runs), 'dead run')}: {safe(', '.join(report.runs)) or 'none'}{living}"
    ]
    lines += [
        safe(f"removed {left.kind} {left.name} {left.detail}").rstrip() for left in report.removed
    ]
    lines += [
        safe(f"left for now {left.kind} {left.name}: {left.detail}") for left in report.waiting
    ]
    return lines + [
        safe(f"could not remove {left.kind} {left.name} {left.detail}").rstrip()
        for left in report.left
    ]
