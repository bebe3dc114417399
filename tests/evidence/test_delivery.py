"""Delivery to a collector: complete where it behaves, without cost where it does not."""

from __future__ import annotations

import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cleanroom.evidence.tracing import SpanData, spans
from cleanroom.evidence.tracing.delivery import (
    BATCH_BYTES,
    BATCH_ITEMS,
    Delivered,
    Delivery,
    batches,
    phrase,
    without_secrets,
)
from cleanroom.evidence.tracing.sdk import exporter
from cleanroom.evidence.tracing.settings import read_settings
from cleanroom.evidence.tracing.span import Source
from cleanroom.model.errors import BackendUnavailable
from support.event_log_builder import TRACE, shop
from support.otlp_collector import collecting, grpc_collecting, spans_of

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra otlp is not installed"
)


def deliver(endpoint: str, *, seconds: float = 5, **variables: str) -> Delivered:
    """The shop's spans, as the end of a run delivers them."""
    return deliver_these(spans(shop()), endpoint, seconds=seconds, **variables)


def deliver_these(
    found: list[SpanData], endpoint: str, *, seconds: float = 5, **variables: str
) -> Delivered:
    path = "" if "OTEL_EXPORTER_OTLP_PROTOCOL" in variables else "/v1/traces"
    delivery = Delivery(
        read_settings(
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{endpoint}{path}", **variables}
        ).destinations
    )
    delivery.put("traces", found)
    return delivery.finish(seconds)


def test_a_collector_gets_every_span_with_its_ids_and_parents():
    """What arrives is what the file holds."""
    with collecting() as collector:
        delivered = deliver(collector.endpoint)
        taken = spans_of(collector)

    assert delivered.complete
    assert {(s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex(), s.name) for s in taken} == {
        (s.trace_id, s.span_id, s.parent_id, s.name) for s in spans(shop())
    }
    assert taken[0].trace_id.hex() == TRACE


def test_events_status_kind_and_times_arrive():
    """A violation is an event, a failure an error, to the nanosecond."""
    with collecting() as collector:
        deliver(collector.endpoint)
        taken = {span.name: span for span in spans_of(collector)}
    ours = {span.name: span for span in spans(shop())}

    assert [event.name for event in taken["environment test-1"].events] == [
        event.name for event in ours["environment test-1"].events
    ]
    assert (taken["phase test"].status.code, taken["phase test"].status.message) == (
        2,
        ours["phase test"].message,
    )
    assert (taken["RUN shop"].kind, taken["phase test"].kind) == (2, 1)
    assert all(
        (taken[name].start_time_unix_nano, taken[name].end_time_unix_nano)
        == (span.start_ns, span.end_ns)
        for name, span in ours.items()
    )


def test_headers_and_compression_are_those_of_the_environment():
    """What a hosted collector asks for."""
    with collecting() as collector:
        deliver(
            collector.endpoint,
            OTEL_EXPORTER_OTLP_HEADERS="x-key=abc",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        )

    assert (collector.requests[0][1]["x-key"], collector.requests[0][1]["content-encoding"]) == (
        "abc",
        "gzip",
    )


def test_the_environments_names_are_on_the_resource():
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say who this is."""
    settings = read_settings(
        {"OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=ci"}
    )

    assert {"service.name": "mine", "deployment.environment.name": "ci"}.items() <= spans(
        shop(), settings
    )[0].source.resource.items()


def test_a_refused_connection_is_told_as_such():
    """Nobody listens: everything is lost to the collector, and the words are short."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        delivered = deliver(f"http://127.0.0.1:{unused.getsockname()[1]}")

    assert (delivered.lost, delivered.why, delivered.counts) == (
        {"traces": len(spans(shop()))},
        "refused",
        {},
    )


@pytest.mark.parametrize("tries", [0, 1, 2])
def test_a_refused_connection_is_told_as_such_however_long_the_run_was(tries: int):
    """Also where the last try was given up for want of time,
    after others in the run that were refused.
    """
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        delivery = Delivery(read_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}).destinations)
        delivery.put("traces", spans(shop()))
        while sum("Connection refused" in error for error in tuple(delivery._errors)) < tries:
            time.sleep(0.01)
        delivered = delivery.finish()

    assert delivered.why == "refused"


