"""Records of the audit log that are written together: made of events, sealed, chained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from time import gmtime, strftime
from typing import Any

import msgspec

from cleanroom.core import disk
from cleanroom.core.files import write_all
from cleanroom.evidence.audit.chain import Head, seal
from cleanroom.model.events import Envelope, Event, Finished, Output, Spans, Subject

_encoder = msgspec.json.Encoder()


class Batch:
    """Records that continue the chain after `head`.

    They are text until they are written: Python formats it in half the time that bytes take.
    """

    def __init__(self, run_id: str, head: Head, count: int) -> None:
        self.count = count  # records of this run
        self._run = _encode_json(run_id)
        self._bytes, self._seq, self._hash = head.bytes, head.seq, head.hash
        self._pieces: list[str] = []  # of lines
        self._subjects: dict[type[Event], dict[Subject, tuple[str, int]]] = {}
        self._second, self._time = -1, ""  # the second of the last record, and how it is written

    def add_events(self, envelopes: Sequence[Envelope]) -> None:
        """Add a record of each event, and a checkpoint behind each end of a phase."""
        bodies = _bodies(envelopes)
        for envelope in envelopes:
            event = envelope.event
            kind = type(event)
            subject_fields, cut = self._subject_fields(kind, event.subject)
            # An event's encoding begins with kind and subject,
            # and no kind is without a further field: the rest is cut off, not encoded anew.
            digested = _DIGEST_BODIES.get(kind)
            body = digested(event) if digested else "{" + next(bodies)[cut:]
            self._add(
                envelope.time_unix_ns, f'{subject_fields},"event":{envelope.seq},"body":{body}'
            )
            if kind is Finished and event.subject.kind == "phase":
                self.add_log_record(
                    "checkpoint",
                    envelope.time_unix_ns,
                    {"phase": event.subject.name, "count": self.count},
                )

    def add_log_record(self, kind: str, time_unix_ns: int, body: Mapping[str, str | int]) -> None:
        """Add a record that is about the log, and no event."""
        subject = _encode_json(Subject("run", ""))
        self._add(time_unix_ns, f'"kind":"{kind}","subject":{subject},"body":{_encode_json(body)}')

    def write(self, descriptor: int) -> Head:
        """Write all records, wait for the disk, and return the head that names the last.

        Raises:
            OSError: they cannot be written.
        """
        data = "".join(self._pieces).encode()
        write_all(descriptor, data)
        disk.here.sync(descriptor)
        return Head(self._bytes + len(data), self._seq, self._hash)

    def _add(self, time_unix_ns: int, fields: str) -> None:
        self._seq += 1
        self.count += 1
        second, nanosecond = divmod(time_unix_ns, 1_000_000_000)
        if second != self._second:
            self._second, self._time = second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        time = f"{self._time}.{nanosecond:09d}Z"
        content = (
            f'{{"seq":{self._seq},"run_id":{self._run},"time":"{time}",'
            f'{fields},"prev":"{self._hash}"'
        )
        end, self._hash = seal(content)
        self._pieces += (content, end)

    def _subject_fields(self, kind: type[Event], subject: Subject) -> tuple[str, int]:
        """The fields of a record for kind and subject,
        and the length of the same part of an event's encoding.
        """
        known = self._subjects.setdefault(kind, {})
        found = known.get(subject)
        if found is None:
            tag, encoded = kind.__struct_config__.tag, _encode_json(subject)
            found = known[subject] = (
                f'"kind":"{tag}","subject":{encoded}',
                len(f'{{"kind":"{tag}","subject":{encoded},'),
            )
        return found


def _bodies(envelopes: Sequence[Envelope]) -> Iterator[str]:
    """The encodings of the events that are recorded in full."""
    return iter(
        _encoder.encode_lines(
            [envelope.event for envelope in envelopes if type(envelope.event) not in _DIGEST_BODIES]
        )
        .decode()
        .split("\n")
    )


def _output_body(event: Output) -> str:
    data = event.text.encode()
    cut = "true" if event.cut else "false"
    counted = f'"offset":{event.offset},"cut":{cut},"bytes":{len(data)}'
    return f'{{"stream":"{event.stream}",{counted},"sha256":"{sha256(data).hexdigest()}"}}'


def _spans_body(event: Spans) -> str:
    data = _encoder.encode(event.resource_spans)
    return f'{{"count":{event.count},"bytes":{len(data)},"sha256":"{sha256(data).hexdigest()}"}}'


# Kinds whose content comes from a phase's own programs: that is in the event log, and the audit
# log has its digest.
_DIGEST_BODIES: dict[type[Event], Callable[[Any], str]] = {Output: _output_body, Spans: _spans_body}


def _encode_json(value: Any) -> str:
    return _encoder.encode(value).decode()
