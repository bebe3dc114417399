"""The monitor: what of a sample is over a limit, and how often it is said."""

from __future__ import annotations

import anyio
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.bus import Bus
from cleanroom.core.clock import SystemClock
from cleanroom.model.events import Finished, Metric, Started, Subject, Violation
from cleanroom.model.policy import GIB
from cleanroom.subscribers.monitor import (
    READS,
    EnvironmentLimits,
    EnvironmentState,
    check,
    limits_of,
    run,
)

ENVIRONMENT = Subject("environment", "test-1")
LIMITS = EnvironmentLimits(
    subject=ENVIRONMENT, memory_bytes=2 * GIB, pids=10, disk_bytes=GIB, cpus=2
)


def metric(**changed) -> Metric:
    reading = {
        "cpu_seconds": 0.0,
        "memory_bytes": 0,
        "disk_bytes": 0,
        "network_bytes": 0,
        "processes": 1,
        "source": "cgroup",
    } | changed
    return Metric(subject=ENVIRONMENT, environment="test-1", **reading)


def violations_of(
    *metrics: Metric, limits: EnvironmentLimits = LIMITS, step_seconds: float = 0.1
) -> list[Violation]:
    """What a series of samples gives."""
    state, found = EnvironmentState(), []
    for number, sample in enumerate(metrics):
        state, more = check(limits, state, sample, 1_000 + number, number * step_seconds)
        found += more
    return found


def test_a_sample_within_its_limits_is_no_trouble():
    """At the limit is within it: a control group keeps memory exactly there."""
    assert (
        violations_of(
            metric(memory_bytes=2 * GIB, processes=10, disk_bytes=GIB - 1, network_bytes=10**9)
        )
        == []
    )


def test_the_limit_of_processes_reached_is_a_violation_where_no_group_counts():
    """Without a control group the kernel refuses the next process silently,
    so reaching the limit is what can be seen.
    """
    assert [found.rule for found in violations_of(metric(processes=10, source="processes"))] == [
        "resource.pids"
    ]


def test_the_limit_of_the_disk_reached_is_a_violation():
    """A file stops growing at the limit, and whoever started its writer may not have looked:
    reaching the limit is what can be seen.
    """
    assert [found.rule for found in violations_of(metric(disk_bytes=GIB))] == ["resource.disk"]


def test_memory_over_its_limit_is_a_violation_with_both_numbers():
    """The violation names the environment, the rule, what was used and what was allowed."""
    (found,) = violations_of(metric(memory_bytes=3 * GIB))

    assert (found.subject, found.environment, found.rule, found.severity) == (
        ENVIRONMENT,
        "test-1",
        "resource.memory",
        "violation",
    )
    assert (found.certainty, found.confidence, found.outcome) == ("sampled", "observed", "observed")
    assert found.target.limit == "memory 3.0 GiB of 2.0 GiB"


def test_each_resource_has_its_own_rule():
    """Disk, processes and network are judged by their own limits."""
    limits = EnvironmentLimits(subject=ENVIRONMENT, pids=10, disk_bytes=GIB, network_bytes=0)
    found = violations_of(metric(disk_bytes=2 * GIB, processes=11, network_bytes=1), limits=limits)

    assert {(v.rule, v.severity, v.target.limit) for v in found} == {
        ("resource.disk", "violation", "disk 2.0 GiB of 1.0 GiB"),
        ("resource.pids", "violation", "processes 11 of 10"),
        ("resource.network", "notice", "network 1 B of 0 B"),
    }


def test_a_rule_speaks_again_only_when_it_got_worse():
    """The same reading again is not told; a quarter more is."""
    readings = [3 * GIB, 3 * GIB, 2 * GIB, 3.5 * GIB, 3.75 * GIB]

    assert [
        v.target.limit
        for v in violations_of(*(metric(memory_bytes=int(reading)) for reading in readings))
    ] == [
        "memory 3.0 GiB of 2.0 GiB",
        "memory 3.8 GiB of 2.0 GiB",
    ]


@given(st.lists(st.integers(0, 1 << 40), max_size=60))
def test_a_rule_speaks_seldom_whatever_is_read(readings):
    """However memory moves, the number of violations grows with the logarithm of the worst reading
    alone.
    """
    assert len(violations_of(*(metric(memory_bytes=reading) for reading in readings))) <= 30


def test_processor_time_is_judged_over_a_window_and_is_a_notice():
    """Three processors of two for five seconds is a notice; for one second it is nothing."""
    busy = [metric(cpu_seconds=0.3 * number) for number in range(60)]

    assert violations_of(*busy[:10]) == []
    assert [(v.rule, v.severity) for v in violations_of(*busy)] == [("resource.cpu", "notice")]


def test_limits_come_from_the_environment_s_start():
    """Missing attributes and zeros are not judged, but a network limit of zero is."""
    attributes: dict[str, str | int | float | bool] = {
        "memory_limit_bytes": 5,
        "cpus_limit": 0,
        "network_limit_bytes": 0,
    }
    limits = limits_of(Started(subject=ENVIRONMENT, attributes=attributes))

    assert limits == EnvironmentLimits(subject=ENVIRONMENT, memory_bytes=5, network_bytes=0)


async def test_the_loop_publishes_on_the_sample_s_span_and_forgets_ended_environments():
    """A violation is placed where its sample was; samples of an environment that ended or never
    began are not judged.
    """
    bus = Bus("run-1", SystemClock())
    inbox, found = (
        bus.subscribe("monitor", READS, limit=100),
        bus.subscribe("violations", (Violation,), limit=100),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, inbox, bus)
        bus.publish(metric(memory_bytes=3 * GIB))
        with bus.span(ENVIRONMENT, {"memory_limit_bytes": GIB}) as span:
            bus.publish(metric(memory_bytes=3 * GIB))
        bus.publish(metric(memory_bytes=9 * GIB))
        await bus.drain()
        bus.close()
    (only,) = await found.batch()

    assert (only.span_id, only.parent) == (span.context.span_id, "")
    assert Finished in READS
