"""Each test as a span, for `pytest --cleanroom-spans`: the code under test that is instrumented
makes its spans below it.

Needs OpenTelemetry's SDK there.

In a phase with `cleanroom.telemetry = true` they become part of the run's trace;
elsewhere the `OTEL_*` variables say where they go.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest


class TestSpans:
    """A pytest plugin. Made where it is asked for; making it imports the SDK.

    Raises:
        ImportError: the SDK or its exporter is not installed.
    """

    __test__ = False  # its name is the subject's, it is no test

    def __init__(self) -> None:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider()
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(self._provider)
        self._tracer = self._provider.get_tracer("cleanroom.pytest")
        self._parent = TraceContextTextMapPropagator().extract(
            {"traceparent": os.environ.get("TRACEPARENT", "")}
        )
        self._span: Any = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """One span around setup, call and teardown, current for what they do."""
        attributes = {
            "test.case.name": item.name,
            "test.suite.name": item.nodeid.partition("::")[0],
            "code.file.path": str(item.path),
        }
        with self._tracer.start_as_current_span(
            item.nodeid, context=self._parent, attributes=attributes
        ) as self._span:
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """The span says how the test ended: a step that failed decides, the call otherwise."""
        from opentelemetry.trace import StatusCode

        if self._span is None or not self._span.is_recording():
            return
        if report.failed:
            self._span.set_attribute("test.case.result.status", "fail")
            self._span.set_status(
                StatusCode.ERROR, str(report.longrepr).rstrip().rpartition("\n")[2][:1000]
            )
        elif report.skipped:
            self._span.set_attribute("test.case.result.status", "skip")
        elif report.when == "call":
            self._span.set_attribute("test.case.result.status", "pass")

    def pytest_unconfigure(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
