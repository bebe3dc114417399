"""Our plain values as the SDK's own, and its exporters.

The only importer of OpenTelemetry; loaded only where something is to be delivered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import groupby
from typing import Any

from cleanroom.core.installation import install_line
from cleanroom.evidence.tracing import names
from cleanroom.evidence.tracing.logs import SEVERITIES, LogLine
from cleanroom.evidence.tracing.metrics import TABLE, Point
from cleanroom.evidence.tracing.settings import Destination, Signal
from cleanroom.evidence.tracing.span import Source, SpanData
from cleanroom.model.errors import BackendUnavailable

# of histograms: an SLO of 20 s has its own
BOUNDS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 60.0, 300.0, 1800.0)
_CLASSES = {
    ("traces", "http/protobuf"): ("http.trace_exporter", "OTLPSpanExporter"),
    ("metrics", "http/protobuf"): ("http.metric_exporter", "OTLPMetricExporter"),
    ("logs", "http/protobuf"): ("http._log_exporter", "OTLPLogExporter"),
    ("traces", "grpc"): ("grpc.trace_exporter", "OTLPSpanExporter"),
    ("metrics", "grpc"): ("grpc.metric_exporter", "OTLPMetricExporter"),
    ("logs", "grpc"): ("grpc._log_exporter", "OTLPLogExporter"),
}
# Those of the specification but RESOURCE_EXHAUSTED, which also says that a request was too large:
# that one does not change by trying again.
_RETRIED = ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")


def exporter(signal: Signal, to: Destination, on_failure: Callable[[str], None]) -> Any:
    """The SDK's exporter of this signal.

    `on_failure` gets a text for each try by HTTP that failed; the exporter logs only some of them.

    Raises:
        BackendUnavailable: the package that holds it is not installed,
            or its settings cannot be used.
    """
    made = exporter_class(signal, to)
    try:
        return made(
            **(_for_http(to, on_failure) if to.protocol == "http/protobuf" else _for_grpc(to))
        )
    except (OSError, ValueError) as error:
        raise BackendUnavailable(
            "CR-TRACE-003",
            f"the exporter of {signal} cannot be made: {error}",
            hint="see the OTEL_EXPORTER_OTLP_* variables",
        ) from error


def exporter_class(signal: Signal, to: Destination) -> Any:
    """The exporter's class, which is imported at the first call.

    Raises:
        BackendUnavailable: the package that holds it is not installed.
    """
    module, name = _CLASSES[signal, to.protocol]
    try:
        return getattr(import_module(f"opentelemetry.exporter.otlp.proto.{module}"), name)
    except ImportError as error:
        extra = "otlp" if to.protocol == "http/protobuf" else "otlp-grpc"
        raise BackendUnavailable(
            "CR-TRACE-002",
            (
                f"sending {signal} by {to.protocol} needs a package that is not installed "
                f"({error.name})"
            ),
            hint=install_line(extra),
        ) from error


def _for_http(to: Destination, on_failure: Callable[[str], None]) -> dict[str, Any]:
    from opentelemetry.exporter.otlp.proto.http import Compression

    return {
        "endpoint": to.endpoint,
        "headers": to.headers,
        "timeout": to.timeout_seconds,
        "compression": Compression(to.compression or "none"),
        "certificate_file": to.certificate or None,
        "client_key_file": to.client_key or None,
        "client_certificate_file": to.client_certificate or None,
        "session": _session(to.certificate, on_failure),
    }


def _session(certificate: str, on_failure: Callable[[str], None]) -> Any:
    """A session that reports each failed request.

    With a `certificate` it trusts this authority alone: by itself `requests` lets
    REQUESTS_CA_BUNDLE overrule what it was told.
    """
    import requests

    class Session(requests.Session):  # type: ignore[misc]
        def merge_environment_settings(self, *arguments: Any) -> Any:
            settings = super().merge_environment_settings(*arguments)
            return {**settings, "verify": certificate} if certificate else settings

        def request(self, *arguments: Any, **further: Any) -> Any:
            try:
                answer = super().request(*arguments, **further)
            except requests.RequestException as error:
                on_failure(str(error))
                raise
            if answer.status_code >= requests.codes.bad_request:
                on_failure(f"code: {answer.status_code}")
            return answer

    return Session()


def _for_grpc(to: Destination) -> dict[str, Any]:
    import grpc

    found: dict[str, Any] = {
        "endpoint": to.endpoint,
        "headers": {name.lower(): value for name, value in to.headers.items()} or None,
        "timeout": to.timeout_seconds,
        "compression": grpc.Compression.Gzip
        if to.compression == "gzip"
        else grpc.Compression.NoCompression,
        "insecure": True if to.insecure or to.endpoint.startswith("http://") else None,
        "retryable_error_codes": tuple(grpc.StatusCode[name] for name in _RETRIED),
    }
    if to.certificate:
        files = (to.certificate, to.client_key, to.client_certificate)
        found["credentials"] = grpc.ssl_channel_credentials(
            *(_bytes(path) if path else None for path in files)
        )
    return found


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def converter(signal: Signal) -> Callable[[Sequence[Any]], Any]:
    """What makes a batch of our values the argument of the exporter's `export`."""
    converters: dict[Signal, Callable[[Sequence[Any]], Any]] = {
        "traces": sdk_spans,
        "metrics": sdk_metrics,
        "logs": sdk_logs,
    }
    return converters[signal]


