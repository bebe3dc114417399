"""Recovery: decides about failed services and violations; the supervisor carries it out.

A service that failed is restarted with back-off, a number of times in a window, then given up.
An environment that a sample found over a limit is killed, because the kernel did not stop it.
So is one whose phase reacts to violations by ending.
Notices have no effect.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cleanroom.core.bus import Subscription
from cleanroom.core.clock import seeded
from cleanroom.model.commands import Command, GiveUp, KillEnvironment, Restart
from cleanroom.model.events import Envelope, Finished, Started, Violation

READS = (Started, Finished, Violation)
# a flood of violations is folded before it gets here; this many need a bug or an attack,
# and both should end the run
LIMIT = 50_000
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
RESTARTS_MAX = 3  # where a service's Started does not say, as in `plan.ServiceSpec`
RESTART_WINDOW_SECONDS = 60.0
TROUBLE = ("failed", "error", "timeout")


class ServiceRestarts(msgspec.Struct, frozen=True, kw_only=True):
    """The restarts of one service."""

    restarts_max: int = RESTARTS_MAX
    window_seconds: float = RESTART_WINDOW_SECONDS
    restarts: tuple[float, ...] = ()  # when those within the window were decided
    total: int = 0
    given_up: bool = False


class RecoveryState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision depends on besides the event.

    The seed makes the jitter: same seed, same delays.
    """

    seed: int
    services: dict[str, ServiceRestarts] = {}
    reactions: dict[str, str] = {}  # open phases, by span, and what a violation does to them
    # open environments that were not killed yet, and the reaction of their phase
    environments: dict[str, str] = {}
    unwinding: bool = False


def decide(state: RecoveryState, envelope: Envelope) -> tuple[RecoveryState, tuple[Command, ...]]:
    """The new state, and the commands that this event calls for."""
    match envelope.event:
        case Started() as event:
            return _started(state, event, envelope), ()
        case Finished() as event if event.subject.kind == "service":
            return _service_finished(state, event, envelope.monotonic_ns / 1e9)
        case Finished() as event:
            return _finished(state, event, envelope.span_id), ()
        case Violation() as event if event.severity == "violation":
            return _violated(state, event)
    return state, ()


async def run(inbox: Subscription, send: Callable[[Command], None], *, seed: int) -> None:
    """Decide about each event until the bus has closed."""
    state = RecoveryState(seed=seed)
    while batch := await inbox.batch():
        for envelope in batch:
            state, commands = decide(state, envelope)
            for command in commands:
                send(command)


def _started(state: RecoveryState, event: Started, envelope: Envelope) -> RecoveryState:
    name, attributes = event.subject.name, event.attributes
    match event.subject.kind:
        case "phase":
            reactions = state.reactions | {envelope.span_id: str(attributes.get("reaction", ""))}
            return msgspec.structs.replace(state, reactions=reactions)
        case "environment":
            environments = state.environments | {name: state.reactions.get(envelope.parent, "")}
            return msgspec.structs.replace(state, environments=environments)
        case "service":
            before = state.services.get(name, ServiceRestarts())
            # somebody has started again what was given up
            service = msgspec.structs.replace(
                ServiceRestarts() if before.given_up else before,
                restarts_max=int(attributes.get("restarts_max", RESTARTS_MAX)),
                window_seconds=float(
                    attributes.get("restart_window_seconds", RESTART_WINDOW_SECONDS)
                ),
            )
            return msgspec.structs.replace(state, services=state.services | {name: service})
        case "unwind":
            return msgspec.structs.replace(state, unwinding=True)
    return state


def _finished(state: RecoveryState, event: Finished, span: str) -> RecoveryState:
    if event.subject.kind == "phase":
        return msgspec.structs.replace(state, reactions=_without(state.reactions, span))
    if event.subject.kind == "environment":
        return msgspec.structs.replace(
            state, environments=_without(state.environments, event.subject.name)
        )
    return state


def _service_finished(
    state: RecoveryState, event: Finished, now: float
) -> tuple[RecoveryState, tuple[Command, ...]]:
    """Restart it while its window has room, then give it up for good.

    What ends while the run unwinds is meant to end.
    """
    name, cause = event.subject.name, event.reason or event.result
    service = state.services.get(name, ServiceRestarts())
    if event.result not in TROUBLE or service.given_up or state.unwinding:
        return state, ()
    recent = tuple(when for when in service.restarts if when > now - service.window_seconds)
    if len(recent) >= service.restarts_max:
        service = msgspec.structs.replace(service, given_up=True)
        cause_and_count = (
            f"{cause}; restarted {len(recent)} times in {service.window_seconds:g} s"
            if recent
            else cause
        )
        command: Command = GiveUp(service=name, cause=cause_and_count)
    else:
        attempt = len(recent) + 1
        delay = back_off(state.seed, name, attempt, service.total + 1)
        service = msgspec.structs.replace(service, restarts=(*recent, now), total=service.total + 1)
        command = Restart(service=name, delay_seconds=delay, attempt=attempt, cause=cause)
    return msgspec.structs.replace(state, services=state.services | {name: service}), (command,)


def back_off(seed: int, service: str, attempt: int, number: int) -> float:
    """Seconds before the next start: doubled with each attempt in the window,
    and up to a half more so that services do not march in step.
    """
    jitter = 1 + seeded(seed, f"restart:{service}:{number}").random() / 2
    doubled: float = FIRST_DELAY_SECONDS * 2.0 ** min(attempt - 1, 16)
    return min(doubled * jitter, LONGEST_DELAY_SECONDS)


def _violated(state: RecoveryState, event: Violation) -> tuple[RecoveryState, tuple[Command, ...]]:
    """Kill an open environment, once, for a limit that only a sample holds or because its phase
    ends at a violation.
    """
    reaction = state.environments.get(event.environment)
    over_limit = event.rule.startswith("resource.") and event.certainty == "sampled"
    if reaction is None or not (over_limit or reaction == "end"):
        return state, ()
    environments = _without(state.environments, event.environment)
    cause = str(event.target) if over_limit else f"{event.rule}: {event.target}"
    command = KillEnvironment(environment=event.environment, cause=cause, rule=event.rule)
    return msgspec.structs.replace(state, environments=environments), (command,)


def _without(known: dict[str, str], key: str) -> dict[str, str]:
    return {name: value for name, value in known.items() if name != key}
