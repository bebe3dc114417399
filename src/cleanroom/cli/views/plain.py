"""Events as plain lines: what is printed where there is no terminal, in CI and by `events replay`.

Pure: it knows, others print.

Every line of a phase's own output is fenced by `NAME | `,
so that nothing a phase prints can pass for one of ours.
"""

from __future__ import annotations

from cleanroom.cli.views import words
from cleanroom.cli.views.text import overwritten, safe
from cleanroom.cli.views.words import Line
from cleanroom.evidence.reports.fold import owner, violation_row
from cleanroom.evidence.reports.text import seconds
from cleanroom.model.events import (
    Artifact,
    Assertion,
    Attached,
    Capability,
    Envelope,
    Finished,
    Ledger,
    Note,
    Output,
    Recovery,
    Started,
    Subject,
    Violation,
)

# a line without an end is shown in pieces of this size, so that it cannot fill the memory
_LINE_MAX = 64 * 1024
_SLOW_SECONDS = 5.0  # first said after this long, then each time the time has doubled


class Plain:
    """Turns envelopes into lines, one after the other.

    `last_lines` has what each phase printed last.
    """

    def __init__(self, *, verbose: int = 0, show_output: bool = True) -> None:
        self.last_lines: dict[Subject, str] = {}
        self.now_ns = 0
        self._head: Head | None = None
        self._verbose = verbose
        self._show_output = show_output
        self._partial: dict[tuple[Subject, str], str] = {}
        self._began: dict[Subject, int] = {}
        self._slow: dict[Subject, float] = {}
        self._ready: set[Subject] = set()
        # what they were said to be for
        self._environments: dict[str, dict[str, str | int | float | bool]] = {}
        # phases whose first command has not begun: the services that they name
        self._needs: dict[Subject, tuple[str, ...]] = {}

    def lines(self, envelope: Envelope) -> list[Line]:
        """What this event says.

        The head of a run waits for the backend's word, so that DEGRADED can stand before everything
        else.
        """
        self.now_ns = max(self.now_ns, envelope.monotonic_ns)
        event = envelope.event
        if isinstance(event, Started) and event.subject.kind == "run":
            self._head = Head(event, envelope.run_id)
            return []
        if self._head is None:
            return self._said(envelope)
        if isinstance(event, (Capability, Note)):
            self._head.add(event)
            return self._other(event) if isinstance(event, Capability) else []
        head, self._head = self._head.lines(), None
        return [*head, *self._said(envelope)]

    def _said(self, envelope: Envelope) -> list[Line]:
        event = envelope.event
        if isinstance(event, Output):
            return self._output(event)
        if isinstance(event, Started):
            return self._started(event, envelope.monotonic_ns)
        if isinstance(event, Finished):
            return self._finished(event)
        if isinstance(event, Violation):
            return self._violation(event)
        return self._other(event)

    def tick(self, now_ns: int) -> list[Line]:
        """SLOW lines for what has been running for long at `now_ns`."""
        self.now_ns = max(self.now_ns, now_ns)
        said = []
        for subject, threshold in self._slow.items():
            passed = (now_ns - self._began[subject]) / 1e9
            if passed < threshold:
                continue
            while threshold * 2 <= passed:
                threshold *= 2
            self._slow[subject] = threshold * 2
            held_up = self._held_up(subject)
            waiting = f", waiting for {_named(max(held_up, key=self._seconds))}" if held_up else ""
            said.append(
                Line(f"SLOW [> {threshold:.0f} s] {_named(subject)}{waiting}", tone="yellow")
            )
        return said

    def running(self) -> list[tuple[Subject, float, bool]]:
        """What is running now: subject, seconds so far, and whether it is a service that is
        ready.
        """
        return [
            (subject, self._seconds(subject), subject in self._ready) for subject in self._began
        ]

    def awaited(self) -> tuple[Subject, float] | None:
        """What the run waits for, the slowest of it: a phase that runs commands,
        or a service that a phase cannot begin without.
        """
        found = [
            blamed
            for subject in self._began
            if subject.kind == "phase"
            for blamed in (self._held_up(subject) or [subject])
        ]
        slowest = max(found, key=self._seconds, default=None)
        return (slowest, self._seconds(slowest)) if slowest else None

    def _held_up(self, phase: Subject) -> list[Subject]:
        """The services that this phase waits for."""
        return [
            service
            for service in self._began
            if service.kind == "service"
            and service.name in self._needs.get(phase, ())
            and service not in self._ready
        ]

    def _seconds(self, subject: Subject) -> float:
        return max(self.now_ns - self._began[subject], 0) / 1e9

    def _started(self, event: Started, at_ns: int) -> list[Line]:
        subject = event.subject
        if subject.kind == "command":
            self._needs.pop(_owner(subject), None)
        if subject.kind == "environment":
            self._environments[subject.name] = event.attributes
        if subject.kind not in ("phase", "service"):
            return [Line(f"{_named(subject)} started", tone="dim")] if self._verbose > 1 else []
        self._began[subject] = at_ns
        self._slow[subject] = _SLOW_SECONDS
        if subject.kind == "service":
            return [Line(f"{_named(subject)} starting{_versioned(event)}", begins=True)]
        self._needs[subject] = tuple(str(event.attributes.get("services", "")).split(","))
        host = (
            ""
            if event.attributes.get("hermetic", True)
            else f" {words.NOT_HERMETIC[event.attributes.get('host') is True]}"
        )
        role = str(event.attributes.get("role", "phase"))
        of = f" ({role} of {safe(str(event.attributes.get('of', '')))})" if role != "phase" else ""
        uncached = (
            f", not from the cache: {safe(str(why))}"
            if (why := event.attributes.get("cache"))
            else ""
        )
        return [
            Line(f"{_named(subject)} started{host}{of}{uncached}", begins=not (host or uncached))
        ]

    def _finished(self, event: Finished) -> list[Line]:
        subject = event.subject
        flushed = self._flush(subject)
        if subject.kind == "readiness":
            return flushed + self._readiness(event)
        self._began.pop(subject, None)
        self._slow.pop(subject, None)
        self._needs.pop(subject, None)
        self._ready.discard(subject)
        if subject.kind == "phase":
            name = _place(subject)
            text = words.phase_end(
                name, event.result, event.exit_code, event.duration_seconds, event.reason
            )
            tone = {
                "passed": "green",
                "cached": "green",
                "skipped": "dim",
                "unverified": "yellow",
            }.get(event.result, "red")
            return [*flushed, Line(text, tone=tone)]
        if subject.kind == "service" and event.result not in ("passed", "cancelled"):
            return [
                *flushed,
                Line(f"{_named(subject)} {event.result}: {safe(event.reason)}", tone="red"),
            ]
        shown = self._verbose > 1 or (self._verbose and subject.kind == "service")
        return (
            [*flushed, Line(f"{_named(subject)} ended: {event.result}", tone="dim")]
            if shown
            else flushed
        )

    def _readiness(self, event: Finished) -> list[Line]:
        service = Subject("service", event.subject.name, event.subject.workspace)
        self._slow.pop(service, None)
        if event.result == "passed":
            self._ready.add(service)
            return [
                Line(f"{_named(service)} ready in {seconds(event.duration_seconds)}", tone="green")
            ]
        if event.result == "cancelled" or service in self._began:  # whose own end says why
            return []
        return [Line(f"{_named(service)} not ready: {safe(event.reason)}", tone="red")]

    def _violation(self, event: Violation) -> list[Line]:
        if event.severity == "notice" and not self._verbose:
            return []
        text = words.violation(
            violation_row(event, *owner(event, self._environments.get(event.environment, {})))
        )
        if event.severity == "violation":
            return [Line(text, tone="red")]
        return [Line(f"{event.severity}: {text}", tone="yellow")]

    def _other(self, event: object) -> list[Line]:
        if isinstance(event, Note):
            return _note(event)
        if isinstance(event, Recovery):
            return [Line(words.recovery(event), tone="yellow")]
        if isinstance(event, Attached):
            return [Line(words.attached(event))]
        if isinstance(event, Artifact):
            return [Line(words.artifact(event))] if event.role == "changes" or self._verbose else []
        if isinstance(event, Assertion):
            return self._assertion(event)
        if isinstance(event, Capability) and self._verbose:
            return [
                Line(safe(f"{row.dimension}: enforced {row.enforced}, {row.mechanism}"), tone="dim")
                for row in event.report.dimensions
            ]
        if isinstance(event, Ledger) and event.left:
            return [Line(safe(f"left behind: {', '.join(event.left)}"), tone="red")]
        return []

    def _assertion(self, event: Assertion) -> list[Line]:
        if not event.passed:
            text = safe(
                f"{event.subject.kind} {event.name} failed: expected {event.expected}, found "
                f"{event.found}"
            )
            return [Line(text, tone="red")]
        return (
            [Line(safe(f"{event.subject.kind} {event.name} passed: {event.found}"), tone="dim")]
            if self._verbose > 1
            else []
        )

    def _output(self, event: Output) -> list[Line]:
        owner = _owner(event.subject)
        key = (owner, event.stream)
        text = self._partial.pop(key, "") + event.text
        *complete, rest = text.split("\n")
        while len(rest) > _LINE_MAX:
            complete.append(rest[:_LINE_MAX])
            rest = rest[_LINE_MAX:]
        if rest:
            self._partial[key] = rest
        if event.cut:
            complete.append("[cut: the rest is not kept]")
        return self._fenced(owner, complete)

    def _flush(self, subject: Subject) -> list[Line]:
        """The lines that `subject` left without an end."""
        owner = _owner(subject)
        return [
            line
            for stream in ("stdout", "stderr")
            if (rest := self._partial.pop((owner, stream), ""))
            for line in self._fenced(owner, [rest])
        ]

    def _fenced(self, owner: Subject, texts: list[str]) -> list[Line]:
        shown = [safe(overwritten(text)) for text in texts]
        if owner.kind == "phase":
            self.last_lines.update((owner, text) for text in shown if text.strip())
            return (
                [Line(f"{_place(owner)} | {text}", out=True, fenced=True) for text in shown]
                if self._show_output
                else []
            )
        return (
            [Line(f"{_place(owner)} | {text}", tone="dim", fenced=True) for text in shown]
            if self._verbose
            else []
        )


