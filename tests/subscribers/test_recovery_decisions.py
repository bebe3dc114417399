"""Recovery: what each trouble calls for, and that it ends."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.core.bus import Bus
from cleanroom.core.clock import SystemClock
from cleanroom.model.capability import Target
from cleanroom.model.commands import Command, GiveUp, KillEnvironment, Restart
from cleanroom.model.events import AnyEvent, Envelope, Finished, Started, Subject, Violation
from cleanroom.subscribers.recovery import LONGEST_DELAY_SECONDS, READS, RecoveryState, decide, run

SERVICE = Subject("service", "postgres")


def envelope(event: AnyEvent, at: float = 0.0, span: str = "s", parent: str = "") -> Envelope:
    return Envelope(
        seq=1,
        run_id="r",
        time_unix_ns=0,
        monotonic_ns=int(at * 1e9),
        trace_id="t",
        span_id=span,
        parent=parent,
        event=event,
    )


def decided(*envelopes: Envelope, seed: int = 42) -> list[Command]:
    state, sent = RecoveryState(seed=seed), []
    for one in envelopes:
        state, commands = decide(state, one)
        sent += commands
    return sent


def service_started(restarts_max: int = 3, window: float = 60.0) -> Envelope:
    return envelope(
        Started(
            subject=SERVICE,
            attributes={"restarts_max": restarts_max, "restart_window_seconds": window},
        )
    )


def service_ended(at: float = 0.0, result: str = "failed") -> Envelope:
    return envelope(
        Finished(subject=SERVICE, result=result, duration_seconds=1, reason="exit 1"), at
    )  # type: ignore[arg-type]


def phase_started(reaction: str) -> list[Envelope]:
    return [
        envelope(
            Started(subject=Subject("phase", "test"), attributes={"reaction": reaction}),
            span="phase",
        ),
        envelope(
            Started(subject=Subject("environment", "test-1"), attributes={"role": "phase"}),
            span="env",
            parent="phase",
        ),
    ]


def violation(
    rule: str = "network.egress", severity: str = "violation", certainty: str = "held_syscall"
) -> Envelope:
    return envelope(
        Violation(
            subject=Subject("environment", "test-1"),
            environment="test-1",
            dimension="network",
            rule=rule,
            severity=severity,  # type: ignore[arg-type]
            outcome="blocked",
            mechanism="m",
            certainty=certainty,
            confidence="observed",
            target=Target(host="example.org", port=443, proto="tcp"),
        )
    )


@pytest.mark.parametrize("result", ["failed", "error", "timeout"])
def test_a_failed_service_is_restarted_with_growing_delays_then_given_up(result):
    """Three restarts, each later than the one before, then one GiveUp, then nothing."""
    sent = decided(service_started(), *(service_ended(number, result) for number in range(6)))

    assert [type(command) for command in sent] == [Restart, Restart, Restart, GiveUp]
    delays = [command.delay_seconds for command in sent if isinstance(command, Restart)]
    assert delays == sorted(delays)
    assert delays[0] >= 0.1
    assert [command.attempt for command in sent if isinstance(command, Restart)] == [1, 2, 3]


@pytest.mark.parametrize("result", ["passed", "cancelled", "skipped", "unverified"])
def test_a_service_that_was_stopped_is_left_alone(result):
    """Only trouble is recovered from."""
    assert decided(service_started(), service_ended(result=result)) == []


def test_no_service_is_restarted_while_the_run_unwinds():
    """What ends during the unwinding is meant to end."""
    assert (
        decided(
            service_started(), envelope(Started(subject=Subject("unwind", ""))), service_ended()
        )
        == []
    )


def test_a_service_that_may_not_restart_is_given_up_at_once():
    """With restarts_max of zero the first failure is the last."""
    assert decided(service_started(restarts_max=0), service_ended()) == [
        GiveUp(service="postgres", cause="exit 1")
    ]


def test_a_service_that_is_started_again_by_somebody_is_recovered_again():
    """`up` starts what was given up: its restarts count anew, and it can be given up anew."""
    ends = [service_ended(number) for number in range(4)]
    sent = decided(service_started(), *ends, service_started(), *ends)

    assert [type(command) for command in sent] == [Restart, Restart, Restart, GiveUp] * 2


def test_old_restarts_are_forgotten():
    """A service that fails once an hour is restarted each time, with the first delay."""
    sent = decided(service_started(), *(service_ended(3600.0 * number) for number in range(10)))

    assert {(type(command), getattr(command, "attempt", 0)) for command in sent} == {(Restart, 1)}


@given(
    times=st.lists(st.floats(0, 1000), max_size=60),
    limit=st.integers(0, 5),
    window=st.floats(1, 100),
)
def test_restarts_are_bounded_in_every_window(times, limit, window):
    """For any failures, no window holds more restarts than allowed, no delay exceeds the longest,
    and nothing follows giving up.
    """
    state, restarted, given_up = RecoveryState(seed=1), [], 0
    for one in [service_started(limit, window), *(service_ended(at) for at in sorted(times))]:
        state, commands = decide(state, one)
        for command in commands:
            assert not given_up
            if isinstance(command, Restart):
                assert command.delay_seconds <= LONGEST_DELAY_SECONDS
                restarted.append(one.monotonic_ns / 1e9)
            given_up += isinstance(command, GiveUp)
    for at in restarted:
        assert sum(at <= other < at + window for other in restarted) <= limit


@given(seed=st.integers(), times=st.lists(st.floats(0, 100), max_size=20))
def test_the_same_seed_gives_the_same_commands(seed, times):
    """Deciding is a function of seed and events."""
    story = [service_started(5), *(service_ended(at) for at in sorted(times))]

    assert decided(*story, seed=seed) == decided(*story, seed=seed)


def test_different_seeds_give_different_delays():
    """The jitter is the seed's."""
    delays = {
        decided(service_started(), service_ended(), seed=seed)[0].delay_seconds
        for seed in range(10)
    }  # type: ignore[union-attr]

    assert len(delays) == 10


