"""One run from its first event to its reports: subscribers, backend, refusal, services, phases,
unwinding, account.

Whatever happens after the first event is in the result;
nothing is raised but the caller's own cancellation, and then the evidence is written too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from cleanroom.backends import registry
from cleanroom.backends.base import Backend, Leftover
from cleanroom.core.bus import Bus, Span, Subscription
from cleanroom.core.files import LogFiles, is_there, relative, write_atomic
from cleanroom.core.redaction import Redactor
from cleanroom.core.version import __version__
from cleanroom.engine.own_folder import RunFolders
from cleanroom.engine.phase_cache.store import PhaseCache
from cleanroom.engine.phases.lifecycle import Lifecycle
from cleanroom.engine.phases.outcome import PhaseOutcome
from cleanroom.engine.phases.verdict import EXIT_RESULTS, Cause, decisive, phase_causes, verifies
from cleanroom.engine.shared_services.client import ServerConnection, connect
from cleanroom.engine.shared_services.discovery import POOLABLE_KINDS, ServerConfig
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.output import LogSink
from cleanroom.engine.supervision.supervisor import Supervisor, supervise
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.reports.text import plural
from cleanroom.model.capability import CapabilityReport, Missing, unmet
from cleanroom.model.errors import (
    CleanroomError,
    EnvironmentFailed,
    Exit,
    PolicyRefused,
    combined,
    first_cause,
)
from cleanroom.model.events import Capability, Ledger, Note, Subject
from cleanroom.model.plan import Plan
from cleanroom.model.policy import Level, lowest_first
from cleanroom.services import Recipe, TemplateCache

if TYPE_CHECKING:
    from cleanroom.backends.cleanup import SweepFindings
    from cleanroom.evidence.audit.log import AuditLog, Genesis
    from cleanroom.evidence.tracing.deliver import Delivered
    from cleanroom.subscribers.tracer import Tracer

# for subscribers to write down what they have; a slow disk, not a slow computation
DRAIN_SECONDS = 10.0
LEDGER_SECONDS = 5.0

MakeBackend = Callable[[str], Backend]


class Place(NamedTuple):
    """Where a run keeps its files. Those in the project are held open from its start to its end."""

    root: Path
    own: RunFolders
    scratch: Path
    templates: Path
    home: str


class _Account:
    """What is known when the run's span ends."""

    def __init__(self) -> None:
        self.outcomes: list[PhaseOutcome] = []
        self.error: CleanroomError | None = None
        self.service_violations = 0
        self.left: tuple[Leftover, ...] = ()
        self.degraded: tuple[str, ...] = ()
        self.backend: Backend | None = None
        self.held: tuple[str, ...] = ()