def test_a_collector_that_is_unwell_is_told_with_its_status():
    """It answers every try with 503 until there is no time for another: it did answer."""
    with collecting(statuses=[503]) as collector:
        delivered = deliver(collector.endpoint)

    assert delivered.why == "status 503"


def test_a_silent_collector_is_left_within_the_time_of_the_end():
    """It took the connection and never answers: `finish` comes back in its time all the same."""
    with collecting(silent=threading.Event()) as collector:
        began = time.monotonic()
        delivered = deliver(collector.endpoint, seconds=0.3)
        took = time.monotonic() - began

    assert not delivered.complete
    assert took < 5  # its own time limit is 10 s; the bound under test is 0.3 s


def test_of_a_slow_collector_is_counted_what_it_took():
    """It takes its time with each request: what came in time is there,
    the rest is lost to it and named, and nothing is both.
    """
    slow = threading.Event()
    found = heavy([10] * (BATCH_ITEMS * 3))
    with collecting(statuses=[200], silent=slow) as collector:
        delivery = Delivery(
            read_settings(
                {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces"}
            ).destinations
        )
        delivery.put("traces", found)
        slow.set()
        while not collector.requests:
            time.sleep(0.01)
        slow.clear()  # from now on it is busy
        delivered = delivery.finish(0.3)

    assert delivered.counts.get("traces", 0) + delivered.lost["traces"] == len(found)
    assert delivered.why == "no answer in time"


@pytest.mark.parametrize(
    ("status", "why"),
    [(401, "status 401"), (403, "status 403"), (404, "status 404"), (400, "status 400")],
)
def test_a_refusal_is_told_with_its_status(status: int, why: str) -> None:
    """What will not change by trying again is tried once at the end."""
    with collecting(statuses=[status]) as collector:
        delivered = deliver(collector.endpoint)

    assert (delivered.why, len(collector.requests)) == (why, 1)


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_collector_that_is_busy_for_long_is_not_waited_for(status: int) -> None:
    """With a Retry-After of a minute the end of a run does not wait for it."""
    with collecting(statuses=[status], headers={"Retry-After": "60"}) as collector:
        delivered = deliver(collector.endpoint)

    assert delivered.lost


def test_a_collector_that_is_back_while_the_run_goes_on_gets_everything():
    """A batch that failed stays, in its place, until it is taken."""
    with collecting(statuses=[500, 200]) as collector:
        settings = read_settings(
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces"}
        )
        delivery = Delivery(settings.destinations)
        delivery.put("traces", spans(shop()))
        while not collector.requests:
            time.sleep(0.01)
        delivered = delivery.finish(5)

    assert delivered.complete
    assert delivered.counts == {"traces": len(spans(shop()))}


def test_a_collector_without_metrics_is_no_failure():
    """Jaeger takes traces only: a signal that has no place there is named and not lost."""
    settings_for = "OTEL_EXPORTER_OTLP_ENDPOINT"
    with collecting(statuses=[200, 404]) as collector:
        delivery = Delivery(read_settings({settings_for: collector.endpoint}).destinations)
        delivery.put("traces", spans(shop()))
        delivery.put("logs", [(Source(), line) for line in _lines()])
        delivered = delivery.finish(5)

    assert (delivered.complete, delivered.unwanted) == (True, ("logs",))


def _lines() -> list[object]:
    from cleanroom.evidence.tracing.logs import log_line

    return [line for envelope in shop() if (line := log_line(envelope))]


def heavy(weights: list[int]) -> list[SpanData]:
    """Spans of so many bytes."""
    return [
        SpanData(
            trace_id=TRACE,
            span_id=f"{number:016x}",
            name=f"step {number}",
            start_ns=1,
            end_ns=2,
            attributes={"text": "x" * weight},
            source=Source(),
        )
        for number, weight in enumerate(weights, 1)
    ]


@pytest.fixture(params=["http/protobuf", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    if request.param == "grpc":
        pytest.importorskip(
            "opentelemetry.exporter.otlp.proto.grpc", reason="the extra otlp-grpc is not installed"
        )
    return str(request.param)


def limited(protocol: str, largest: int) -> Any:
    """A collector that takes requests of so many bytes, and the variable that says which protocol
    it speaks.
    """
    return grpc_collecting(largest=largest) if protocol == "grpc" else collecting(largest=largest)


GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}


def speaking(protocol: str) -> dict[str, str]:
    return GRPC if protocol == "grpc" else {}


def test_more_than_a_request_may_hold_goes_in_several(protocol: str):
    """20 MB, to a collector with the usual limit of 4 MiB: all of it arrives."""
    with limited(protocol, 4 << 20) as collector:
        delivered = deliver_these(
            heavy([1_000_000] * 20), collector.endpoint, seconds=60, **speaking(protocol)
        )

    assert (delivered.complete, delivered.counts) == (True, {"traces": 20}), delivered
    assert len(spans_of(collector)) == 20


def test_a_collector_that_takes_less_gets_smaller_requests(protocol: str):
    """A proxy before it with a limit of its own: what was too large comes again in halves,
    in its order.
    """
    found = heavy([100_000] * 20)
    with limited(protocol, 1 << 20) as collector:
        delivered = deliver_these(found, collector.endpoint, seconds=60, **speaking(protocol))

    assert delivered.complete, delivered
    assert [span.name for span in spans_of(collector)] == [span.name for span in found]


def test_what_is_too_large_by_itself_holds_up_nothing_else(protocol: str):
    """It alone is not delivered, and that is said."""
    found = heavy([10, 2_000_000, 10, 10])
    with limited(protocol, 1 << 20) as collector:
        delivered = deliver_these(found, collector.endpoint, seconds=60, **speaking(protocol))

    assert (delivered.lost, delivered.counts, delivered.why) == (
        {"traces": 1},
        {"traces": 3},
        "larger than it takes",
    )
    assert [span.name for span in spans_of(collector)] == ["step 1", "step 3", "step 4"]


def test_a_grpc_collector_that_does_not_know_us_is_told_as_such():
    """Without its header UNAUTHENTICATED, tried once; with it, taken."""
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.grpc", reason="the extra otlp-grpc is not installed"
    )
    with grpc_collecting(answers=["UNAUTHENTICATED", "OK"]) as collector:
        unknown = deliver(collector.endpoint, **GRPC)
        known = deliver(
            collector.endpoint, OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20hunter22", **GRPC
        )

    assert (unknown.why, known.complete) == ("status UNAUTHENTICATED", True)
    assert [found.get("authorization") for found in collector.metadata] == [None, "Bearer hunter22"]


def test_a_silent_grpc_collector_is_left_within_the_time_of_the_end():
    """It took the call and never answers."""
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.grpc", reason="the extra otlp-grpc is not installed"
    )
    with grpc_collecting(silent=threading.Event()) as collector:
        delivered = deliver(collector.endpoint, seconds=0.3, **GRPC)

    assert delivered.lost == {"traces": len(spans(shop()))}


