"""Events as plain lines: for output that is no terminal, for CI and for `events replay`.

Pure: it makes lines, views print them.
"""

from __future__ import annotations

from cleanroom.cli.views import words
from cleanroom.cli.views.process_output import OutputLines, phase_of
from cleanroom.cli.views.progress import Progress, Slow
from cleanroom.cli.views.text import safe
from cleanroom.cli.views.words import Line, qualified_name, title
from cleanroom.core.text import format_size
from cleanroom.evidence.reports.text import plural, seconds
from cleanroom.evidence.reports.violation_results import owner, violation_row
from cleanroom.model.events import (
    Artifact,
    Assertion,
    Attached,
    Capability,
    Envelope,
    Event,
    Finished,
    Ledger,
    Note,
    Output,
    Recovery,
    Started,
    Subject,
    Violation,
)

_PHASE_TONES = {"passed": "green", "cached": "green", "skipped": "dim", "unverified": "yellow"}


class PlainLines:
    """Turns envelopes into lines, one envelope after the other.

    `progress` knows what runs, `output` the last line of each phase.
    """

    def __init__(
        self, *, verbose: int = 0, show_output: bool = True, explain: bool = False
    ) -> None:
        """`explain`: say why a phase went wrong, since no summary follows."""
        self.progress = Progress()
        self.output = OutputLines(show_phases=show_output, show_services=bool(verbose))
        self._header: RunHeader | None = None
        self._verbose = verbose
        self._explain = explain
        # The attributes of each environment's Started: which phase or service it is for.
        self._environments: dict[str, dict[str, str | int | float | bool]] = {}

    def lines(self, envelope: Envelope) -> list[Line]:
        """The lines of this event.

        A run's header waits for the backend's capabilities, so that DEGRADED can stand before
        everything else.
        """
        self.progress.advance(envelope.monotonic_ns)
        event = envelope.event
        if isinstance(event, Started) and event.subject.kind == "run":
            self._header = RunHeader(event, envelope.run_id)
            return []
        if self._header is None:
            return self._event_lines(event, envelope.monotonic_ns)
        if isinstance(event, (Capability, Note)):
            self._header.add(event)
            return _other(event, self._verbose) if isinstance(event, Capability) else []
        header, self._header = self._header.lines(), None
        return [*header, *self._event_lines(event, envelope.monotonic_ns)]

    def tick(self, now_ns: int) -> list[Line]:
        """SLOW lines for what has been running for long at `now_ns`."""
        return [_slow(found) for found in self.progress.pass_thresholds(now_ns)]

    def _event_lines(self, event: Event, at_ns: int) -> list[Line]:
        if isinstance(event, Output):
            return self.output.lines(event)
        if isinstance(event, Started):
            return self._started(event, at_ns)
        if isinstance(event, Finished):
            # What could begin a secret comes after the end of the command that printed it.
            rest = self.output.flush(event.subject) if event.subject.kind != "command" else []
            return rest + self._finished(event)
        if isinstance(event, Violation):
            return self._violation(event)
        return _other(event, self._verbose)

    def _started(self, event: Started, at_ns: int) -> list[Line]:
        subject = event.subject
        if subject.kind == "command":
            self.progress.start_command(phase_of(subject))
        if subject.kind == "environment":
            self._environments[subject.name] = event.attributes
        if subject.kind == "fetch":
            return [Line(f"fetching {safe(subject.name)}", tone="dim")]
        if subject.kind not in ("phase", "service"):
            return [Line(f"{title(subject)} started", tone="dim")] if self._verbose > 1 else []
        self.progress.start(event, at_ns)
        return [_service_started(event) if subject.kind == "service" else _phase_started(event)]

    def _finished(self, event: Finished) -> list[Line]:
        subject = event.subject
        if subject.kind == "readiness":
            return self._readiness(event)
        if subject.kind == "fetch":
            return [_fetch_finished(event)]
        self.progress.end(subject)
        if subject.kind == "phase":
            return [_phase_finished(event, explain=self._explain)]
        if subject.kind == "service" and event.result not in ("passed", "cancelled"):
            text = f"{title(subject)} {event.result}: {safe(event.reason)}"
            return [Line(text, tone="red")]
        if self._verbose > 1 or (self._verbose and subject.kind == "service"):
            return [Line(f"{title(subject)} ended: {event.result}", tone="dim")]
        return []

    def _readiness(self, event: Finished) -> list[Line]:
        service = Subject("service", event.subject.name, event.subject.workspace)
        self.progress.stop_timing(service)
        if event.result == "passed":
            self.progress.set_ready(service)
            text = f"{title(service)} ready in {seconds(event.duration_seconds)}"
            return [Line(text, tone="green")]
        # The end of a service that still runs says why it was not ready.
        if event.result == "cancelled" or self.progress.is_running(service):
            return []
        return [Line(f"{title(service)} not ready: {safe(event.reason)}", tone="red")]

    def _violation(self, event: Violation) -> list[Line]:
        if event.severity == "notice" and not self._verbose:
            return []
        environment = self._environments.get(event.environment, {})
        text = words.violation(violation_row(event, owner(event, environment)))
        if event.severity == "violation":
            return [Line(text, tone="red")]
        return [Line(f"{event.severity}: {text}", tone="yellow")]