class Run:
    """Carries out one plan. Made anew for each run."""

    def __init__(
        self,
        plan: Plan,
        place: Place,
        bus: Bus,
        redactor: Redactor,
        *,
        caller: Mapping[str, str],
        make: MakeBackend,
        recipes: Callable[[], tuple[Recipe, ...]],
        record: Callable[[Sequence[PhaseOutcome]], None] | None = None,
        sweep: Callable[[], SweepFindings] | None = None,
        skipping: PhaseCache | None = None,
        keep: Literal["never", "on-failure", "always"] = "never",
        charge: ServerConfig | None = None,
        before_phases: Callable[[], None] | None = None,
    ) -> None:
        """`charge` names the holder that the run's services are to be held by,
        where the backend can lead to it.

        `before_phases` is called in a worker thread when everything but the phases has begun.
        """
        self._plan = plan
        self._charge = charge
        self._place = place
        self._bus = bus
        self._redactor = redactor
        self._caller = caller
        self._make = make
        self._recipes = recipes
        self._record = record
        self._sweep = sweep
        self._skipping = skipping
        self._keep = keep
        self._before_phases = before_phases
        self._account = _Account()
        self._scope = anyio.CancelScope()
        self._signal: Exit | None = None
        self._why = ""
        self._supervisor: Supervisor | None = None
        self._trouble: list[BaseException] = []  # of subscribers
        self._guards: list[anyio.CancelScope] = []
        self._drained = anyio.Event()
        self._log: AuditLog | None = None
        self._tracer: Tracer | None = None
        self._subscribers = 0

    @property
    def delivered(self) -> Delivered | None:
        """What became of what a collector was sent; None where none is named."""
        return self._tracer.delivered if self._tracer is not None else None

    def interrupt(self, code: Exit, why: str = "") -> None:
        """End the run; it unwinds and its result says so, and why."""
        if self._signal is None:
            self._signal, self._why = code, why
        self._scope.cancel()

    async def run_and_report(self) -> RunResult:
        """Run to the end, whatever that is."""
        from cleanroom.subscribers.reporter import Reporter

        plan_json = self._redactor.text(
            msgspec.json.format(msgspec.json.encode(self._plan), indent=1).decode()
        ).encode()
        await anyio.to_thread.run_sync(write_atomic, self._place.own.run, "plan.json", plan_json)
        reporter = Reporter(self._place.root, self._place.own.run, self._place.own.reports)
        result: RunResult | None = None
        with LogFiles(self._place.own.logs) as logs:
            async with anyio.create_task_group() as tasks:
                settled = await self._start_subscribers(tasks, reporter, plan_json)
                try:
                    await self.run_in_span(logs)
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._drain(settled)
                        result = await self._report(reporter)
        assert result is not None, "left without an exception"
        return result

    # --- subscribers

    async def _start_subscribers(
        self, tasks: TaskGroup, reporter: Any, plan_json: bytes
    ) -> list[Subscription]:
        """Each in its own task, open before the first event.

        The inboxes that must be empty before the bus may close.
        """
        from cleanroom.evidence.audit import log as audit_log
        from cleanroom.subscribers import audit, monitor, recovery, tracer
        from cleanroom.subscribers.reporter import LIMIT

        bus, plan = self._bus, self._plan
        seen_by_monitor = bus.subscribe("monitor", monitor.READS, limit=monitor.LIMIT)
        seen_by_recovery = bus.subscribe("recovery", recovery.READS, limit=recovery.LIMIT)
        traces = self._tracer = tracer.Tracer.of(
            self._place.own.run, self._caller, sampled=bus.sampled
        )
        log = self._log = audit_log.AuditLog(
            self._place.own.audit, bus.run_id, self._genesis(plan_json), bus.clock
        )
        works: dict[str, Callable[[], Awaitable[None]]] = {
            "audit": partial(audit.run, bus.subscribe("audit", limit=audit.LIMIT), log),
            "reporter": partial(reporter.run, bus.subscribe("reporter", limit=LIMIT)),
            "tracer": partial(
                traces.run, bus.subscribe("tracer", tracer.READS, limit=tracer.LIMIT)
            ),
            "monitor": partial(monitor.run, seen_by_monitor, bus),
            "recovery": partial(recovery.run, seen_by_recovery, self.send, seed=plan.seed),
        }
        try:
            await anyio.to_thread.run_sync(log.open)
        # a log that does not match its head is not continued: nothing may run unrecorded
        except CleanroomError as error:
            del works["audit"]
            self._trouble.append(error)
            self._scope.cancel()
        self._subscribers = len(works)
        for name, work in works.items():
            tasks.start_soon(self._guard, work, name=f"subscriber {name}")
        return [seen_by_monitor, seen_by_recovery]

    def _genesis(self, plan_json: bytes) -> Genesis:
        from cleanroom.evidence.audit.log import Genesis

        policy = hashlib.sha256(msgspec.json.encode(self._plan.policy)).hexdigest()
        return Genesis(
            plan_sha256=hashlib.sha256(plan_json).hexdigest(),
            policy_sha256=policy,
            engine_version=__version__,
        )

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run one subscriber to its end, also when the run is cancelled;
        its failure ends the run.
        """
        with anyio.CancelScope(shield=True) as scope:
            self._guards.append(scope)
            try:
                await work()
            except Exception as error:  # it is in the result, as the run's own trouble
                self._trouble.append(error)
                self._scope.cancel()
        self._subscribers -= 1
        if not self._subscribers:
            self._drained.set()

    def send(self, command: Any) -> None:
        """Hand a command of recovery to the supervisor."""
        if self._supervisor is not None:
            self._supervisor.send(command)

    async def _drain(self, settled: Sequence[Subscription]) -> None:
        """Let the last sample still become a violation, then close the bus and wait until everybody
        has written down what they have.
        """
        with anyio.move_on_after(DRAIN_SECONDS):
            await settle(settled, lambda: bool(self._trouble))
        self._bus.close()
        with anyio.move_on_after(DRAIN_SECONDS) as limit:
            await self._drained.wait()
        if limit.cancelled_caught:
            self._trouble.append(
                CleanroomError(
                    "CR-ENGINE-002",
                    f"evidence was not written within {DRAIN_SECONDS:g} s",
                    hint="is the disk slow or full?",
                )
            )
            for scope in self._guards:
                scope.cancel()

    # --- the run

    async def run_in_span(self, logs: LogSink) -> None:
        """The run itself, between its first and its last event. Subscribers are the caller's."""
        plan = self._plan
        attributes: dict[str, str | int | float | bool] = {
            "version": __version__,
            "policy": ", ".join(plan.levels),
            "environment": plan.environment,
            "requested": ",".join(plan.requested),
            "slo_seconds": plan.slo_seconds,
            "seed": plan.seed,
            "root": plan.root,
            "strict_slo": plan.strict_slo,
            "phases": len(plan.phases),
        }
        began = anyio.current_time()
        with self._bus.span(Subject("run", plan.project), attributes) as span:
            try:
                with self._scope:
                    try:
                        await self._start_backend_and_run(logs, span)
                    except Exception as error:
                        self._account.error = first_cause(error)
            # the caller's own cancellation passes, with the account made all the same
            except anyio.get_cancelled_exc_class():
                self._signal = self._signal or Exit.INTERRUPTED
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await self._settle_account()
                    await self._record_outcomes()
                self._conclude(span, anyio.current_time() - began)

    async def _start_backend_and_run(self, logs: LogSink, span: Span) -> None:
        """Backend, probe, refusal, services, phases. Leaving this unwinds everything in reverse."""
        await self._sweep_up()
        async with AsyncExitStack() as stack:
            backend = await self._choose(stack, span)
            recipes = (
                await self._skipping.needed_recipes(self._recipes())
                if self._skipping
                else self._recipes()
            )
            self._redactor.add(*(secret for recipe in recipes for secret in recipe.secrets))
            holder = await self._join(stack, backend, recipes)
            data = self._place.scratch / "data"
            thing = await backend.folder(data)
            stack.push_async_callback(_shielded, partial(backend.drop_folder, thing))
            context = RunContext(
                run_id=self._bus.run_id,
                plan=self._plan,
                bus=self._bus,
                backend=backend,
                logs=logs,
                redactor=self._redactor,
                caller=self._caller,
                scratch=data,
                folder=self._place.own.run,
                home=self._place.home,
                keep=self._keep,
                degraded=self._account.degraded,
            )
            self._supervisor = await stack.enter_async_context(
                supervise(context, recipes, TemplateCache(self._place.templates), holder)
            )
            if self._before_phases is not None:
                await anyio.to_thread.run_sync(self._before_phases)
            await Lifecycle(context, self._supervisor, self._account.outcomes, self._skipping).run()

    async def _sweep_up(self) -> None:
        """Remove what killed runs left, before anything is made."""
        if self._sweep is None:
            return
        found = await anyio.to_thread.run_sync(self._sweep)
        if found.removed:
            self._note(
                "info",
                (
                    "removed what killed runs had left: "
                    f"{', '.join(Path(thing.name).name for thing in found.removed)}"
                ),
            )
        for thing in found.left:
            self._note(
                "warning",
                (
                    f"a killed run left the {thing.kind} {thing.name}, which cannot be removed: "
                    f"{thing.detail}"
                ),
                "CR-ENGINE-003",
            )

    async def _join(
        self, stack: AsyncExitStack, backend: Backend, recipes: Sequence[Recipe]
    ) -> ServerConnection | None:
        """The session or pool that has this run's services;
        those of another configuration are the run's own, which is said.
        """
        if self._charge is None or not recipes or not backend.forwards_elsewhere:
            return None
        pooled = self._charge.leases
        chosen = (
            [recipe for recipe in recipes if recipe.kind in POOLABLE_KINDS] if pooled else recipes
        )
        holder = (
            await stack.enter_async_context(
                connect(self._charge, self._bus.run_id, chosen, start=not pooled)
            )
            if chosen
            else None
        )
        if holder is None:
            return None
        self._redactor.add(
            *(secret for service in holder.services.values() for secret in service.recipe.secrets)
        )
        self._account.held = holder.resources
        for name in holder.others:
            text = (
                f"service {name!r} runs in {self._charge.kind} {holder.id} with another "
                "configuration; this run has its own, with data of its own"
            )
            self._note("warning", text, "CR-SESSION-005")
        return holder

    async def _choose(self, stack: AsyncExitStack, span: Span) -> Backend:
        """The first backend that holds what the policy requires, entered.

        Raises:
            PolicyRefused: none does.
        """
        hermetic = (phase.policy.level for phase in self._plan.phases if phase.hermetic)
        levels = lowest_first((self._plan.policy.level, *hermetic))

        def make_backend(name: str) -> Backend:
            self._account.backend = self._make(name)
            return self._account.backend

        def refusal(report: CapabilityReport) -> PolicyRefused | None:
            self._bus.publish(Capability(subject=Subject("run", self._plan.project), report=report))
            span.attributes["backend"], span.attributes["tier"] = report.backend, report.tier
            return self._refusal(report, _lacking(report, levels))

        names = registry.candidates(self._plan.backend)
        backend, report = await registry.enter_first(
            stack, names, make_backend, levels[-1], refusal
        )
        lacking = _lacking(report, levels)
        self._degrade(lacking, span)
        if self._plan.backend == "auto":
            without = f", but for {', '.join(lacking)}" if lacking else ""
            self._note(
                "info",
                (
                    f"backend {report.backend}: tier {report.tier} holds what {levels[-1].value} "
                    f"requires{without}"
                ),
            )
        return backend

    def _refusal(
        self, report: CapabilityReport, lacking: Mapping[str, tuple[Level, Missing]]
    ) -> PolicyRefused | None:
        held_against = [
            found for rule, found in lacking.items() if rule not in self._plan.allow_degraded
        ]
        if not held_against:
            return None
        level, first = held_against[0]
        others = [missing.rule for _, missing in held_against[1:]]
        more = f" (nor {', '.join(others)})" if others else ""
        return PolicyRefused(
            "CR-POLICY-004",
            (
                f"policy {level.value} requires {first.rule}, which backend {report.backend} "
                f"cannot hold here: {first.why}{more}"
            ),
            hint=first.hint or "`cleanroom-engine doctor` tells what this machine holds",
        )

    def _degrade(self, lacking: Mapping[str, tuple[Level, Missing]], span: Span) -> None:
        """Say loudly what file and command line both let go."""
        lowered = ("policy",) if "policy" in self._plan.allow_degraded else ()
        self._account.degraded = (*lowered, *lacking)
        span.attributes["degraded"] = ",".join(self._account.degraded)
        for rule in lowered:
            self._note(
                "degraded",
                (
                    f"{rule}: {self._plan.policy.level.value} is below what the project's file "
                    "asks for"
                ),
                "CR-POLICY-005",
            )
        for rule, (_, missing) in lacking.items():
            self._note("degraded", f"{rule} is not held: {missing.why}", "CR-POLICY-005")

    async def _settle_account(self) -> None:
        """The leak ledger: by looking, after everything was left."""
        if self._supervisor is not None:
            self._account.service_violations = self._supervisor.observer.violations_beside_phases
        if self._account.backend is None:
            return
        try:
            with anyio.fail_after(LEDGER_SECONDS):
                created, removed, left = await self._account.backend.ledger()
        except (CleanroomError, TimeoutError) as error:
            self._account.error = self._account.error or first_cause(error)
            return
        self._account.left = left
        names = tuple(f"{thing.kind} {thing.name}" for thing in left)
        self._bus.publish(
            Ledger(
                subject=Subject("run", self._plan.project),
                created=created,
                removed=removed,
                held=self._account.held,
                left=names,
            )
        )

    async def _record_outcomes(self) -> None:
        """Tell the project's state file what ran."""
        if self._record is None:
            return
        try:
            await anyio.to_thread.run_sync(self._record, self._account.outcomes)
        except CleanroomError as error:
            self._account.error = self._account.error or error

    def _conclude(self, span: Span, duration: float) -> None:
        """All that counts against the run becomes its one exit status,
        with the reason for that very one.
        """
        plan = self._plan
        if duration > plan.slo_seconds:
            self._note("warning", _missed(duration, plan.slo_seconds), "CR-SLO-001")
        if self._why:
            self._note("warning", self._why, "CR-ENGINE-004")
        cause = decisive(self._causes(duration))
        span.result, span.exit_code = EXIT_RESULTS[cause.exit], int(cause.exit)
        span.reason, span.code, span.attributes["hint"] = cause.reason, cause.code, cause.hint

    def _causes(self, duration: float) -> Iterator[Cause]:
        """All that keeps it from a pass. Of those that weigh the same the first is said."""
        account, plan = self._account, self._plan
        if self._signal is not None:
            word = "interrupted" if self._signal is Exit.INTERRUPTED else "terminated"
            yield Cause(self._signal, self._why or word)
        if self._trouble:
            yield Cause.of(first_cause(self._trouble[0]), Exit.ENGINE)
        if account.error is not None:
            yield Cause.of(account.error)
        for outcome in account.outcomes:
            yield from phase_causes(outcome.name, outcome.result, outcome.reason, outcome.error)
        if account.left:
            yield Cause.of(_left_behind(account.left))
        if conflicts := sum(outcome.conflicts for outcome in account.outcomes):
            yield self._conflicting(conflicts)
        if account.service_violations and plan.policy.reaction != "warn":
            count = plural(account.service_violations, "violation")
            yield Cause(Exit.NOT_PASSED, f"{count} by services")
        if duration > plan.slo_seconds and plan.strict_slo:
            yield Cause(Exit.NOT_PASSED, _missed(duration, plan.slo_seconds), "CR-SLO-001")
        if not verifies(outcome.result for outcome in account.outcomes):
            yield Cause(Exit.UNVERIFIED, "no command ran, so nothing was verified")

    def _conflicting(self, count: int) -> Cause:
        kept = self._place.own.run.path / "conflicts"
        text = f"{plural(count, 'file')} changed on the host meanwhile, so left as they are"
        hint = "look at the warnings of the phases, and run again"
        if is_there(kept):
            text += f"; what the run made of them is in {relative(kept, self._place.root)}"
            hint = "compare both, and run again"
        return Cause(Exit.NOT_PASSED, text, "CR-WORKSPACE-001", hint)

    def _note(self, level: Any, text: str, code: str = "") -> None:
        self._bus.publish(
            Note(subject=Subject("run", self._plan.project), level=level, text=text, code=code)
        )

    # --- the account

    async def _report(self, reporter: Any) -> RunResult:
        """The final result, written in every form.

        What the evidence's own writers could not do is in it.
        """
        result: RunResult = reporter.result()
        assert self._log is not None, "reports come after the subscribers"
        assert self._tracer is not None, "reports come after the subscribers"
        result = msgspec.structs.replace(result, audit_head=msgspec.structs.asdict(self._log.head))
        further = {"audit": self._place.own.audit.path / "audit.jsonl", "trace": self._tracer.path}
        result = self._with_trouble(result)
        try:
            result = await reporter.write(
                result, {kind: path for kind, path in further.items() if is_there(path)}
            )
        except CleanroomError as error:
            self._trouble.append(error)
        return self._with_trouble(result)

    def _with_trouble(self, result: RunResult) -> RunResult:
        """A result whose evidence is not whole is the engine's error,
        unless a signal explains it.
        """
        if not self._trouble:
            return result
        cause = first_cause(self._trouble[0])
        code = combined([Exit.ENGINE, Exit(result.exit_code)])
        if code is not Exit.ENGINE:
            return result
        error = {"code": cause.code, "message": str(cause), "hint": cause.hint}
        said = {"reason": str(cause), "error": error}
        return msgspec.structs.replace(result, outcome="error", exit_code=int(code), **said)