def sdk_spans(spans: Sequence[SpanData]) -> list[Any]:
    """The SDK's ReadableSpan of each of these."""
    made: list[Any] = []
    for source, found in groupby(spans, key=lambda span: span.source):
        resource, scope = _source(source)
        made += [_span(span, resource, scope) for span in found]
    return made


def _source(source: Source) -> tuple[Any, Any]:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    resource = Resource(source.resource, source.schema_url or None)
    return resource, InstrumentationScope(
        source.scope, source.version or None, source.schema_url or None
    )


def _span(span: SpanData, resource: Any, scope: Any) -> Any:
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util import BoundedList
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode

    events: Any = BoundedList(max(len(span.events), 1))
    events.extend([Event(event.name, event.attributes, event.unix_ns) for event in span.events])
    events.dropped = span.dropped_events
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id, False),
        parent=_context(span.trace_id, span.parent_id, True) if span.parent_id else None,
        resource=resource,
        attributes=span.attributes,
        events=events,
        links=[Link(_context(link.trace_id, link.span_id, True)) for link in span.links],
        kind=SpanKind(max(span.kind - 1, 0)),
        status=Status(StatusCode(span.status), span.message or None),
        start_time=span.start_ns,
        end_time=span.end_ns,
        instrumentation_scope=scope,
    )


def _context(trace_id: str, span_id: str, remote: bool) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags

    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED))


def sdk_metrics(batch: Sequence[tuple[Source, Point]]) -> Any:
    """Points as the SDK's MetricsData: those of one name are one metric."""
    from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics

    by_name: dict[str, list[Point]] = defaultdict(list)
    for _, point in batch:
        by_name[point.name].append(point)
    resource, scope = _source(batch[0][0])
    found = [
        Metric(name, TABLE[name][2], TABLE[name][1], _data(TABLE[name][0], points))
        for name, points in by_name.items()
    ]
    return MetricsData(
        [
            ResourceMetrics(
                resource, [ScopeMetrics(scope, found, names.SCHEMA_URL)], names.SCHEMA_URL
            )
        ]
    )


def _data(kind: str, points: Sequence[Point]) -> Any:
    from opentelemetry.sdk.metrics.export import (
        AggregationTemporality,
        Gauge,
        Histogram,
        HistogramDataPoint,
        NumberDataPoint,
        Sum,
    )

    if kind == "histogram":
        counted = [
            HistogramDataPoint(
                p.attributes,
                p.start_ns,
                p.unix_ns,
                1,
                p.value,
                _buckets(p.value),
                BOUNDS_SECONDS,
                p.value,
                p.value,
            )
            for p in points
        ]
        return Histogram(counted, AggregationTemporality.DELTA)
    numbers = [NumberDataPoint(p.attributes, p.start_ns, p.unix_ns, p.value) for p in points]
    if kind == "gauge":
        return Gauge(numbers)
    return Sum(
        numbers,
        AggregationTemporality.DELTA if kind == "count" else AggregationTemporality.CUMULATIVE,
        is_monotonic=True,
    )


def _buckets(value: float) -> list[int]:
    place = sum(value > bound for bound in BOUNDS_SECONDS)
    return [int(index == place) for index in range(len(BOUNDS_SECONDS) + 1)]


def sdk_logs(batch: Sequence[tuple[Source, LogLine]]) -> list[Any]:
    """Lines as the SDK's log records."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    @lru_cache
    def context(trace_id: str, span_id: str) -> Any:
        return set_span_in_context(NonRecordingSpan(_context(trace_id, span_id, False)))

    resource, scope = _source(batch[0][0])
    return [
        ReadableLogRecord(
            LogRecord(
                timestamp=line.unix_ns,
                observed_timestamp=line.unix_ns,
                context=context(line.trace_id, line.span_id) if line.span_id else None,
                severity_text=line.severity.upper(),
                severity_number=SeverityNumber(SEVERITIES[line.severity]),
                body=line.text,
                attributes=line.attributes,
            ),
            resource,
            scope,
        )
        for _, line in batch
    ]