class Head:
    """The first lines of a run: what is run where, after what it lacks."""

    def __init__(self, event: Started, run_id: str) -> None:
        self._run = event
        self._run_id = run_id
        self._backend = str(event.attributes.get("backend", ""))
        self._tier = str(event.attributes.get("tier", ""))
        self._degraded: list[Line] = []
        self._notes: list[Line] = []

    def add(self, event: Capability | Note) -> None:
        """What was said before anything ran.

        The last backend that was asked is the one that runs.
        """
        if isinstance(event, Capability):
            self._backend, self._tier = event.report.backend, event.report.tier
        elif event.level == "degraded":
            self._degraded += [line._replace(out=True) for line in _note(event)]
        else:
            self._notes += _note(event)

    def lines(self) -> list[Line]:
        attributes = self._run.attributes
        environment = attributes.get("environment", "")
        tier = f" ({self._tier})" if self._tier else ""
        backend = f"backend {self._backend}{tier}" if self._backend else ""
        parts = [
            self._run.subject.name,
            f"environment {environment}" if environment else "",
            backend,
            f"policy {attributes.get('policy', '')}",
        ]
        header = Line(
            safe(" · ".join(part for part in (*parts, f"run {self._run_id}") if part)), tone="bold"
        )
        return [*self._degraded, header, *self._notes]


def _owner(subject: Subject) -> Subject:
    """The phase that a command belongs to, else the subject itself."""
    if subject.kind == "command":
        return Subject("phase", subject.name.rpartition("#")[0] or subject.name, subject.workspace)
    return subject


def _place(subject: Subject) -> str:
    return safe(f"{subject.workspace}/{subject.name}" if subject.workspace else subject.name)


def _named(subject: Subject) -> str:
    return f"{subject.kind} {_place(subject)}".rstrip()


def _versioned(event: Started) -> str:
    version = event.attributes.get("version", "")
    return f" ({safe(str(version))})" if version else ""


def _note(event: Note) -> list[Line]:
    tone = {"info": "", "warning": "yellow", "degraded": "red"}[event.level]
    label = {"info": "note", "warning": "warning", "degraded": "DEGRADED"}[event.level]
    code = f" [{safe(event.code)}]" if event.code else ""
    first, *rest = event.text.splitlines() or [""]
    return [
        Line(f"{label}: {safe(first)}{code}", tone=tone),
        *(Line(f"  {safe(line)}", tone=tone) for line in rest),
    ]
