"""The settings of the standard `OTEL_*` variables, as one value.

Nothing is sent unless one of them names where to: there is no silent default.

Only what this program honours is read here; every other `OTEL_*` variable that is set is listed as
not supported, and `config show` says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Literal, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from cleanroom.evidence.tracing.names import read_traceparent, traceparent_sampled

Signal = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
PROTOCOLS = ("http/protobuf", "grpc")
COMPRESSIONS = {"http/protobuf": ("gzip", "deflate", "none"), "grpc": ("gzip", "none")}
SAMPLERS = (
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
)
PROPAGATORS = ("tracecontext", "none")
DEFAULT_ENDPOINTS = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}
DEFAULT_TIMEOUT_SECONDS = 10.0  # the specification's
TIMEOUT_MAX_SECONDS = 3600.0  # what is longer, or infinite, is a mistake
_EXPORTER = "OTEL_EXPORTER_OTLP_"
_OF_A_SIGNAL = (
    "ENDPOINT",
    "PROTOCOL",
    "HEADERS",
    "TIMEOUT",
    "COMPRESSION",
    "CERTIFICATE",
    "CLIENT_KEY",
    "CLIENT_CERTIFICATE",
    "INSECURE",
)
_HONOURED = frozenset(
    {
        "OTEL_SDK_DISABLED",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_PROPAGATORS",
        *(f"OTEL_{signal.upper()}_EXPORTER" for signal in SIGNALS),
        *(
            _EXPORTER + infix + name
            for name in _OF_A_SIGNAL
            for infix in ("", *(f"{signal.upper()}_" for signal in SIGNALS))
        ),
    }
)


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where one signal goes, and how."""

    endpoint: str
    protocol: str = "http/protobuf"
    headers: dict[str, str] = {}
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    compression: str = ""  # gzip, deflate or none
    certificate: str = ""  # files of a private certificate authority and of the client
    client_key: str = ""
    client_certificate: str = ""
    insecure: bool = False  # grpc without TLS, where the endpoint has no scheme

    @property
    def shown(self) -> str:
        """The endpoint without its user, password and query, which may be secret."""
        parts = urlsplit(self.endpoint)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Its parts that may be secret: user, password, query, and the values of headers."""
        parts = urlsplit(self.endpoint)
        return tuple(
            filter(
                None,
                (
                    parts.netloc.rpartition("@")[0],
                    parts.password,
                    parts.query,
                    *self.headers.values(),
                ),
            )
        )


class Place(NamedTuple):
    """Where in a trace a run stands.

    Ids in hex; `parent` is the caller's span, empty without one.
    """

    trace_id: str
    parent: str
    # whether it is sent, and what the code under test is told by the flag of its TRACEPARENT
    sampled: bool


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent where, and which variables have no effect."""

    destinations: dict[Signal, Destination] = {}
    service_name: str = ""
    resource: dict[str, str] = {}
    sampler: str = "parentbased_always_on"
    sampler_ratio: float = 1.0
    propagators: tuple[str, ...] = ("tracecontext",)
    unsupported: tuple[tuple[str, str], ...] = ()  # name of a variable, and why

    def traceparent(self, caller: Mapping[str, str]) -> str:
        """The caller's place in a trace, where it is to be taken over; "" else."""
        return caller.get("TRACEPARENT", "") if "tracecontext" in self.propagators else ""


def read_settings(caller: Mapping[str, str]) -> Settings:
    """The settings of this environment.

    A value that is not understood counts as not given, and is listed, as the specification asks.
    """
    unsupported: list[tuple[str, str]] = [
        (name, "not honoured here")
        for name in sorted(caller)
        if name.startswith("OTEL_") and name not in _HONOURED
    ]
    # of all signals; propagators stay, as the specification says
    disabled = caller.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    sampler, ratio = _sampler(caller, unsupported)
    destinations = {
        signal: found for signal in SIGNALS if (found := _destination(signal, caller, unsupported))
    }
    return Settings(
        destinations={} if disabled else destinations,
        service_name=caller.get("OTEL_SERVICE_NAME", "").strip(),
        resource=_pairs(caller, "OTEL_RESOURCE_ATTRIBUTES", unsupported),
        sampler=sampler,
        sampler_ratio=ratio,
        propagators=_propagators(caller, unsupported),
        unsupported=tuple(unsupported),
    )


def with_endpoint(caller: Mapping[str, str], endpoint: str) -> dict[str, str]:
    """The caller's variables with all signals sent to this endpoint; unchanged for an empty one."""
    if not endpoint:
        return dict(caller)
    of_signals = {f"{_EXPORTER}{signal.upper()}_ENDPOINT" for signal in SIGNALS} | {
        f"OTEL_{signal.upper()}_EXPORTER" for signal in SIGNALS
    }
    return {name: value for name, value in caller.items() if name not in of_signals} | {
        _EXPORTER + "ENDPOINT": endpoint
    }