def test_a_grpc_collector_that_is_back_while_the_run_goes_on_gets_everything():
    """It was being started again, and lost nothing of ours."""
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.grpc", reason="the extra otlp-grpc is not installed"
    )
    with grpc_collecting(answers=["UNAVAILABLE", "INTERNAL", "OK"]) as collector:
        delivery = Delivery(
            read_settings(
                {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.endpoint, **GRPC}
            ).destinations
        )
        delivery.put("traces", spans(shop()))
        while len(collector.metadata) < 2:
            time.sleep(0.01)
        delivered = delivery.finish(5)

    assert (delivered.complete, len(spans_of(collector))) == (True, len(spans(shop()))), delivered


def test_an_unknown_authority_is_not_trusted_and_a_named_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A private certificate authority works when the environment names its file, and only then;
    other programs' variables do not overrule it.
    """
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
    key, certificate = authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with collecting() as collector:
        collector.socket = context.wrap_socket(collector.socket, server_side=True)
        endpoint = collector.endpoint.replace("http", "https")
        unknown = deliver(endpoint)
        known = deliver(endpoint, OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificate))

    assert (unknown.why, known.why) == ("its certificate is not trusted", "")


def test_the_same_holds_over_grpc(tmp_path: Path):
    """A private authority works when its file is named, and only then."""
    pytest.importorskip(
        "opentelemetry.exporter.otlp.proto.grpc", reason="the extra otlp-grpc is not installed"
    )
    key, certificate = authority(tmp_path)
    with grpc_collecting(certificate=(key.read_bytes(), certificate.read_bytes())) as collector:
        unknown = deliver(collector.endpoint, **GRPC)
        known = deliver(collector.endpoint, OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificate), **GRPC)

    assert (unknown.why, known.why, len(collector.requests)) == (
        "its certificate is not trusted",
        "",
        1,
    )


def authority(folder: Path) -> tuple[Path, Path]:
    """Key and certificate of an authority that nobody knows."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            key,
            "-out",
            certificate,
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


