"""The endpoint for spans of code under test: what it takes, what it refuses,
and that nothing else gets out that way.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.bus import Bus, SpanContext, Subscription
from cleanroom.core.clock import SystemClock
from cleanroom.core.redaction import Redactor
from cleanroom.engine.phases.span_receiver import (
    PHASE_SPANS,
    REQUEST_BYTES,
    SPANS_PER_SECOND,
    Quota,
    inflated,
    receive,
)
from cleanroom.evidence.tracing import otlp_json, read_otlp_json, spans
from cleanroom.evidence.tracing.otlp_json import from_otlp
from cleanroom.evidence.tracing.received import NotTaken, adopted, decode
from cleanroom.evidence.tracing.span import Source, SpanEvent
from cleanroom.model.events import Note, Spans, Subject
from cleanroom.sandbox.network.dial import dial_out
from support.event_log_builder import TRACE, shop
from support.otlp_collector import collecting, spans_of

pytest.importorskip("opentelemetry.proto", reason="the extra otlp is not installed")
pytest.importorskip("h11", reason="the extra otlp is not installed")

HERE = SpanContext("a" * 32, "b" * 16, "")
PHASE = Subject("phase", "test")
JSON = b"content-type: application/json\r\n"


def protobuf() -> bytes:
    """The shop's spans as an exporter sends them."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    from cleanroom.evidence.tracing.sdk import sdk_spans

    return encode_spans(sdk_spans(spans(shop()))).SerializeToString()


async def answered(folder: Path, *requests: bytes, secret: str = "") -> tuple[list[int], list[Any]]:
    """What the endpoint answers to these requests, each on a connection of its own,
    and what it published.
    """
    bus = Bus("r", SystemClock(), trace_id=HERE.trace_id, redactor=Redactor([secret]))
    inbox: Subscription = bus.subscribe("all", limit=1000)
    statuses = []
    async with receive(bus, PHASE, HERE, folder) as receiver:
        path = receiver.port_forward.to
        for request in requests:
            reader, writer = await asyncio.open_unix_connection(sock=dial_out(path))
            writer.write(request)
            writer.write_eof()
            line = await reader.readline()
            statuses.append(int(line.split()[1]) if line else 0)
            writer.transport.abort()
    bus.close()
    found = [envelope.event for envelope in await inbox.batch()]
    return statuses, found


def post(
    body: bytes, head: bytes = JSON, path: bytes = b"/v1/traces", method: bytes = b"POST"
) -> bytes:
    return b"%b %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%b\r\n%b" % (
        method,
        path,
        len(body),
        head,
        body,
    )


@pytest.mark.parametrize("form", ["json", "protobuf", "gzip"])
async def test_spans_are_taken_in_every_form_that_exporters_send(tmp_path: Path, form: str) -> None:
    """JSON, protobuf, compressed: the same spans, of the run's own trace."""
    head = b"content-type: application/x-protobuf\r\n"
    request = {
        "json": post(otlp_json(spans(shop()))),
        "protobuf": post(protobuf(), head),
        "gzip": post(gzip.compress(protobuf()), head + b"content-encoding: gzip\r\n"),
    }[form]
    statuses, published = await answered(tmp_path, request)

    assert statuses == [200]
    (event,) = published
    assert isinstance(event, Spans)
    found = from_otlp(event.resource_spans)
    assert [(s.span_id, s.name, s.trace_id) for s in found] == [
        (s.span_id, s.name, HERE.trace_id) for s in spans(shop())
    ]
    assert all(span.attributes["cleanroom.of"] == "test" for span in found)


async def test_a_secret_in_a_span_of_code_under_test_goes_no_further(tmp_path: Path) -> None:
    """In its name, an attribute, an event or its resource:
    nobody who is told of the span sees it.
    """
    import msgspec

    told = {"password": "hunter22"}
    span = msgspec.structs.replace(
        spans(shop())[0],
        name="login hunter22",
        attributes=told,
        events=(SpanEvent("said hunter22", 1, told),),
        message="hunter22",
        source=Source({"argv": ["--token=hunter22"]}),
    )
    statuses, published = await answered(tmp_path, post(otlp_json([span])), secret="hunter22")

    assert statuses == [200]
    assert "hunter22" not in str(published)
    assert from_otlp(published[0].resource_spans)[0].name == "login [redacted]"


