"""A run as OpenTelemetry sees it: from events to spans, metrics and log records, to a file,
and to whoever collects them.

OpenTelemetry's only home.

`trace` makes spans of events, `otlp_json` writes and reads them as the file that Jaeger's page
loads, `reading` answers what a person asks of a trace, `settings` reads the `OTEL_*` variables,
`metrics` and `logs` make the other two signals, and `delivery` hands all three to the SDK's
exporters in a thread of its own.
Only `sdk` imports OpenTelemetry, and only where something is to be delivered.
"""

from cleanroom.evidence.tracing.names import read_traceparent
from cleanroom.evidence.tracing.otlp_json import otlp_json, read_otlp_json
from cleanroom.evidence.tracing.span import SpanData, SpanEvent, SpanLink
from cleanroom.evidence.tracing.trace import KINDS, Trace, spans

__all__ = [
    "KINDS",
    "SpanData",
    "SpanEvent",
    "SpanLink",
    "Trace",
    "otlp_json",
    "read_otlp_json",
    "read_traceparent",
    "spans",
]
