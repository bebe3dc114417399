"""Environments under observation: each is a span; its attempts become violations,
its samples metrics, and it can be ended by a command.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

import anyio
import msgspec
from anyio.abc import TaskGroup

from cleanroom.backends.base import Environment, EnvironmentSpec
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.judgement import Severity, fold_key, judge
from cleanroom.model import events
from cleanroom.model.capability import Attempt, Sample
from cleanroom.model.commands import KillEnvironment
from cleanroom.model.errors import CleanroomError, EnvironmentFailed
from cleanroom.model.events import Metric, Note, Recovery, Subject, Violation

SAMPLE_SECONDS = 0.1
# once memory is near its limit: a process can take hundreds of MiB in a tenth of a second
NEAR_LIMIT_SECONDS = 0.05
NEAR_LIMIT = 0.75
EXEC_RULE = "process.exec"
HIDDEN_MOST = 5  # named in the phase's reason; all are in the report
# For the last attempts of an environment that has ended, and the judgement of its last sample:
# they are
# in memory already.
HEAR_SECONDS = 2.0

JUDGE = "monitor"  # the subscriber that judges samples
# Violations between two counts: an environment tells of a thousand different ones at most.
FOUND_MAX = 50_000


class ObservedEnvironment:
    """An open environment and what was seen of it."""

    def __init__(self, environment: Environment, spec: EnvironmentSpec, of: str) -> None:
        self.environment = environment
        self.spec = spec
        self.of = of
        self.subject = Subject("environment", spec.id)
        self.violations = 0
        self.ended_for = ""  # the cause, when a command ended it
        self.failure: CleanroomError | None = None  # why it was ended, when what it needs failed
        # programs that were to be started, are on the host and not shown
        self.hidden: list[str] = []
        self.hearing = anyio.CancelScope()
        self.sampling = anyio.CancelScope()
        self.leaving = anyio.Event()  # the last sample is due
        self.sampled = anyio.Event()
        self.heard = anyio.Event()
        # the last, its judgement, how many are untold
        self.folded: dict[tuple[str, str, str], tuple[Attempt, Severity, str, int]] = {}


class EnvironmentObserver:
    """Opens environments and observes them with tasks of the supervisor's group,
    whose failure ends the run.
    """

    def __init__(self, context: RunContext, tasks: TaskGroup) -> None:
        self._context = context
        self._bus = context.bus
        self._tasks = tasks
        self._open: dict[str, ObservedEnvironment] = {}
        # Counted from the events that every report is folded from, whoever found them: no verdict
        # knows another number.
        self._found = self._bus.subscribe("count", (Violation,), limit=FOUND_MAX)
        self._beside_phases = 0

    @asynccontextmanager
    async def environment(
        self, spec: EnvironmentSpec, *, of: str
    ) -> AsyncIterator[ObservedEnvironment]:
        """As the backend's, observed.

        When it has been left, everything it tried has been judged and published.
        """
        with self._bus.span(Subject("environment", spec.id), _attributes(spec, of)):
            watched: ObservedEnvironment | None = None
            first: CleanroomError | None = None
            try:
                async with self._context.backend.environment(spec) as environment:
                    watched = self._open[spec.id] = ObservedEnvironment(environment, spec, of)
                    self._tasks.start_soon(self._hear, watched)
                    self._tasks.start_soon(self._sample, watched)
                    try:
                        yield watched
                        watched.leaving.set()
                        await watched.sampled.wait()
                    except CleanroomError as error:
                        first = error
                        raise
                    finally:
                        watched.sampling.cancel()
            except EnvironmentFailed as error:
                # What went wrong in it is said, and not what came of it when it was left.
                raise (first or error) from error.__cause__
            finally:
                if watched is not None:
                    await self._close(watched)

    @property
    def violations_beside_phases(self) -> int:
        """How many there were of services, whoever holds them."""
        self._count()
        return self._beside_phases

    async def kill(self, command: KillEnvironment) -> None:
        """Carry the command out, unless the environment or all its commands have ended meanwhile.

        What it did wrong counts all the same.
        """
        watched = self._open.get(command.environment)
        if watched is None or watched.ended_for or watched.leaving.is_set():
            return
        watched.ended_for = command.cause
        action: Literal["killed", "ended"] = (
            "killed" if command.rule.startswith("resource.") else "ended"
        )
        self._bus.publish(Recovery(subject=watched.subject, action=action, cause=command.cause))
        try:
            await watched.environment.kill()
        except EnvironmentFailed:
            pass  # it has ended by itself: what was asked for is so

    async def end_users(self, identity: str, failure: CleanroomError) -> None:
        """End the environments whose doorways lead to the environment `identity`,
        which will not come back: they would wait for ever.
        """
        for watched in list(self._open.values()):
            if any(doorway.environment == identity for doorway in watched.spec.doorways):
                watched.failure = failure
                with suppress(EnvironmentFailed):
                    await watched.environment.kill()

    async def _close(self, watched: ObservedEnvironment) -> None:
        """Everything it tried has been judged and counted when this returns."""
        with anyio.move_on_after(HEAR_SECONDS, shield=True):
            await watched.heard.wait()
            await self._bus.wait_dealt(JUDGE)
        watched.hearing.cancel()
        self._tell_rest(watched)
        self._count()
        self._open.pop(watched.spec.id, None)
        if watched.spec.role != "phase":
            self._beside_phases += watched.violations

    def _count(self) -> None:
        """Add what was found since the last time to its environment's number."""
        for envelope in self._found.take():
            event = envelope.event
            if not isinstance(event, Violation) or event.severity != "violation":
                continue
            watched = self._open.get(event.environment)
            if watched is not None:
                watched.violations += event.count
            else:  # of a service that another process holds
                self._beside_phases += event.count

    async def _hear(self, watched: ObservedEnvironment) -> None:
        try:
            with watched.hearing:
                async for attempt in watched.environment.attempts():
                    self._judge(watched, attempt)
                    self._count()
                    await self._bus.wait_room()
        finally:
            watched.heard.set()

    def _judge(self, watched: ObservedEnvironment, attempt: Attempt) -> None:
        judged = judge(watched.spec.policy, attempt)
        if judged is None:
            return
        severity, reason = judged
        if (
            attempt.rule == EXEC_RULE
            and attempt.errno == "ENOENT"
            and len(watched.hidden) < HIDDEN_MOST
        ):
            watched.hidden.append(attempt.target.path)
        key = fold_key(attempt)
        if key in watched.folded:
            untold = watched.folded[key][3] + attempt.count
        else:
            untold = 0
            self._bus.publish(events.violation(watched.subject, attempt, severity, reason))
        watched.folded[key] = (attempt, severity, reason, untold)

    def _tell_rest(self, watched: ObservedEnvironment) -> None:
        """Repetitions of what was published when it first happened."""
        for attempt, severity, reason, untold in watched.folded.values():
            if untold:
                again = msgspec.structs.replace(attempt, count=untold)
                self._bus.publish(events.violation(watched.subject, again, severity, reason))
        watched.folded.clear()

    async def _sample(self, watched: ObservedEnvironment) -> None:
        """One reading after the other, and a last one of what its commands left."""
        limit = watched.spec.policy.limits.memory_bytes
        try:
            with watched.sampling:
                while not watched.leaving.is_set():
                    sample = await self._take_sample(watched)
                    near = sample is not None and sample.memory_bytes > limit * NEAR_LIMIT
                    with anyio.move_on_after(NEAR_LIMIT_SECONDS if near else SAMPLE_SECONDS):
                        await watched.leaving.wait()
                await self._take_sample(watched, last=True)
        finally:
            watched.sampled.set()

    async def _take_sample(
        self, watched: ObservedEnvironment, *, last: bool = False
    ) -> Sample | None:
        """None, and no further one, where it cannot be taken."""
        try:
            sample = await watched.environment.sample(last=last)
        except CleanroomError as error:
            text = f"no more samples: {error}"
            self._bus.publish(
                Note(subject=watched.subject, level="warning", text=text, code=error.code)
            )
            watched.sampling.cancel()
            return None
        if sample is not None:
            self._bus.publish(_metric(watched, sample))
            await self._bus.wait_room()
        return sample


def _attributes(spec: EnvironmentSpec, of: str) -> dict[str, str | int | float | bool]:
    limits = spec.policy.limits
    return {
        "role": spec.role,
        "of": of,
        "memory_limit_bytes": limits.memory_bytes,
        "pids_limit": limits.pids,
        "disk_limit_bytes": limits.disk_bytes,
        "cpus_limit": limits.cpus,
    }


def _metric(watched: ObservedEnvironment, sample: Sample) -> Metric:
    fields = {name: getattr(sample, name) for name in sample.__struct_fields__}
    return Metric(subject=watched.subject, environment=watched.spec.id, **fields)