async def test_anything_but_spans_is_refused_and_told_once(tmp_path: Path) -> None:
    """Other paths and methods, other types, rubbish: an error each, one note in the end,
    nothing published.
    """
    statuses, published = await answered(
        tmp_path,
        post(b"{}", path=b"/v1/logs"),
        post(b"", method=b"GET"),
        post(b"{}", path=b"http://evil.example/v1/traces"),
        post(b"x" * 50),
        post(b"secret", b"content-type: text/plain\r\n"),
        post(b"\xff\xff\xff", b"content-type: application/x-protobuf\r\n"),
        post(b"not gzip", JSON + b"content-encoding: gzip\r\n"),
    )

    assert statuses == [404, 404, 404, 400, 400, 400, 400]
    (note,) = published
    assert isinstance(note, Note)
    assert note.code == "CR-TRACE-007"
    assert "secret" not in note.text


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\x00" * 2000,
        b"GET",
        b"POST /v1/traces HTTP/1.1\r\n" + b"x: " + b"y" * 200_000,
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffff\r\n",
        post(b"{}") + post(b"{}", b"content-length: 3\r\n"),
    ],
)
async def test_what_is_not_http_ends_its_connection_and_nothing_more(
    tmp_path: Path, request_bytes: bytes
) -> None:
    """The next client is served as if nothing had been."""
    statuses, published = await answered(tmp_path, request_bytes, post(otlp_json(spans(shop()))))

    assert statuses[-1] == 200
    assert sum(isinstance(event, Spans) for event in published) == 1


async def test_a_request_is_bounded_before_and_after_it_is_unpacked(tmp_path: Path) -> None:
    """4 MiB: a body, and what a small body unpacks to."""
    bomb = gzip.compress(b"\0" * (REQUEST_BYTES * 20))
    statuses, published = await answered(
        tmp_path, post(b"x" * (REQUEST_BYTES + 1)), post(bomb, JSON + b"content-encoding: gzip\r\n")
    )

    assert statuses == [413, 400]
    assert not any(isinstance(event, Spans) for event in published)


def test_a_phase_is_bounded_in_rate_and_in_all():
    """A burst of two seconds, then the average; and an end."""
    quota = Quota(0.0)

    assert quota.charge(2 * SPANS_PER_SECOND, 10, 0.0) is None
    assert quota.charge(1, 10, 0.0).status == 429
    assert quota.charge(SPANS_PER_SECOND, 10, 1.0) is None
    assert quota.charge(PHASE_SPANS, 10, 100.0).status == 413


def test_a_cut_stream_is_not_taken_as_whole():
    """Half a gzip is an error."""
    with pytest.raises(NotTaken):
        inflated(gzip.compress(b"x" * 1000)[:-20], "gzip")


@given(st.binary(max_size=200), st.sampled_from(["application/json", "application/x-protobuf"]))
def test_rubbish_is_never_more_than_not_taken(body: bytes, kind: str) -> None:
    """Whatever a program sends, reading it ends in spans or in that one exception."""
    try:
        found = decode(body, kind)
    except NotTaken:
        return
    assert read_otlp_json(otlp_json(adopted(found, "a" * 32, "b" * 16, "test"))) is not None


def test_a_trace_of_its_own_is_adopted():
    """Its root hangs below the phase, its other spans keep their parents,
    links within it follow.
    """
    found = adopted(spans(shop()), HERE.trace_id, HERE.span_id, "test")

    assert {span.trace_id for span in found} == {HERE.trace_id}
    assert [span.parent_id for span in found] == [
        span.parent_id or HERE.span_id for span in spans(shop())
    ]


def test_what_is_too_long_is_cut():
    """Names, values, lists and numbers of attributes and events:
    one program cannot fill the run's files.
    """
    import msgspec

    large = msgspec.structs.replace(
        spans(shop())[0],
        name="n" * 5000,
        attributes={f"k{number}": ["v" * 5000] * 500 for number in range(500)},
        message="m" * 5000,
        kind=99,
        status=77,
        end_ns=0,
    )
    (found,) = adopted([large], TRACE, "b" * 16, "test")

    assert len(json.dumps(found.attributes)) < 129 * 64 * 1200
    assert (len(found.name), len(found.message), found.kind, found.status, found.duration_ns) == (
        1024,
        1024,
        0,
        0,
        0,
    )


def test_a_test_is_a_span_when_that_is_asked_for(tmp_path: Path):
    """`pytest --cleanroom-spans`: one span per test below the caller's, with how it ended."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_good(): pass\ndef test_bad(): assert 1 == 2\n"
        "@pytest.mark.skip\ndef test_not(): pass\n"
    )
    with collecting() as collector:
        import os
        import sys

        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "TRACEPARENT": f"00-{TRACE}-00f067aa0ba902b7-01",
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--cleanroom-spans",
            "test_it.py",
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        found = {span.name: span for span in spans_of(collector)}

    assert done.returncode == 1, done.stdout + done.stderr
    assert {name.partition("::")[2]: _status(span) for name, span in found.items()} == {
        "test_good": "pass",
        "test_bad": "fail",
        "test_not": "skip",
    }
    assert {(span.trace_id.hex(), span.parent_span_id.hex()) for span in found.values()} == {
        (TRACE, "00f067aa0ba902b7")
    }
    assert found["test_it.py::test_bad"].status.code == 2


def _status(span: Any) -> str:
    return next(
        attribute.value.string_value
        for attribute in span.attributes
        if attribute.key == "test.case.result.status"
    )
