"""What happened: facts in the past tense, as a tagged union,
and the envelope the bus wraps each one in.

The tags are the audit log's vocabulary: written out, so that renaming a class cannot change the
log.
Fields are only ever added.
`cleanroom-engine events schema` prints the JSON Schema; `docs/events.schema.json` pins it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from cleanroom.model.capability import (
    Attempt,
    Canary,
    CapabilityReport,
    Natural,
    Number,
    Process,
    Seconds,
    Target,
    Whole,
)
from cleanroom.model.policy import Dimension

SCHEMA = "cleanroom.events/1"

SubjectKind = Literal[
    "run",
    "workspace",
    "phase",
    "command",
    "service",
    "readiness",
    "environment",
    "canary",
    "step",
    "package",
    "check",
    "report",
    "unwind",
    "prepare",
    "fetch",
]
Result = Literal[
    "passed",
    "cached",
    "failed",
    "error",
    "timeout",
    "cancelled",
    "skipped",
    "refused",
    "unverified",
]


class Subject(msgspec.Struct, frozen=True):
    """What an event is about."""

    kind: SubjectKind
    name: str
    workspace: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


class Event(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=False
):
    """Base of all events."""

    subject: Subject


class Started(Event, tag="started", frozen=True, kw_only=True):
    """The subject began. Whatever `bus.span` opens publishes one of these, and one Finished."""

    attributes: dict[str, str | Whole | Number | bool] = {}


class Finished(Event, tag="finished", frozen=True, kw_only=True):
    """The subject ended."""

    result: Result
    duration_seconds: Seconds
    # of a command or phase: null if it did not run, 128+n for signal n
    exit_code: Whole | None = None
    reason: str = ""  # one sentence; empty for passed
    code: str = ""  # CR-...
    attributes: dict[str, str | Whole | Number | bool] = {}


class Output(Event, tag="output", frozen=True, kw_only=True):
    """A piece of what the subject's processes wrote.

    Bounded; undecodable bytes are replaced.
    The whole is in `logs/`.
    """

    stream: Literal["stdout", "stderr"]
    text: str
    offset: Natural  # bytes of this stream before this piece
    cut: bool = False  # the stream went past its limit here; nothing after it is kept


class Metric(Event, tag="metric", frozen=True, kw_only=True):
    """One reading of one environment's use of the host, taken by the supervisor."""

    environment: str
    cpu_seconds: Seconds  # total since start, so a lost sample loses no CPU time
    memory_bytes: Natural
    disk_bytes: Natural
    network_bytes: Natural
    processes: Natural
    source: str
    largest: Process | None = None  # as in capability.Sample


class Violation(Event, tag="violation", frozen=True, kw_only=True):
    """An attempt against the policy, judged. The fields are those of `capability.Attempt`."""

    environment: str
    dimension: Dimension
    rule: str
    severity: Literal["violation", "notice", "tolerated"]
    outcome: str
    mechanism: str
    certainty: str
    confidence: Literal["kernel", "observed", "inferred"]
    target: Target
    process: Process | None = None
    attribution_gap: str = ""
    syscall: str = ""
    errno: str = ""
    tags: tuple[str, ...] = ()
    count: Natural = 1
    first_unix_ns: Natural = 0
    last_unix_ns: Natural = 0
    reason: str = ""  # why it is tolerated, or which limit was judged


class Assertion(Event, tag="assertion", frozen=True, kw_only=True):
    """A claim that was checked. A canary is one, with its dimension."""

    name: str
    passed: bool
    expected: str = ""
    found: str = ""
    dimension: str = ""
    rule: str = ""
    environment: str = ""


class Recovery(Event, tag="recovery", frozen=True, kw_only=True):
    """What was done about trouble, or given up."""

    action: Literal["restarted", "gave_up", "killed", "blocked", "ended", "rolled_back", "removed"]
    cause: str
    attempt: Natural = 0
    delay_seconds: Seconds = 0.0


class Artifact(Event, tag="artifact", frozen=True, kw_only=True):
    """A file was written, or files were brought back."""

    path: str  # relative to the project where it lies inside
    role: str  # report.json, report.junit, ..., trace, log, diff, audit, changes, autorun
    bytes: Natural = 0
    sha256: str = ""
    files: Natural = 1
    note: str = ""
    # Of role changes: files, links and folders without any that the project has no more.
    deleted: Natural = 0
    # Of role autorun: some of the files, each with what of the host starts or reads it by itself.
    autorun: dict[str, str] = {}
    # Of role would_change: at most 1,000 paths, each with its kind: file, directory, symlink or
    # deleted.
    changes: dict[str, str] = {}