def _left_behind(left: Sequence[Leftover]) -> CleanroomError:
    first = f"{left[0].kind} {left[0].name}{': ' if left[0].detail else ''}{left[0].detail}"
    return EnvironmentFailed(
        "CR-ENGINE-003",
        f"{plural(len(left), 'thing')} left behind; first: {first}",
        hint="`cleanroom-engine sweep` removes what can be",
    )


def _missed(duration: float, slo_seconds: float) -> str:
    return f"the run took {duration:.2f} s, its SLO is {slo_seconds:g} s"


async def settle(
    inboxes: Sequence[Subscription], broken: Callable[[], bool] = lambda: False
) -> None:
    """Wait until those who publish what they conclude have concluded everything;
    or until one of them is `broken`.
    """
    for _ in range(3):  # a reaction may cause another
        await anyio.lowlevel.checkpoint()
        while any(inbox.waiting for inbox in inboxes) and not broken():  # noqa: ASYNC110 -- a subscription does not tell that it is empty
            await anyio.sleep(0.001)


def _lacking(report: CapabilityReport, levels: Sequence[Level]) -> dict[str, tuple[Level, Missing]]:
    """Each rule that a backend cannot hold, with the lowest of the levels that requires it."""
    return {
        missing.rule: (level, missing)
        for level in reversed(levels)
        for missing in unmet(report, level)
    }


async def _shielded(work: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await work()
