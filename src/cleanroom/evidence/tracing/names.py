"""Names of attributes, from OpenTelemetry's conventions where one exists (copied here:
the package that holds them is not stable), and trace context.
"""

from __future__ import annotations

import re

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = "cleanroom"
SERVICE_NAME = "cleanroom-engine"

PIPELINE_NAME = "cicd.pipeline.name"
PIPELINE_RUN_ID = "cicd.pipeline.run.id"
PIPELINE_RUN_URL = "cicd.pipeline.run.url.full"
PIPELINE_ACTION = "cicd.pipeline.action.name"
PIPELINE_RESULT = "cicd.pipeline.result"
TASK_NAME = "cicd.pipeline.task.name"
TASK_TYPE = "cicd.pipeline.task.type"
TASK_RUN_ID = "cicd.pipeline.task.run.id"
TASK_RUN_URL = "cicd.pipeline.task.run.url.full"
TASK_RUN_RESULT = "cicd.pipeline.task.run.result"
CONTAINER_NAME = "container.name"
ERROR_TYPE = "error.type"
COMMAND_LINE = "process.command_line"
PID = "process.pid"
EXIT_CODE = "process.exit.code"
SUITE_NAME = "test.suite.name"
SUITE_STATUS = "test.suite.run.status"

# Loggers on which the SDK's exporters tell why something failed; they have no other way to say it.
EXPORTER_LOGGERS = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "urllib3.connectionpool",
    "urllib3.util.retry",
    *(
        f"opentelemetry.exporter.otlp.proto.{protocol}.{module}"
        for protocol in ("http", "grpc")
        for module in ("trace_exporter", "metric_exporter", "_log_exporter")
    ),
)

_TRACEPARENT = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)


def read_traceparent(text: str) -> tuple[str, str] | None:
    """Trace id and parent span id of a W3C `traceparent`; None for anything that the specification
    tells to ignore.
    """
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, _, further = found.groups()
    if (
        version == "ff"
        or (version == "00" and further is not None)
        or not trace_id.strip("0")
        or not span_id.strip("0")
    ):
        return None
    return trace_id, span_id


def traceparent_sampled(text: str) -> bool | None:
    """Whether whoever wrote this `traceparent` records its trace; None for none that counts."""
    return bool(int(text.split("-")[3], 16) & 1) if read_traceparent(text) else None