def test_an_environment_over_a_sampled_limit_is_killed_once():
    """A limit that only a sample holds kills at every reaction, and once."""
    sent = decided(*phase_started("warn"), *[violation("resource.memory", certainty="sampled")] * 3)

    assert [(type(command), getattr(command, "environment", "")) for command in sent] == [
        (KillEnvironment, "test-1")
    ]


def test_a_limit_that_the_kernel_held_kills_nothing():
    """Where the kernel said no there is nothing left to do."""
    assert decided(*phase_started("fail"), violation("resource.pids", certainty="counter")) == []


@pytest.mark.parametrize(("reaction", "kills"), [("warn", 0), ("fail", 0), ("end", 1)])
def test_a_violation_ends_its_environment_only_at_reaction_end(reaction, kills):
    """At warn and fail the phase goes on; at end its environment is killed,
    naming rule and target.
    """
    sent = decided(*phase_started(reaction), violation())

    assert len(sent) == kills
    assert all(command.cause == "network.egress: tcp example.org:443" for command in sent)


@pytest.mark.parametrize("severity", ["notice", "tolerated"])
@pytest.mark.parametrize("reaction", ["warn", "fail", "end"])
@pytest.mark.parametrize("rule", ["network.egress", "resource.cpu"])
def test_notices_and_tolerated_attempts_cause_no_command(severity, reaction, rule):
    """Only violations are acted on."""
    assert decided(*phase_started(reaction), violation(rule, severity, "sampled")) == []


def test_an_environment_that_ended_is_not_killed():
    """A violation that is told late finds nobody."""
    ended = envelope(
        Finished(subject=Subject("environment", "test-1"), result="passed", duration_seconds=1)
    )

    assert decided(*phase_started("end"), ended, violation()) == []


async def test_the_loop_sends_what_was_decided():
    """A failed service's end on the bus becomes a Restart in the owner's hands."""
    bus = Bus("run-1", SystemClock())
    inbox, sent = bus.subscribe("recovery", READS, limit=100), []

    async def recover() -> None:
        await run(inbox, sent.append, seed=1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(recover)
        with bus.span(SERVICE) as span:
            span.result = "failed"
        await bus.drain()
        bus.close()

    assert [type(command) for command in sent] == [Restart]