def _destination(
    signal: Signal, caller: Mapping[str, str], unsupported: list[tuple[str, str]]
) -> Destination | None:
    """The destination of this signal; None where it is not sent.

    It is sent where its exporter is `otlp`, or an endpoint is named and no exporter is.
    """
    variable = partial(_signal_variable, caller, signal)
    chosen = f"OTEL_{signal.upper()}_EXPORTER"
    exporter = caller.get(chosen, "").strip().lower()
    name, endpoint = variable("ENDPOINT")
    if exporter not in ("", "otlp", "none"):
        unsupported.append((chosen, f"expected otlp or none, found {exporter!r}"))
    if exporter != "otlp" and (exporter or not endpoint):
        return None
    protocol = _protocol(*variable("PROTOCOL"), unsupported)
    endpoint = endpoint or DEFAULT_ENDPOINTS[protocol]
    if name in ("", _EXPORTER + "ENDPOINT") and protocol == "http/protobuf":
        endpoint = f"{endpoint.rstrip('/')}/v1/{signal}"
    header_name = variable("HEADERS")[0]
    compression = _compression(*variable("COMPRESSION"), protocol, unsupported)
    return Destination(
        endpoint=endpoint,
        protocol=protocol,
        headers=_pairs(caller, header_name, unsupported) if header_name else {},
        timeout_seconds=_seconds(*variable("TIMEOUT"), unsupported),
        compression=compression,
        certificate=variable("CERTIFICATE")[1],
        client_key=variable("CLIENT_KEY")[1],
        client_certificate=variable("CLIENT_CERTIFICATE")[1],
        insecure=variable("INSECURE")[1].lower() == "true",
    )


def _signal_variable(caller: Mapping[str, str], signal: Signal, name: str) -> tuple[str, str]:
    """Name and value of a variable: the signal's own, else that of all signals, else empty."""
    for full in (f"{_EXPORTER}{signal.upper()}_{name}", _EXPORTER + name):
        if value := caller.get(full, "").strip():
            return full, value
    return "", ""


def _protocol(name: str, value: str, unsupported: list[tuple[str, str]]) -> str:
    if value in PROTOCOLS:
        return value
    if value:
        text = f"expected {' or '.join(PROTOCOLS)}, found {value!r}; http/protobuf is used"
        unsupported.append((name, text))
    return PROTOCOLS[0]


def _compression(name: str, value: str, protocol: str, unsupported: list[tuple[str, str]]) -> str:
    known = COMPRESSIONS[protocol]
    if value in ("", *known):
        return value
    unsupported.append((name, f"expected {' or '.join(known)}, found {value!r}; none is used"))
    return ""


def _seconds(name: str, text: str, unsupported: list[tuple[str, str]]) -> float:
    """A time limit in milliseconds, as the specification has it (the SDK of Python reads the same
    variable as seconds).
    """
    try:
        seconds = float(text) / 1000 if text else DEFAULT_TIMEOUT_SECONDS
    except ValueError:
        seconds = 0.0
    if 0 < seconds <= TIMEOUT_MAX_SECONDS:
        return seconds
    unsupported.append(
        (
            name,
            f"expected milliseconds, found {text!r}; {DEFAULT_TIMEOUT_SECONDS * 1000:g} are used",
        )
    )
    return DEFAULT_TIMEOUT_SECONDS


def _pairs(
    caller: Mapping[str, str], name: str, unsupported: list[tuple[str, str]]
) -> dict[str, str]:
    """`key=value,key=value`, percent-encoded.

    One bad pair drops it alone; its text, which may be secret, is not repeated.
    """
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in caller.get(name, "").split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            unsupported.append(
                (
                    name,
                    (
                        "expected key=value pairs with commas between; a part without them was "
                        "left out"
                    ),
                )
            )
            continue
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def _sampler(caller: Mapping[str, str], unsupported: list[tuple[str, str]]) -> tuple[str, float]:
    name, text = (
        caller.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on",
        caller.get("OTEL_TRACES_SAMPLER_ARG", "").strip(),
    )
    if name not in SAMPLERS:
        unsupported.append(
            (
                "OTEL_TRACES_SAMPLER",
                (
                    f"expected one of {', '.join(SAMPLERS)}, found {name!r}; "
                    "parentbased_always_on is used"
                ),
            )
        )
        return "parentbased_always_on", 1.0
    if not name.endswith("traceidratio"):
        return name, 1.0
    try:
        ratio = float(text or 1.0)
    except ValueError:
        ratio = -1.0
    if 0.0 <= ratio <= 1.0:
        return name, ratio
    unsupported.append(
        ("OTEL_TRACES_SAMPLER_ARG", f"expected a number from 0 to 1, found {text!r}; 1 is used")
    )
    return name, 1.0


def _propagators(caller: Mapping[str, str], unsupported: list[tuple[str, str]]) -> tuple[str, ...]:
    asked = [
        name
        for name in (
            part.strip().lower()
            for part in caller.get("OTEL_PROPAGATORS", "tracecontext").split(",")
        )
        if name
    ]
    unsupported += [
        ("OTEL_PROPAGATORS", f"{name!r} is not supported; tracecontext is")
        for name in asked
        if name not in PROPAGATORS
    ]
    return tuple(dict.fromkeys(name for name in asked if name in PROPAGATORS and name != "none"))


def place(caller: Mapping[str, str]) -> Place:
    """Where a run of this caller stands: below the caller's TRACEPARENT, else in a new trace,
    sampled as the variables say.
    """
    settings = read_settings(caller)
    given = settings.traceparent(caller)
    trace_id, parent = read_traceparent(given) or (os.urandom(16).hex(), "")
    return Place(trace_id, parent, sampled(settings, trace_id, traceparent_sampled(given)))


def sampled(settings: Settings, trace_id: str, parent_sampled: bool | None) -> bool:
    """Whether a trace is sent.

    `parent_sampled` is the flag of the caller's TRACEPARENT, None without one.
    The file is always written.
    """
    sampler = settings.sampler
    if sampler.startswith("parentbased_"):
        if parent_sampled is not None:
            return parent_sampled
        sampler = sampler.removeprefix("parentbased_")
    if sampler == "traceidratio":
        # as every SDK decides it, so that they agree
        return int(trace_id[16:], 16) < round(settings.sampler_ratio * (1 << 64))
    return sampler == "always_on"
