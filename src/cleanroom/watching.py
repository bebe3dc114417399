"""Environments under observation: each is a span; its attempts become violations, its samples metrics, and it can be ended by a command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

import anyio
import msgspec
from anyio.abc import TaskGroup

from cleanroom import events
from cleanroom.artifacts import relative
from cleanroom.backends.base import Backend, Environment, EnvironmentSpec
from cleanroom.bus import Bus, SpanContext
from cleanroom.capability import Attempt, Sample
from cleanroom.commands import KillEnvironment
from cleanroom.errors import CleanroomError, EnvironmentFailed
from cleanroom.events import Metric, Note, Recovery, Subject
from cleanroom.output import LogSink, OutputPump, Redacting
from cleanroom.plan import Plan
from cleanroom.verdicts import Severity, fold_key, judge

SAMPLE_SECONDS = 0.1
NEAR_LIMIT_SECONDS = 0.05  # once memory is near its limit: a process can take hundreds of MiB in a tenth of a second
NEAR_LIMIT = 0.75
EXEC_RULE = "process.exec"
HIDDEN_MOST = 5  # named in the phase's reason; all are in the report
HEAR_SECONDS = 2.0  # for the last attempts of an environment that has ended: they are in memory already


class RunContext(NamedTuple):
    """What everything in one run shares."""

    run_id: str
    plan: Plan
    bus: Bus
    backend: Backend
    logs: LogSink
    redactor: Redacting
    caller: Mapping[str, str]
    scratch: Path  # for data that goes with the run; outside the project
    folder: Path  # .ggen/cleanroom/runs/<run_id>
    home: str = ""  # host folder of the private home's .cache; "": a fresh one for each phase
    keep: Literal["never", "on-failure", "always"] = "never"
    degraded: tuple[str, ...] = ()  # rules that are not held here and that file and command line both let go

    def log_path(self, name: str) -> str:
        """Where the log called `name` is, as a person would look for it: relative to the project."""
        return self.shown(self.logs.path(name))

    def shown(self, path: Path) -> str:
        """`path` relative to the project where it lies inside."""
        return relative(path, Path(self.plan.root))

    def pump(self, subject: Subject, log: str, at: SpanContext) -> OutputPump:
        return OutputPump(self.bus, self.logs, self.redactor, subject=subject, log=log, at=at)


class Watched:
    """An open environment and what was seen of it."""

    def __init__(self, environment: Environment, spec: EnvironmentSpec, of: str) -> None:
        self.environment = environment
        self.spec = spec
        self.of = of
        self.subject = Subject("environment", spec.id)
        self.violations = 0
        self.ended_for = ""  # the cause, when a command ended it
        self.failure: CleanroomError | None = None  # why it was ended, when what it needs failed
        self.hidden: list[str] = []  # programs that were to be started, are on the host and not shown
        self.hearing = anyio.CancelScope()
        self.sampling = anyio.CancelScope()
        self.heard = anyio.Event()
        self.folded: dict[tuple[str, str, str], tuple[Attempt, Severity, str, int]] = {}  # the last, its judgement, how many are untold


class Watch:
    """Opens environments and observes them with tasks of the supervisor's group, whose failure ends the run."""

    def __init__(self, context: RunContext, tasks: TaskGroup) -> None:
        self._context = context
        self._bus = context.bus
        self._tasks = tasks
        self._open: dict[str, Watched] = {}
        self.violations: dict[str, int] = {}  # role -> how many, of environments that were left

    @asynccontextmanager
    async def environment(self, spec: EnvironmentSpec, *, of: str) -> AsyncIterator[Watched]:
        """As the backend's, observed. When it has been left, everything it tried has been judged and published."""
        with self._bus.span(Subject("environment", spec.id), _attributes(spec, of)):
            watched: Watched | None = None
            try:
                async with self._context.backend.environment(spec) as environment:
                    watched = self._open[spec.id] = Watched(environment, spec, of)
                    self._tasks.start_soon(self._hear, watched)
                    self._tasks.start_soon(self._sample, watched)
                    try:
                        yield watched
                    finally:
                        watched.sampling.cancel()
            finally:
                if watched is not None:
                    await self._close(watched)

    async def kill(self, command: KillEnvironment) -> None:
        """Carry the command out, unless the environment has ended meanwhile."""
        watched = self._open.get(command.environment)
        if watched is None or watched.ended_for:
            return
        watched.ended_for = command.cause
        action: Literal["killed", "ended"] = "killed" if command.rule.startswith("resource.") else "ended"
        self._bus.publish(Recovery(subject=watched.subject, action=action, cause=command.cause))
        try:
            await watched.environment.kill()
        except EnvironmentFailed:
            pass  # it has ended by itself: what was asked for is so

    async def end_users(self, identity: str, failure: CleanroomError) -> None:
        """End the environments whose doorways lead to the environment `identity`, which will not come back: they would wait for ever."""
        for watched in list(self._open.values()):
            if any(doorway.environment == identity for doorway in watched.spec.doorways):
                watched.failure = failure
                with suppress(EnvironmentFailed):
                    await watched.environment.kill()

    async def _close(self, watched: Watched) -> None:
        with anyio.move_on_after(HEAR_SECONDS, shield=True):
            await watched.heard.wait()
        watched.hearing.cancel()
        self._tell_rest(watched)
        self._open.pop(watched.spec.id, None)
        self.violations[watched.spec.role] = self.violations.get(watched.spec.role, 0) + watched.violations

    async def _hear(self, watched: Watched) -> None:
        try:
            with watched.hearing:
                async for attempt in watched.environment.attempts():
                    self._judge(watched, attempt)
                    await self._bus.wait_room()
        finally:
            watched.heard.set()

    def _judge(self, watched: Watched, attempt: Attempt) -> None:
        judged = judge(watched.spec.policy, attempt)
        if judged is None:
            return
        severity, reason = judged
        if attempt.rule == EXEC_RULE and attempt.errno == "ENOENT" and len(watched.hidden) < HIDDEN_MOST:
            watched.hidden.append(attempt.target.path)
        if severity == "violation":
            watched.violations += attempt.count
        key = fold_key(attempt)
        if key in watched.folded:
            untold = watched.folded[key][3] + attempt.count
        else:
            untold = 0
            self._bus.publish(events.violation(watched.subject, attempt, severity, reason))
        watched.folded[key] = (attempt, severity, reason, untold)

    def _tell_rest(self, watched: Watched) -> None:
        """Repetitions of what was published when it first happened."""
        for attempt, severity, reason, untold in watched.folded.values():
            if untold:
                again = msgspec.structs.replace(attempt, count=untold)
                self._bus.publish(events.violation(watched.subject, again, severity, reason))
        watched.folded.clear()

    async def _sample(self, watched: Watched) -> None:
        limit = watched.spec.policy.limits.memory_bytes
        with watched.sampling:
            while True:
                try:
                    sample = await watched.environment.sample()
                except CleanroomError as error:
                    self._bus.publish(Note(subject=watched.subject, level="warning", text=f"no more samples: {error}", code=error.code))
                    return
                if sample is not None:
                    self._bus.publish(_metric(watched, sample))
                    await self._bus.wait_room()
                near = sample is not None and sample.memory_bytes > limit * NEAR_LIMIT
                await anyio.sleep(NEAR_LIMIT_SECONDS if near else SAMPLE_SECONDS)


def _attributes(spec: EnvironmentSpec, of: str) -> dict[str, str | int | float | bool]:
    limits = spec.policy.limits
    return {
        "role": spec.role, "of": of, "memory_limit_bytes": limits.memory_bytes, "pids_limit": limits.pids,
        "disk_limit_bytes": limits.disk_bytes, "cpus_limit": limits.cpus,
    }  # fmt: skip


def _metric(watched: Watched, sample: Sample) -> Metric:
    fields = {name: getattr(sample, name) for name in sample.__struct_fields__}
    return Metric(subject=watched.subject, environment=watched.spec.id, **fields)
