"""The subscribers of one run: started before its first event, drained after its last.

Each runs in a task of its own, also while the run is cancelled.
The failure of one ends the run and is in the result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from cleanroom.core.bus import Bus, Subscription
from cleanroom.core.files import is_there
from cleanroom.core.version import __version__
from cleanroom.engine.run_settings import RunSettings
from cleanroom.evidence.audit import log as audit_log
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.tracing.delivery import Delivered
from cleanroom.model.commands import Command
from cleanroom.model.errors import CleanroomError, Exit, combined, first_cause
from cleanroom.model.plan import Plan
from cleanroom.subscribers import audit, monitor, recovery, reporter, tracer

# for subscribers to write their evidence; a slow disk, not a slow computation
DRAIN_SECONDS = 10.0


class RunSubscribers:
    """The subscribers of one run, and the report that follows from their evidence."""

    def __init__(
        self,
        settings: RunSettings,
        bus: Bus,
        plan_json: bytes,
        end_run: Callable[[], None],
    ) -> None:
        """`end_run` is called when one of them fails; it may be called more than once."""
        places = settings.places
        self._bus = bus
        self._places = places
        self._seed = settings.plan.seed
        self._end_run = end_run
        self._reporter = reporter.Reporter(places.root, places.own.run, places.own.reports)
        self._tracer = tracer.Tracer.of(places.own.run, settings.caller, sampled=bus.sampled)
        genesis = _genesis(settings.plan, plan_json)
        self._log = audit_log.AuditLog(places.own.audit, bus.run_id, genesis, bus.clock)
        self._failures: list[BaseException] = []
        self._publishing: list[Subscription] = []  # inboxes of those that publish themselves
        self._guards: list[anyio.CancelScope] = []
        self._running = 0
        self._all_ended = anyio.Event()

    @property
    def failure(self) -> BaseException | None:
        """The first failure of a subscriber."""
        return self._failures[0] if self._failures else None

    @property
    def delivered(self) -> Delivered | None:
        """The delivery to a collector; None where none is named."""
        return self._tracer.delivered

    async def start(self, tasks: TaskGroup, send: Callable[[Command], None]) -> None:
        """Start each in its own task. `send` receives the commands of recovery."""
        bus = self._bus
        seen_by_monitor = bus.subscribe("monitor", monitor.READS, limit=monitor.LIMIT)
        seen_by_recovery = bus.subscribe("recovery", recovery.READS, limit=recovery.LIMIT)
        seen_by_audit = bus.subscribe("audit", limit=audit.LIMIT)
        seen_by_reporter = bus.subscribe("reporter", limit=reporter.LIMIT)
        seen_by_tracer = bus.subscribe("tracer", tracer.READS, limit=tracer.LIMIT)
        self._publishing = [seen_by_monitor, seen_by_recovery]
        loops: dict[str, Callable[[], Awaitable[None]]] = {
            "audit": partial(audit.run, seen_by_audit, self._log),
            "reporter": partial(self._reporter.run, seen_by_reporter),
            "tracer": partial(self._tracer.run, seen_by_tracer),
            "monitor": partial(monitor.run, seen_by_monitor, bus),
            "recovery": partial(recovery.run, seen_by_recovery, send, seed=self._seed),
        }
        try:
            await anyio.to_thread.run_sync(self._log.open)
        # a log that does not match its head is not continued: nothing may run unrecorded
        except CleanroomError as error:
            del loops["audit"]
            self._fail(error)
        self._running = len(loops)
        for name, loop in loops.items():
            tasks.start_soon(self._guard, loop, name=f"subscriber {name}")

    async def _guard(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run one subscriber to its end, also when the run is cancelled."""
        with anyio.CancelScope(shield=True) as scope:
            self._guards.append(scope)
            try:
                await loop()
            except Exception as error:  # it is in the result, as a failure of the run itself
                self._fail(error)
        self._running -= 1
        if not self._running:
            self._all_ended.set()

    def _fail(self, error: Exception) -> None:
        self._failures.append(error)
        self._end_run()

    async def drain(self) -> None:
        """Close the bus, and wait until all evidence is written.

        Before that the last sample may still become a violation.
        """
        with anyio.move_on_after(DRAIN_SECONDS):
            await wait_until_idle(self._publishing, lambda: bool(self._failures))
        self._bus.close()
        with anyio.move_on_after(DRAIN_SECONDS) as limit:
            await self._all_ended.wait()
        if limit.cancelled_caught:
            error = CleanroomError(
                "CR-ENGINE-002",
                f"evidence was not written within {DRAIN_SECONDS:g} s",
                hint="is the disk slow or full?",
            )
            self._failures.append(error)
            for scope in self._guards:
                scope.cancel()

    async def report(self) -> RunResult:
        """Write the final result in every form, with the failures of subscribers in it."""
        result = self._reporter.result()
        result = msgspec.structs.replace(result, audit_head=msgspec.structs.asdict(self._log.head))
        result = self._with_failure(result)
        files = {"audit": self._places.own.audit.path / "audit.jsonl", "trace": self._tracer.path}
        try:
            result = await self._reporter.write(
                result, {kind: path for kind, path in files.items() if is_there(path)}
            )
        except CleanroomError as error:
            self._failures.append(error)
        return self._with_failure(result)

    def _with_failure(self, result: RunResult) -> RunResult:
        """The result of a run whose evidence is incomplete: an error of the engine, unless a
        signal explains it.
        """
        if self.failure is None:
            return result
        cause = first_cause(self.failure)
        code = combined([Exit.ENGINE, Exit(result.exit_code)])
        if code is not Exit.ENGINE:
            return result
        return msgspec.structs.replace(
            result,
            outcome="error",
            exit_code=int(code),
            reason=str(cause),
            error={"code": cause.code, "message": str(cause), "hint": cause.hint},
        )


async def wait_until_idle(
    inboxes: Sequence[Subscription], broken: Callable[[], bool] = lambda: False
) -> None:
    """Wait until the subscribers of these inboxes have processed all events.

    Their reactions are events too, and are processed as well.
    Returns early once `broken` is true.
    """
    for _ in range(3):  # a reaction may cause another
        await anyio.lowlevel.checkpoint()
        while any(inbox.waiting for inbox in inboxes) and not broken():  # noqa: ASYNC110 -- a subscription does not tell that it is empty
            await anyio.sleep(0.001)


def _genesis(plan: Plan, plan_json: bytes) -> audit_log.Genesis:
    """The first record of a run in the audit log."""
    policy = hashlib.sha256(msgspec.json.encode(plan.policy)).hexdigest()
    return audit_log.Genesis(
        plan_sha256=hashlib.sha256(plan_json).hexdigest(),
        policy_sha256=policy,
        engine_version=__version__,
    )
