"""Observation of environments.

Each environment is a span.
Its attempts become violations, its samples become metrics, and a command can end it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal, NamedTuple

import anyio
import msgspec
from anyio.abc import TaskGroup

from cleanroom.backends.base import Environment, EnvironmentSpec
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.judgement import Severity, attempt_key, judge
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
# both are in memory already.
ATTEMPTS_SECONDS = 2.0

JUDGE = "monitor"  # the subscriber that judges samples
# Violations between two counts: an environment reports a thousand different ones at most.
VIOLATIONS_MAX = 50_000


class ReportedAttempt(NamedTuple):
    """An attempt that was published when it first happened, and what followed it."""

    last: Attempt
    severity: Severity
    reason: str
    repetitions: int  # since it was published


class ObservedEnvironment:
    """An open environment, and the observations of it."""

    def __init__(self, environment: Environment, spec: EnvironmentSpec, of: str) -> None:
        self.environment = environment
        self.spec = spec
        self.of = of
        self.subject = Subject("environment", spec.id)
        self.violations = 0
        self.ended_for = ""  # the cause, when a command ended it
        # why it was ended, when a service that it needs failed
        self.failure: CleanroomError | None = None
        # programs that a command tried to start, and that exist on the host but not inside
        self.hidden: list[str] = []
        # programs that exist inside and may not be started there
        self.not_startable: list[str] = []
        self.reading = anyio.CancelScope()  # of its attempts
        self.sampling = anyio.CancelScope()
        self.leaving = anyio.Event()  # the last sample is due
        self.sampled = anyio.Event()
        self.attempts_read = anyio.Event()
        self.reported: dict[tuple[str, str, str], ReportedAttempt] = {}


class EnvironmentObserver:
    """Opens environments and observes them with tasks of the supervisor's group.

    A failure of such a task ends the run.
    """

    def __init__(self, context: RunContext, tasks: TaskGroup) -> None:
        self._context = context
        self._bus = context.bus
        self._tasks = tasks
        self._open: dict[str, ObservedEnvironment] = {}
        # Violations are counted from the events that every report is built from, whoever published
        # them: so a verdict and a report cannot differ.
        self._violations = self._bus.subscribe("count", (Violation,), limit=VIOLATIONS_MAX)
        self._beside_phases = 0

    @asynccontextmanager
    async def environment(
        self, spec: EnvironmentSpec, *, of: str
    ) -> AsyncIterator[ObservedEnvironment]:
        """Open an environment of the backend and observe it.

        After it was left, all its attempts have been judged and published.

        Raises:
            CleanroomError: the backend cannot make the environment, or it broke;
                an error of the body passes unchanged.
        """
        with self._bus.span(Subject("environment", spec.id), _attributes(spec, of)):
            observed: ObservedEnvironment | None = None
            first: CleanroomError | None = None
            try:
                async with self._context.backend.environment(spec) as environment:
                    observed = self._open[spec.id] = ObservedEnvironment(environment, spec, of)
                    self._tasks.start_soon(self._read_attempts, observed)
                    self._tasks.start_soon(self._read_samples, observed)
                    try:
                        yield observed
                        observed.leaving.set()
                        await observed.sampled.wait()
                    except CleanroomError as error:
                        first = error
                        raise
                    finally:
                        observed.sampling.cancel()
            except EnvironmentFailed as error:
                # The error inside is the cause; the one on leaving is its consequence.
                raise (first or error) from error.__cause__
            finally:
                if observed is not None:
                    await self._close(observed)

    @property
    def violations_beside_phases(self) -> int:
        """The number of violations by services, those of another process included."""
        self._count()
        return self._beside_phases

    async def kill(self, command: KillEnvironment) -> None:
        """Execute the command, unless the environment or all its commands have ended meanwhile.

        The environment's violations count all the same.
        """
        observed = self._open.get(command.environment)
        if observed is None or observed.ended_for or observed.leaving.is_set():
            return
        observed.ended_for = command.cause
        action: Literal["killed", "ended"] = (
            "killed" if command.rule.startswith("resource.") else "ended"
        )
        self._bus.publish(Recovery(subject=observed.subject, action=action, cause=command.cause))
        try:
            await observed.environment.kill()
        except EnvironmentFailed:
            pass  # it has ended by itself, as the command demands

    async def end_users(self, identity: str, failure: CleanroomError) -> None:
        """End the environments with a port forward to the environment `identity`.

        It will not come back, so their connections to it would wait for ever.
        """
        for observed in list(self._open.values()):
            if any(
                port_forward.environment == identity for port_forward in observed.spec.port_forwards
            ):
                observed.failure = failure
                with suppress(EnvironmentFailed):
                    await observed.environment.kill()

    async def _close(self, observed: ObservedEnvironment) -> None:
        """Wait until all attempts have been judged and counted, and forget the environment."""
        with anyio.move_on_after(ATTEMPTS_SECONDS, shield=True):
            await observed.attempts_read.wait()
            await self._bus.wait_processed(JUDGE)
        observed.reading.cancel()
        self._report_repetitions(observed)
        self._count()
        self._open.pop(observed.spec.id, None)
        if observed.spec.role != "phase":
            self._beside_phases += observed.violations

    def _count(self) -> None:
        """Add the violations since the last count to the numbers of their environments."""
        for envelope in self._violations.take():
            event = envelope.event
            if not isinstance(event, Violation) or event.severity != "violation":
                continue
            observed = self._open.get(event.environment)
            if observed is not None:
                observed.violations += event.count
            else:  # of a service that another process runs
                self._beside_phases += event.count

    async def _read_attempts(self, observed: ObservedEnvironment) -> None:
        try:
            with observed.reading:
                async for attempt in observed.environment.attempts():
                    self._judge_attempt(observed, attempt)
                    self._count()
                    await self._bus.wait_room()
        finally:
            observed.attempts_read.set()

    def _judge_attempt(self, observed: ObservedEnvironment, attempt: Attempt) -> None:
        judged = judge(observed.spec.policy, attempt)
        if judged is None:
            return
        severity, reason = judged
        if attempt.rule == EXEC_RULE and severity != "tolerated":
            refused = observed.hidden if attempt.errno == "ENOENT" else observed.not_startable
            if len(refused) < HIDDEN_MOST:
                refused.append(attempt.target.path)
        key = attempt_key(attempt)
        earlier = observed.reported.get(key)
        if earlier is None:
            repetitions = 0
            self._bus.publish(events.violation(observed.subject, attempt, severity, reason))
        else:
            repetitions = earlier.repetitions + attempt.count
        observed.reported[key] = ReportedAttempt(attempt, severity, reason, repetitions)

    def _report_repetitions(self, observed: ObservedEnvironment) -> None:
        """Publish how often each attempt was repeated after it was published."""
        for attempt, severity, reason, repetitions in observed.reported.values():
            if repetitions:
                repeated = msgspec.structs.replace(attempt, count=repetitions)
                self._bus.publish(events.violation(observed.subject, repeated, severity, reason))
        observed.reported.clear()

    async def _read_samples(self, observed: ObservedEnvironment) -> None:
        """Take samples until the environment is left, and a last one after its commands ended."""
        limit = observed.spec.policy.limits.memory_bytes
        try:
            with observed.sampling:
                while not observed.leaving.is_set():
                    sample = await self._take_sample(observed)
                    near = sample is not None and sample.memory_bytes > limit * NEAR_LIMIT
                    with anyio.move_on_after(NEAR_LIMIT_SECONDS if near else SAMPLE_SECONDS):
                        await observed.leaving.wait()
                await self._take_sample(observed, last=True)
        finally:
            observed.sampled.set()

    async def _take_sample(
        self, observed: ObservedEnvironment, *, last: bool = False
    ) -> Sample | None:
        """Take one sample and publish it.

        Where none can be taken, return None and take no further ones.
        """
        try:
            sample = await observed.environment.sample(last=last)
        except CleanroomError as error:
            text = f"no more samples: {error}"
            self._bus.publish(
                Note(subject=observed.subject, level="warning", text=text, code=error.code)
            )
            observed.sampling.cancel()
            return None
        if sample is not None:
            self._bus.publish(_metric(observed, sample))
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


def _metric(observed: ObservedEnvironment, sample: Sample) -> Metric:
    return Metric(
        subject=observed.subject,
        environment=observed.spec.id,
        cpu_seconds=sample.cpu_seconds,
        memory_bytes=sample.memory_bytes,
        disk_bytes=sample.disk_bytes,
        network_bytes=sample.network_bytes,
        processes=sample.processes,
        source=sample.source,
        largest=sample.largest,
    )
