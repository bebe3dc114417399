"""The monitor: judges every sample against its environment's limits.

No kernel enforces a limit that is only sampled: a violation of one makes recovery end the
environment.

Limits come from the environment's Started event, so nothing but events is needed here:
`memory_limit_bytes`, `pids_limit`, `disk_limit_bytes`, `cpus_limit`, `network_limit_bytes`;
a missing or zero one is not judged, except that a network limit of 0 means none at all.
"""

from __future__ import annotations

import msgspec

from cleanroom.core.bus import Bus, SpanContext, Subscription
from cleanroom.core.text import format_size
from cleanroom.model.capability import Attempt, Target
from cleanroom.model.events import (
    Envelope,
    Finished,
    Metric,
    Started,
    Subject,
    Violation,
    violation,
)

READS = (Started, Finished, Metric)
LIMIT = 50_000  # samples come ten times a second and environment: an hour of one is 36,000
CPU_WINDOW_SECONDS = 5.0  # a burst at start-up is no trouble
CPU_TOLERANCE = 1.1  # samples are taken a little late under load
WORSE = 1.25  # a rule is reported again when its reading is a quarter above the last reported one
# Reported, and never a reason to kill: much processor time harms nobody, and whoever allowed a link
# allowed bytes on it.
NOTICES = ("resource.cpu", "resource.network")


class EnvironmentLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one environment; None is not judged."""

    subject: Subject
    memory_bytes: float | None = None
    pids: float | None = None
    disk_bytes: float | None = None
    network_bytes: float | None = None
    cpus: float | None = None


class EnvironmentState(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier samples of one environment leave to remember."""

    reported: dict[str, float] = {}  # rule -> the reading of its last violation
    # (seconds, processor seconds) within the window, and the last one before it
    cpu: tuple[tuple[float, float], ...] = ()


class _Reading(msgspec.Struct, frozen=True):
    rule: str
    used: float
    limit: float
    text: str


def limits_of(event: Started) -> EnvironmentLimits:
    """The limits that an environment's Started names."""

    def number(name: str) -> float | None:
        value = event.attributes.get(name)
        return (
            float(value)
            if isinstance(value, (int, float)) and not isinstance(value, bool)
            else None
        )

    return EnvironmentLimits(
        subject=event.subject,
        memory_bytes=number("memory_limit_bytes") or None,
        pids=number("pids_limit") or None,
        disk_bytes=number("disk_limit_bytes") or None,
        cpus=number("cpus_limit") or None,
        network_bytes=number("network_limit_bytes"),
    )


def check(
    limits: EnvironmentLimits,
    state: EnvironmentState,
    metric: Metric,
    at_unix_ns: int,
    at_seconds: float,
) -> tuple[EnvironmentState, list[Violation]]:
    """Judge one sample, taken at this wall and monotonic time.

    A rule is reported once per environment, unless its reading gets worse.
    """
    window = _window(state.cpu, at_seconds, metric.cpu_seconds)
    found = [
        reading
        for reading in _readings(limits, metric, window)
        if reading.used > reading.limit
        and reading.used >= state.reported.get(reading.rule, 0) * WORSE
    ]
    reported = state.reported | {reading.rule: reading.used for reading in found}
    return EnvironmentState(reported=reported, cpu=window), [
        _violation(limits, metric, reading, at_unix_ns) for reading in found
    ]


async def run(inbox: Subscription, bus: Bus) -> None:
    """Judge samples until the bus has closed. A violation is put on the span of its sample."""
    environments: dict[str, tuple[EnvironmentLimits, EnvironmentState]] = {}
    while batch := await inbox.batch():
        for envelope in batch:
            environments, found = judge_event(environments, envelope)
            for trouble in found:
                bus.publish(
                    trouble, SpanContext(envelope.trace_id, envelope.span_id, envelope.parent)
                )


def judge_event(
    environments: dict[str, tuple[EnvironmentLimits, EnvironmentState]], envelope: Envelope
) -> tuple[dict[str, tuple[EnvironmentLimits, EnvironmentState]], list[Violation]]:
    """Take any event: environments begin, are judged by their samples, and end."""
    event = envelope.event
    if isinstance(event, Metric):
        if event.environment not in environments:
            return environments, []
        limits, state = environments[event.environment]
        state, found = check(
            limits, state, event, envelope.time_unix_ns, envelope.monotonic_ns / 1e9
        )
        return environments | {event.environment: (limits, state)}, found
    if event.subject.kind == "environment":
        others = {name: known for name, known in environments.items() if name != event.subject.name}
        return (
            others | {event.subject.name: (limits_of(event), EnvironmentState())}
            if isinstance(event, Started)
            else others
        ), []
    return environments, []


def _window(
    seen: tuple[tuple[float, float], ...], at: float, cpu_seconds: float
) -> tuple[tuple[float, float], ...]:
    """The readings of the last window and the one before it,
    from which a whole window can be judged.
    """
    all_seen = (*seen, (at, cpu_seconds))
    before = [reading for reading in all_seen if reading[0] <= at - CPU_WINDOW_SECONDS]
    return (
        *before[-1:],
        *(reading for reading in all_seen if reading[0] > at - CPU_WINDOW_SECONDS),
    )


def _readings(
    limits: EnvironmentLimits, metric: Metric, cpu: tuple[tuple[float, float], ...]
) -> list[_Reading]:
    """A reading of each resource that has a limit."""
    found = []
    for rule, word, used, limit in (
        ("resource.memory", "memory", metric.memory_bytes, limits.memory_bytes),
        ("resource.network", "network", metric.network_bytes, limits.network_bytes),
    ):
        if limit is not None:
            found.append(
                _Reading(rule, used, limit, f"{word} {format_size(used)} of {format_size(limit)}")
            )
    if limits.disk_bytes is not None:
        # A file that would grow past the limit stops there, and whoever started its writer may not
        # have looked: reached is too much.
        text = f"disk {format_size(metric.disk_bytes)} of {format_size(limits.disk_bytes)}"
        found.append(_Reading("resource.disk", metric.disk_bytes + 1, limits.disk_bytes, text))
    if limits.pids is not None:
        # Without a group the kernel refuses the next one silently:
        # the limit reached is all that can be seen of it.
        reached = metric.processes + 1 if metric.source == "processes" else metric.processes
        found.append(
            _Reading(
                "resource.pids",
                reached,
                limits.pids,
                f"processes {metric.processes} of {limits.pids:g}",
            )
        )
    seconds = cpu[-1][0] - cpu[0][0]
    if limits.cpus is not None and seconds >= CPU_WINDOW_SECONDS:
        average = (cpu[-1][1] - cpu[0][1]) / seconds
        found.append(
            _Reading(
                "resource.cpu",
                average,
                limits.cpus * CPU_TOLERANCE,
                f"cpus {average:.1f} of {limits.cpus:g}",
            )
        )
    return found


def _violation(
    limits: EnvironmentLimits, metric: Metric, reading: _Reading, at_unix_ns: int
) -> Violation:
    attempt = Attempt(
        environment=metric.environment,
        dimension="resource",
        rule=reading.rule,
        outcome="observed",
        mechanism="sampler",
        certainty="sampled",
        target=Target(limit=reading.text),
        process=metric.largest if reading.rule == "resource.memory" else None,
        attribution_gap="a sample is of the whole environment"
        + ("; this is its largest process" if metric.largest else ""),
        first_unix_ns=at_unix_ns,
        last_unix_ns=at_unix_ns,
    )
    return violation(
        limits.subject, attempt, "notice" if reading.rule in NOTICES else "violation", reading.text
    )
