"""CR-TRACE: traces, and collectors."""

from cleanroom.model.codes.record import Code

CODES = (
    Code(
        "CR-TRACE-001",
        title="a trace file is not OTLP/JSON",
        text="""
            The file of a run's spans was changed or is another one.
            `cleanroom-engine report --from EVENTS` makes the reports again from the events alone;
            the spans come from the same events once the trace file is moved away.
        """,
        example=r"""
            $ cleanroom-engine trace  # of the newest run; its events are whole, \
                so `report` still works
        """,
    ),
    Code(
        "CR-TRACE-002",
        title="the exporter for a collector is not installed",
        text="""
            An OTEL_* variable names a collector, and the package that speaks its protocol is an
            extra that is not installed.
            The run and its trace file are as they would be without it.
            Install the extra `otlp` (HTTP) or `otlp-grpc`, then send the recorded run with
            `cleanroom-engine trace RUN --push`.
        """,
        example="$ ~/cleanroom/bin/pip install '.[otlp]'  # in the engine's repository",
    ),
    Code(
        "CR-TRACE-003",
        title="the exporter for a collector cannot be made",
        text="""
            What the OTEL_EXPORTER_OTLP_* variables say cannot be used: usually a file of a
            certificate or key that is not there or not one.
            The message has the exporter's words.
        """,
        example='$ openssl x509 -noout -subject -in "$OTEL_EXPORTER_OTLP_CERTIFICATE"',
    ),
    Code(
        "CR-TRACE-004",
        title="a collector did not take a run's telemetry",
        text="""
            The collector refused, did not answer in time, or is not trusted; the message says
            which.
            The run's result is not changed by it, and nothing is lost: the trace file and the
            events are complete, and `cleanroom-engine trace RUN --push` sends them when the
            collector is well.
        """,
        example="$ cleanroom-engine trace --push http://127.0.0.1:4318",
    ),
    Code(
        "CR-TRACE-005",
        title="no collector is named",
        text="""
            A recorded run was to be sent, and neither the command nor an OTEL_* variable says where
            to.
            Name one: `--push http://127.0.0.1:4318`, or set OTEL_EXPORTER_OTLP_ENDPOINT;
            OTEL_SDK_DISABLED=true keeps all of it from being sent.
        """,
        example="$ cleanroom-engine trace --push http://127.0.0.1:4318",
    ),
    Code(
        "CR-TRACE-006",
        title="what reads the spans of code under test is not installed",
        text="""
            A phase says `cleanroom.telemetry = true`, and the packages that read OTLP are an extra
            that is not installed.
            Install the extra `otlp`, or take the key away.
        """,
        example="$ ~/cleanroom/bin/pip install '.[otlp]'  # in the engine's repository",
    ),
    Code(
        "CR-TRACE-007",
        title="some of what a phase sent as telemetry was not taken",
        text="""
            The endpoint at 127.0.0.1:4318 of a phase with `cleanroom.telemetry = true` takes spans
            (POST /v1/traces, protobuf or JSON), up to 4 MiB a request, 20,000 spans and 32 MiB a
            phase, 5,000 spans a second.
            The message says what else came.
            Metrics and log records are not taken: OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER are
            `none` inside.
        """,
        example="$ cleanroom-engine trace  # what was taken",
    ),
)