def test_what_exporters_say_reaches_nobodys_terminal(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    """Their warnings are told once, in our words."""
    with caplog.at_level(logging.DEBUG):
        deliver("http://127.0.0.1:9")

    assert capfd.readouterr() == ("", "")
    assert "opentelemetry" not in {record.name.split(".")[0] for record in caplog.records}


def test_a_secret_in_the_endpoint_is_not_in_what_is_told():
    """User and password of an address stay out of messages."""
    assert "hunter2" not in str(deliver("http://user:hunter2@127.0.0.1:9"))


def test_an_exporters_own_words_are_told_without_secrets():
    """What nobody foresaw is told as it was said, and exporters say addresses and headers."""
    settings = read_settings(
        {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://user:hunter2@h:1/v1/traces?token=hunter3",
            "OTEL_EXPORTER_OTLP_HEADERS": "k=hunter4",
        }
    )
    words = (
        "odd: http://user:hunter2@h:1/v1/traces?token=hunter3, /v1/traces?token=hunter3, {'k': "
        "'hunter4'}"
    )

    assert (
        without_secrets(words, settings.destinations.values())
        == "odd: http://h:1/v1/traces, /v1/traces?[redacted], {'k': '[redacted]'}"
    )


def test_batches_are_bounded_by_number_and_by_weight():
    """All items, in order, in pieces that a collector takes."""
    items = ["x" * (BATCH_BYTES // 3)] * 10 + ["y"] * (2 * BATCH_ITEMS)
    pieces = list(batches(items))

    assert [item for piece in pieces for item in piece] == items
    assert all(
        len(piece) <= BATCH_ITEMS and sum(map(len, piece)) <= BATCH_BYTES for piece in pieces
    )


def test_one_item_above_the_weight_goes_alone():
    """Nothing is dropped for its size before the collector has said so."""
    assert [len(piece) for piece in batches(["x" * (BATCH_BYTES + 1)] * 2)] == [1, 1]


def test_an_unknown_complaint_is_told_as_it_is():
    """Words that nobody foresaw are better than none."""
    assert phrase(["something odd"]) == "something odd"


def test_an_exporter_that_cannot_be_made_says_why(tmp_path: Path):
    """A certificate that is not there is named before anything is sent."""
    settings = read_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://127.0.0.1:1",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "missing.pem"),
        }
    )
    with pytest.raises(BackendUnavailable, match=r"missing\.pem") as failed:
        exporter("traces", settings.destinations["traces"], lambda _: None)
    assert failed.value.code == "CR-TRACE-003"


def test_an_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    """With the package that helps."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    settings = read_settings(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    )
    with pytest.raises(BackendUnavailable) as failed:
        exporter("traces", settings.destinations["traces"], lambda _: None)
    assert failed.value.code == "CR-TRACE-002"
    assert "[otlp-grpc]'" in failed.value.hint