class RunHeader:
    """The first lines of a run: degraded rules, then project and backend, then notes."""

    def __init__(self, event: Started, run_id: str) -> None:
        self._run = event
        self._run_id = run_id
        self._backend = str(event.attributes.get("backend", ""))
        self._tier = str(event.attributes.get("tier", ""))
        self._degraded: list[Line] = []
        self._notes: list[Line] = []

    def add(self, event: Capability | Note) -> None:
        """Take in an event from before anything ran.

        The last backend that reports its capabilities is the one that runs.
        """
        if isinstance(event, Capability):
            self._backend, self._tier = event.report.backend, event.report.tier
        elif event.level == "degraded":
            self._degraded += [line._replace(out=True) for line in _note(event)]
        else:
            self._notes += _note(event)

    def lines(self) -> list[Line]:
        """The header, as far as it is known."""
        attributes = self._run.attributes
        environment = attributes.get("environment", "")
        tier = f" ({self._tier})" if self._tier else ""
        parts = [
            self._run.subject.name,
            f"environment {environment}" if environment else "",
            f"backend {self._backend}{tier}" if self._backend else "",
            f"policy {attributes.get('policy', '')}",
            f"run {self._run_id}",
        ]
        header = Line(safe(" · ".join(part for part in parts if part)), tone="bold")
        return [*self._degraded, header, *self._notes]


def _slow(found: Slow) -> Line:
    waiting = f", waiting for {title(found.waits_for)}" if found.waits_for else ""
    text = f"SLOW [> {found.threshold_seconds:.0f} s] {title(found.subject)}{waiting}"
    return Line(text, tone="yellow")


def _service_started(event: Started) -> Line:
    version = event.attributes.get("version", "")
    suffix = f" ({safe(str(version))})" if version else ""
    return Line(f"{title(event.subject)} starting{suffix}", begins=True)


def _phase_started(event: Started) -> Line:
    attributes = event.attributes
    text = f"{title(event.subject)} started"
    hermetic = bool(attributes.get("hermetic", True))
    if not hermetic:
        text += f" {words.NOT_HERMETIC[attributes.get('host') is True]}"
    role = str(attributes.get("role", "phase"))
    if role != "phase":
        text += f" ({role} of {safe(str(attributes.get('of', '')))})"
    uncached = attributes.get("cache")
    if uncached:
        text += f", not from the cache: {safe(str(uncached))}"
    return Line(text, begins=hermetic and not uncached)


def _fetch_finished(event: Finished) -> Line:
    """What was fetched, and how much of it this machine had already."""
    name, took = safe(event.subject.name), seconds(event.duration_seconds)
    if event.result != "passed":
        return Line(f"fetching {name} {event.result}: {safe(event.reason)}", tone="red")
    if not event.attributes["files"]:
        return Line(f"fetched {name}: it needs no files")
    files, fetched = plural(int(event.attributes["files"]), "file"), event.attributes["fetched"]
    size = format_size(int(event.attributes["bytes"]))
    return Line(f"fetched {name}: {files}, {fetched} from registries ({size}), in {took}")


def _phase_finished(event: Finished, *, explain: bool) -> Line:
    """How a phase ended; why one went wrong is for the summary to say, unless `explain`."""
    name = qualified_name(event.subject)
    if event.result not in _PHASE_TONES and not explain:
        text = words.phase_end(name, event.result, None, event.duration_seconds)
        return Line(text, tone="red")
    text = words.phase_end(
        name, event.result, event.exit_code, event.duration_seconds, event.reason, event.code
    )
    return Line(text, tone=_PHASE_TONES.get(event.result, "red"))


def _other(event: Event, verbose: int) -> list[Line]:
    """The lines of an event that changes nothing that runs."""
    if isinstance(event, Note):
        return _note(event)
    if isinstance(event, Recovery):
        return [Line(words.recovery(event), tone="yellow")]
    if isinstance(event, Attached):
        return [Line(words.attached(event))]
    if isinstance(event, Artifact):
        return [Line(words.artifact(event))] if event.role == "changes" or verbose else []
    if isinstance(event, Assertion):
        return _assertion(event, verbose)
    if isinstance(event, Capability) and verbose:
        return [
            Line(safe(f"{row.dimension}: enforced {row.enforced}, {row.mechanism}"), tone="dim")
            for row in event.report.dimensions
        ]
    if isinstance(event, Ledger) and event.left:
        return [Line(safe(f"left behind: {', '.join(event.left)}"), tone="red")]
    return []


def _assertion(event: Assertion, verbose: int) -> list[Line]:
    claim = f"{event.subject.kind} {event.name}"
    if not event.passed:
        text = f"{claim} failed: expected {event.expected}, found {event.found}"
        return [Line(safe(text), tone="red")]
    return [Line(safe(f"{claim} passed: {event.found}"), tone="dim")] if verbose > 1 else []


def _note(event: Note) -> list[Line]:
    tone = {"info": "", "warning": "yellow", "degraded": "red"}[event.level]
    label = {"info": "note", "warning": "warning", "degraded": "DEGRADED"}[event.level]
    code = f" [{safe(event.code)}]" if event.code else ""
    first, *rest = event.text.splitlines() or [""]
    return [
        Line(f"{label}: {safe(first)}{code}", tone=tone),
        *(Line(f"  {safe(line)}", tone=tone) for line in rest),
    ]
