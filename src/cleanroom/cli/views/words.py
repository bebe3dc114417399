"""How facts read as lines for people.

Pure functions over values, shared by the live run, the replay and the summary.
"""

from __future__ import annotations

import signal
from typing import NamedTuple

from cleanroom.cli.views.text import safe
from cleanroom.core.text import format_size
from cleanroom.evidence.reports.result import PhaseResult, ViolationResult
from cleanroom.evidence.reports.text import (
    describe_violation,
    phase_name,
    place_of,
    plural,
    seconds,
    with_code,
)
from cleanroom.model.events import Artifact, Attached, Recovery, Subject

NOT_HERMETIC = {True: "on the host, not hermetic", False: "with declared egress, not hermetic"}


class Line(NamedTuple):
    """One line to print. `out` is what a person asked for (the result), the rest is progress."""

    text: str
    out: bool = False
    tone: str = ""  # red, green, yellow, bold, dim
    fenced: bool = False  # not ours: a piece of some process's output
    begins: bool = False  # something began: needless where a live tree shows it


def qualified_name(subject: Subject) -> str:
    """A subject's name, behind its workspace where it has one."""
    return safe(f"{subject.workspace}/{subject.name}" if subject.workspace else subject.name)


def title(subject: Subject) -> str:
    """A subject's kind and name."""
    return f"{subject.kind} {qualified_name(subject)}".rstrip()


def exit_status(code: int) -> str:
    """`exit status 7`, with the signal's name where it was one."""
    if 128 < code < 128 + signal.NSIG:
        try:
            return f"exit status {code} ({signal.Signals(code - 128).name})"
        except ValueError:
            pass
    return f"exit status {code}"


def phase_end(
    name: str,
    result: str,
    exit_code: int | None,
    duration_seconds: float,
    reason: str = "",
    code: str = "",
) -> str:
    """How a phase ended, on one line: its name, what became of it, its exit status and code."""
    words = {"timeout": "timed out", "error": "could not be run", "unverified": "ran no command"}
    if exit_code is not None:
        words["unverified"] = "verified nothing"
    text = f"phase {safe(name)} {words.get(result, result)}"
    if result == "passed":
        return f"{text} in {seconds(duration_seconds)}"
    if result == "cached":
        return f"{text}: {safe(reason)}"
    causes = ", ".join(_causes(result, exit_code, reason))
    text += f": {causes}" if causes else ""
    if duration_seconds and " after " not in reason:
        text += f"{', ' if causes else ' '}after {seconds(duration_seconds)}"
    return with_code(text, safe(code))


def end_of_phase(phase: PhaseResult) -> str:
    """`phase_end` of a phase of the result."""
    return phase_end(
        phase_name(phase),
        phase.result,
        phase.exit_code,
        phase.duration_seconds,
        phase.reason,
        phase.code,
    )


def _causes(result: str, exit_code: int | None, reason: str) -> list[str]:
    """Exit status and reason; where the reason ends with the exit status, what led to it first."""
    reason = "" if reason == result else reason
    if exit_code is None:
        return [safe(reason)] if reason else []
    status = f"exit status {exit_code}"
    if reason.endswith(status):
        return [safe(reason.removesuffix(status)) + exit_status(exit_code)]
    return [exit_status(exit_code), *([safe(reason)] if reason else [])]


def violation(row: ViolationResult) -> str:
    """Who tried what, which rule it breaks, the code to look up, and where it happened."""
    place = place_of(row)
    return safe(describe_violation(row) + (f", {place}" if place else ""))


def recovery(event: Recovery) -> str:
    text = f"{event.action.replace('_', ' ')}: {event.subject}"
    text += f", attempt {event.attempt}" if event.attempt else ""
    text += f" after {seconds(event.delay_seconds)}" if event.delay_seconds else ""
    return safe(f"{text}: {event.cause}" if event.cause else text)


def attached(event: Attached) -> str:
    """Which service this run uses without having started it."""
    return safe(
        f"service {event.subject.name}{f' {event.version}' if event.version else ''} is held "
        f"by {event.holder_id}"
    )


def brought_back(files: int, bytes_: int, deleted: int) -> str:
    """How many files were written to the project, how large, and how many it has no more."""
    gone = f"; deleted {deleted}" if deleted else ""
    return f"brought back {plural(files, 'file')}, {format_size(bytes_)}{gone}"


def artifact(event: Artifact) -> str:
    if event.role == "changes":
        note = f": {event.note}" if event.note else ""
        return safe(brought_back(event.files, event.bytes, event.deleted) + note)
    return safe(f"wrote {event.path} ({event.role}, {format_size(event.bytes)})")
