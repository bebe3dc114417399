"""Spans of a run as its events tell them: when each began and ended, and with what attributes."""

from __future__ import annotations

from cleanroom.evidence.reports.tail import Tail
from cleanroom.model.events import Envelope, Finished, Started, Subject

Attributes = dict[str, str | int | float | bool]


class RunTimes:
    """Turns monotonic times of events into seconds after the run's start."""

    def __init__(self) -> None:
        self.began_ns = 0
        # of the last event
        self.last_ns = 0

    def seconds(self, monotonic_ns: int) -> float:
        return round((monotonic_ns - self.began_ns) / 1e9, 6)

    def moment(self, monotonic_ns: int | None) -> float | None:
        return None if monotonic_ns is None else self.seconds(monotonic_ns)


class Span:
    """What has begun and may have ended. The subject's attributes are those of both its ends."""

    def __init__(self, subject: Subject, began_ns: int, attributes: Attributes) -> None:
        self.subject = subject
        self.began_ns = began_ns
        self.ended_ns: int | None = None
        self.attributes = dict(attributes)
        self.finished: Finished | None = None
        self.tail = Tail()

    def end(self, event: Finished, at_ns: int) -> None:
        self.finished = event
        self.ended_ns = at_ns
        self.attributes.update(event.attributes)
        if event.result == "passed":
            self.tail.clear()

    def text(self, name: str, default: str = "") -> str:
        return str(self.attributes.get(name, default))

    def number(self, name: str) -> int | float | None:
        """None where it is not there, or no number."""
        value = self.attributes.get(name)
        return None if isinstance(value, str | bool) else value


class OpenSpans:
    """The spans that have begun and not ended, by their ids."""

    def __init__(self) -> None:
        self._open: dict[str, Span] = {}

    def begin(self, envelope: Envelope, event: Started) -> Span:
        span = Span(event.subject, envelope.monotonic_ns, event.attributes)
        self._open[envelope.span_id] = span
        return span

    def end(self, envelope: Envelope, event: Finished) -> Span | None:
        """The span that this event ends; None where its subject never began."""
        span = self._open.get(envelope.span_id)
        if span is None or span.subject != event.subject:
            return None
        del self._open[envelope.span_id]
        span.end(event, envelope.monotonic_ns)
        return span
