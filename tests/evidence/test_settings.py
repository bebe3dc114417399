"""What the standard variables ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.evidence.tracing.settings import (
    SIGNALS,
    Settings,
    read_settings,
    sampled,
    with_endpoint,
)

E = "OTEL_EXPORTER_OTLP_"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_nothing_is_sent_unless_somebody_says_where():
    """No variable, no connection."""
    assert read_settings({"PATH": "/bin"}) == Settings()


def test_one_endpoint_is_that_of_all_signals_with_their_paths():
    """The base address gets /v1/SIGNAL, as the specification has it."""
    found = read_settings({E + "ENDPOINT": "http://c:4318/"}).destinations

    assert {signal: found[signal].endpoint for signal in SIGNALS} == {
        signal: f"http://c:4318/v1/{signal}" for signal in SIGNALS
    }


def test_a_signals_own_endpoint_is_taken_as_it_is():
    """And leaves the others where they were."""
    found = read_settings({E + "TRACES_ENDPOINT": "http://c:4318/in"}).destinations

    assert {signal: to.endpoint for signal, to in found.items()} == {"traces": "http://c:4318/in"}


def test_grpc_has_no_paths_and_its_own_port():
    """The protocol decides where to, when nobody said."""
    assert (
        read_settings({E + "PROTOCOL": "grpc", "OTEL_TRACES_EXPORTER": "otlp"})
        .destinations["traces"]
        .endpoint
        == "http://localhost:4317"
    )


def test_an_exporter_of_none_keeps_a_signal_here():
    """One signal can be left out."""
    assert set(
        read_settings({E + "ENDPOINT": "http://c", "OTEL_METRICS_EXPORTER": "none"}).destinations
    ) == {"traces", "logs"}


def test_the_switch_turns_everything_off():
    """Whatever other variables say; the caller's place in a trace is taken all the same,
    as the specification has it.
    """
    found = read_settings({E + "ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "TRUE"})

    assert (found.destinations, found.propagators) == ({}, ("tracecontext",))


def test_a_signals_own_setting_wins():
    """Headers, time limit, compression and certificates, percent-encoded where the specification
    says so.
    """
    found = read_settings(
        {
            E + "ENDPOINT": "https://c",
            E + "HEADERS": "authorization=Bearer%20x, b = c%2Cd",
            E + "TIMEOUT": "10000",
            E + "TRACES_TIMEOUT": "500",
            E + "COMPRESSION": "gzip",
            E + "CERTIFICATE": "/ca.pem",
            E + "LOGS_HEADERS": "only=this",
        }
    ).destinations

    assert found["traces"].headers == {"authorization": "Bearer x", "b": "c,d"}
    assert found["logs"].headers == {"only": "this"}
    assert (found["traces"].timeout_seconds, found["metrics"].timeout_seconds) == (0.5, 10.0)
    assert (found["traces"].compression, found["traces"].certificate) == ("gzip", "/ca.pem")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        (E + "PROTOCOL", "http/json"),
        (E + "TIMEOUT", "soon"),
        (E + "TIMEOUT", "inf"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
        (E + "HEADERS", "nonsense"),
        (E + "COMPRESSION", "zstd"),
    ],
)
def test_what_is_not_honoured_is_listed(name: str, value: str) -> None:
    """A variable that is set and does nothing is never silent."""
    assert name in dict(read_settings({E + "ENDPOINT": "http://c", name: value}).unsupported)


def test_a_secret_in_headers_or_address_is_never_repeated():
    """What is shown of a destination has no user, password or query,
    and a bad header's text is not in what is listed.
    """
    found = read_settings(
        {E + "ENDPOINT": "https://user:hunter2@c:4318?key=hunter2", E + "HEADERS": "hunter2"}
    )

    assert "hunter2" not in found.destinations["traces"].shown
    assert "hunter2" not in str(found.unsupported)


def test_a_push_goes_where_it_was_told_and_nowhere_else():
    """An endpoint on the command line overrides every variable."""
    found = read_settings(
        with_endpoint(
            {
                E + "TRACES_ENDPOINT": "http://a",
                "OTEL_TRACES_EXPORTER": "none",
                E + "HEADERS": "k=v",
            },
            "http://b",
        )
    )

    assert found.destinations["traces"].endpoint == "http://b/v1/traces"
    assert found.destinations["traces"].headers == {"k": "v"}


@pytest.mark.parametrize(
    ("sampler", "parent", "sent"),
    [
        ("always_on", False, True),
        ("always_off", True, False),
        ("parentbased_always_on", None, True),
        ("parentbased_always_on", False, False),
        ("parentbased_always_off", True, True),
        ("parentbased_always_off", None, False),
        ("traceidratio", True, False),
    ],
)
def test_a_sampler_decides_what_is_sent(sampler: str, parent: bool | None, sent: bool) -> None:
    """As the specification names them; with a ratio of 0 for the one that has one."""
    assert sampled(Settings(sampler=sampler, sampler_ratio=0.0), TRACE, parent) is sent


@given(st.integers(1, 2**128 - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_ratio_sends_whatever_a_smaller_one_does(
    trace: int, one: float, other: float
) -> None:
    """Ratio sampling is consistent between programs."""
    low, high = sorted((one, other))
    chosen = [
        sampled(Settings(sampler="traceidratio", sampler_ratio=ratio), f"{trace:032x}", None)
        for ratio in (low, high)
    ]

    assert chosen[0] <= chosen[1]


def test_our_ratio_agrees_with_the_sdks():
    """A trace that the code under test would sample is sampled here too."""
    sampling = pytest.importorskip("opentelemetry.sdk.trace.sampling")
    for trace in range(1, 2**64, 2**64 // 101):
        theirs = (
            sampling.TraceIdRatioBased(0.3).should_sample(None, trace, "x").decision.is_sampled()
        )
        assert (
            sampled(Settings(sampler="traceidratio", sampler_ratio=0.3), f"{trace:032x}", None)
            is theirs
        )


def test_without_trace_context_the_callers_place_is_not_taken():
    """OTEL_PROPAGATORS decides what comes in."""
    caller = {"TRACEPARENT": f"00-{TRACE}-00f067aa0ba902b7-01"}

    assert read_settings(caller).traceparent(caller) == caller["TRACEPARENT"]
    assert read_settings({**caller, "OTEL_PROPAGATORS": "none"}).traceparent(caller) == ""