class Capability(Event, tag="capability", frozen=True, kw_only=True):
    """What the backend said it can hold here, before the first phase."""

    report: CapabilityReport


class Ledger(Event, tag="ledger", frozen=True, kw_only=True):
    """The account at the end: everything created was removed, is held by a session, or is left."""

    created: Natural
    removed: Natural
    held: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Attached(Event, tag="attached", frozen=True, kw_only=True):
    """The run uses a service that it did not start: a session or a pool holds it.

    `trace_id` and `span_id` link to the service's own span there.
    """

    holder: Literal["session", "pool"]
    holder_id: str
    version: str = ""
    port: int = 0
    server_sha256: str = ""
    started_unix_ns: int = 0  # when its last life began
    trace_id: str = ""
    span_id: str = ""
    log: str = ""

    @property
    def traceparent(self) -> str:
        """The service's own span, as W3C writes it."""
        return f"00-{self.trace_id}-{self.span_id}-01"


class Note(Event, tag="note", frozen=True, kw_only=True):
    """Something a reader has to be told: degraded, a conflict, a lost sample,
    the engine's own warning.
    """

    level: Literal["info", "warning", "degraded"]
    text: str
    code: str = ""


class Spans(Event, tag="spans", frozen=True, kw_only=True):
    """Spans that the subject's own programs sent to the run, checked and bounded:
    `resourceSpans` of OTLP/JSON.

    The audit log holds count and digest only.
    """

    count: int
    resource_spans: tuple[dict[str, Any], ...]


AnyEvent = (
    Started
    | Finished
    | Output
    | Metric
    | Violation
    | Assertion
    | Recovery
    | Artifact
    | Capability
    | Ledger
    | Attached
    | Note
    | Spans
)


class Envelope(msgspec.Struct, frozen=True):
    """An event on the bus.

    Ids are lower-case hex: 32 digits for a trace, 16 for a span, empty where there is none.
    """

    seq: Natural  # from 1, without gaps
    run_id: str
    time_unix_ns: Natural
    monotonic_ns: Natural
    trace_id: str
    span_id: str
    parent: str  # the span that span_id is a child of
    event: AnyEvent


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)


def encode(envelope: Envelope) -> bytes:
    """One JSON object without a line end."""
    return _encoder.encode(envelope)


def encode_lines(envelopes: Sequence[Envelope]) -> bytes:
    """Each with a line end: for many at once in half the time."""
    return _encoder.encode_lines(envelopes)


def decode(line: bytes | str) -> Envelope:
    """The inverse of `encode`; unknown fields are ignored, so that a newer log can be read.

    Raises: msgspec.ValidationError, msgspec.DecodeError:
        it is not an envelope; the message names the path.
    """
    return _decoder.decode(line)


def violation(
    subject: Subject,
    attempt: Attempt,
    severity: Literal["violation", "notice", "tolerated"],
    reason: str = "",
) -> Violation:
    """`attempt` as a judged fact."""
    certain = {
        "kernel_verdict": "kernel",
        "packet": "kernel",
        "counter": "kernel",
        "held_syscall": "observed",
        "sampled": "observed",
    }
    fields: dict[str, Any] = {name: getattr(attempt, name) for name in attempt.__struct_fields__}
    return Violation(
        subject=subject,
        severity=severity,
        confidence=certain.get(attempt.certainty, "inferred"),  # type: ignore[arg-type]
        reason=reason,
        **fields,
    )


def assertion(subject: Subject, canary: Canary, environment: str) -> Assertion:
    """A canary's outcome as a fact."""
    return Assertion(
        subject=subject,
        name=canary.name,
        passed=canary.result == "passed",
        expected=canary.expected,
        found=canary.found,
        dimension=canary.dimension,
        rule=canary.rule,
        environment=environment,
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of an envelope."""
    made: dict[str, Any] = _with_descriptions_in_one_line(msgspec.json.schema(Envelope))
    return made


def _with_descriptions_in_one_line(part: Any) -> Any:
    """The same schema; its descriptions are docstrings, which are broken into lines."""
    if isinstance(part, list):
        return [_with_descriptions_in_one_line(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {
        key: " ".join(value.split())
        if key == "description" and isinstance(value, str)
        else _with_descriptions_in_one_line(value)
        for key, value in part.items()
    }


# attribute of a Started: a traceparent of work that is shared,
# such as the start of a pooled service
LINK = "linked_span"
