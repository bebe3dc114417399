"""One run from its first event to its reports.

Its steps: subscribers, backend, refusal, services, phases, unwinding, account.

Whatever happens after the first event is in the result.
Nothing is raised but the caller's own cancellation, and then the evidence is written too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio
import anyio.to_thread
import msgspec

from cleanroom.backends.base import Backend
from cleanroom.core.bus import Bus, Span
from cleanroom.core.files import LogFiles, is_there, relative, write_atomic
from cleanroom.core.redaction import Redactor
from cleanroom.core.version import __version__
from cleanroom.engine.account import Account, Interruption, RunEnd, causes, missed_slo
from cleanroom.engine.backend_choice import choice_notes, choose_backend, degraded_rules
from cleanroom.engine.phases.lifecycle import Lifecycle
from cleanroom.engine.phases.verdict import EXIT_RESULTS, decisive
from cleanroom.engine.run_settings import RunHooks, RunSettings
from cleanroom.engine.service_resolution import lacking_extensions
from cleanroom.engine.shared_services.ancestry import wait_ended
from cleanroom.engine.shared_services.discovery import POOLABLE_KINDS
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.output import LogSink
from cleanroom.engine.supervision.supervisor import Supervisor, supervise
from cleanroom.evidence.reports.result import RunResult
from cleanroom.model.capability import CapabilityReport
from cleanroom.model.commands import Command
from cleanroom.model.errors import CleanroomError, Exit, first_cause
from cleanroom.model.events import Capability, Ledger, Note
from cleanroom.model.plan import Plan
from cleanroom.services import Recipe, TemplateCache

if TYPE_CHECKING:
    from cleanroom.engine.phase_cache.cache import PhaseCache
    from cleanroom.engine.run_subscribers import RunSubscribers
    from cleanroom.engine.shared_services.client import ServerConnection
    from cleanroom.evidence.tracing.delivery import Delivered

LEDGER_SECONDS = 5.0


class Run:
    """One run of a plan. Made anew for each."""

    def __init__(
        self,
        settings: RunSettings,
        hooks: RunHooks,
        bus: Bus,
        redactor: Redactor,
        skipping: PhaseCache | None = None,
    ) -> None:
        self._settings = settings
        self._plan = settings.plan
        self._places = settings.places
        self._hooks = hooks
        self._bus = bus
        self._redactor = redactor
        self._skipping = skipping
        self._account = Account()
        self._scope = anyio.CancelScope()
        self._interruption: Interruption | None = None
        self._supervisor: Supervisor | None = None
        self._subscribers: RunSubscribers | None = None

    @property
    def delivered(self) -> Delivered | None:
        """The delivery to a collector; None where none is named."""
        return self._subscribers.delivered if self._subscribers is not None else None

    def interrupt(self, code: Exit, why: str = "") -> None:
        """End the run. It unwinds, and its result says `code` and why."""
        if self._interruption is None:
            self._interruption = Interruption(code, why)
        self._scope.cancel()

    def send(self, command: Command) -> None:
        """Send a command of recovery to the supervisor."""
        if self._supervisor is not None:
            self._supervisor.send(command)

    async def run_and_report(self) -> RunResult:
        """Run to the end, whatever that is, and write the reports.

        Raises:
            ArtifactError: the plan cannot be written, so that nothing was run.
        """
        # Imported here, so that the keeper comes up meanwhile.
        from cleanroom.engine.run_subscribers import RunSubscribers

        plan_json = self._redactor.text(
            msgspec.json.format(msgspec.json.encode(self._plan), indent=1).decode()
        ).encode()
        own = self._places.own
        await anyio.to_thread.run_sync(write_atomic, own.run, "plan.json", plan_json)
        self._subscribers = subscribers = RunSubscribers(
            self._settings, self._bus, plan_json, self._scope.cancel
        )
        result: RunResult | None = None
        with LogFiles(own.logs) as logs:
            async with anyio.create_task_group() as tasks:
                await subscribers.start(tasks, self.send)
                try:
                    await self.run_in_span(logs)
                finally:
                    with anyio.CancelScope(shield=True):
                        await subscribers.drain()
                        result = await subscribers.report()
        assert result is not None, "left without an exception"
        return result

    async def run_in_span(self, logs: LogSink) -> None:
        """Run between the first and the last event. Subscribers are the caller's."""
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
            **({"dry_run": True} if plan.dry_run else {}),
        }
        began = anyio.current_time()
        with self._bus.span(self._settings.subject, attributes) as span:
            try:
                with self._scope:
                    try:
                        await self._start_backend_and_run(logs, span)
                    except Exception as error:
                        self._account.error = first_cause(error)
            # The caller's own cancellation passes; the account is closed all the same.
            except anyio.get_cancelled_exc_class():
                self._interruption = self._interruption or Interruption(Exit.INTERRUPTED)
                raise
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close_account()
                    await self._record_outcomes()
                    await self._expire_records()
                self._conclude(span, anyio.current_time() - began)

    async def _start_backend_and_run(self, logs: LogSink, span: Span) -> None:
        """Start the backend and the services, and run the phases.

        Leaving unwinds everything in reverse.
        """
        await self._sweep_leftovers()
        async with AsyncExitStack() as stack:
            backend = await self._choose_backend(stack, span)
            recipes = await self._resolve_services()
            server = await self._join_server(stack, backend, recipes)
            scratch = self._places.cache.scratch / "data"
            removal = await backend.folder(scratch)
            stack.push_async_callback(_shielded, partial(backend.drop_folder, removal))
            context = self._context(backend, logs, scratch)
            templates = TemplateCache(self._places.cache.templates)
            self._supervisor = supervisor = await stack.enter_async_context(
                supervise(context, recipes, templates, server)
            )
            context = await self._fetch_dependencies(stack, context, supervisor)
            if self._settings.fetch_only:
                return
            if self._hooks.before_phases is not None:
                await anyio.to_thread.run_sync(self._hooks.before_phases)
            outcomes = self._account.outcomes
            await Lifecycle(context, supervisor, outcomes, self._skipping).run()

    async def _sweep_leftovers(self) -> None:
        """Remove what killed runs left, before anything is made."""
        if self._hooks.sweep is None:
            return
        found = await anyio.to_thread.run_sync(self._hooks.sweep)
        if found.removed:
            names = ", ".join(Path(leftover.name).name for leftover in found.removed)
            self._note("info", f"removed what killed runs had left: {names}")
        for leftover in found.left:
            left = f"a killed run left the {leftover.kind} {leftover.name}"
            text = f"{left}, which cannot be removed: {leftover.detail}"
            self._note("warning", text, "CR-ENGINE-003")

    async def _choose_backend(self, stack: AsyncExitStack, span: Span) -> Backend:
        """Enter the first backend that holds what the plan requires.

        Raises:
            PolicyRefused: no backend holds it.
        """

        def make_backend(name: str) -> Backend:
            self._account.backend = self._hooks.make_backend(name)
            return self._account.backend

        def probed(report: CapabilityReport) -> None:
            self._bus.publish(Capability(subject=self._settings.subject, report=report))
            span.attributes["backend"], span.attributes["tier"] = report.backend, report.tier

        choice = await choose_backend(stack, self._plan, make_backend, probed)
        self._account.degraded = degraded_rules(self._plan, choice)
        span.attributes["degraded"] = ",".join(self._account.degraded)
        for note in choice_notes(self._plan, choice):
            self._bus.publish(note)
        return choice.backend

    async def _resolve_services(self) -> Sequence[Recipe]:
        """The recipes of the services that a phase needs which is not skipped.

        Raises:
            CleanroomError: a service cannot be resolved.
        """
        if self._settings.fetch_only:
            return ()
        recipes: Sequence[Recipe] = self._settings.services.required()
        if self._skipping is not None:
            recipes = await self._skipping.needed_recipes(recipes)
        await self._name_lacking_extensions(recipes)
        self._redactor.add(*(secret for recipe in recipes for secret in recipe.secrets))
        return recipes

    async def _name_lacking_extensions(self, recipes: Sequence[Recipe]) -> None:
        if all(recipe.extensions is None for recipe in recipes):
            return
        for warning in await anyio.to_thread.run_sync(
            lacking_extensions, self._plan, recipes, self._settings.caller
        ):
            self._note("warning", warning, "CR-SERVICE-035")

    async def _join_server(
        self, stack: AsyncExitStack, backend: Backend, recipes: Sequence[Recipe]
    ) -> ServerConnection | None:
        """Join the session or pool that runs this run's services.

        Those that it runs with another configuration are the run's own, and a warning says so.
        """
        config = self._settings.server
        if config is None or not recipes or not backend.forwards_elsewhere:
            return None
        pooled = config.leases
        # Another process forwards one port of a service, and knows nothing of this run's phases.
        chosen = [
            recipe for recipe in recipes if not (recipe.ports or recipe.after or recipe.depends_on)
        ]
        if pooled:
            chosen = [recipe for recipe in chosen if recipe.kind in POOLABLE_KINDS]
        if not chosen:
            return None
        # Most runs join no server.
        from cleanroom.engine.shared_services.client import connect

        server = await stack.enter_async_context(
            connect(config, self._bus.run_id, chosen, start=not pooled)
        )
        if server is None:
            return None
        for service in server.services.values():
            self._redactor.add(*service.recipe.secrets)
        self._account.shared_resources = server.resources
        for name in server.others:
            elsewhere = f"{config.kind} {server.id} with another configuration"
            own = "this run has its own, with data of its own"
            text = f"service {name!r} runs in {elsewhere}; {own}"
            self._note("warning", text, "CR-SESSION-005")
        return server

    async def _fetch_dependencies(
        self, stack: AsyncExitStack, context: RunContext, supervisor: Supervisor
    ) -> RunContext:
        """Fetch what lock files name, if a phase has no network to do it itself."""
        if not _needs_dependencies(self._plan, context.backend):
            return context
        from cleanroom.engine.fetch.find import find_all

        sets = await anyio.to_thread.run_sync(find_all, self._plan, self._settings.caller)
        if not sets:
            return context
        from cleanroom.engine.fetch.session import FetchPolicy
        from cleanroom.engine.fetch.step import fetched_dependencies

        fetched = fetched_dependencies(
            context,
            supervisor.observer,
            sets,
            self._places.cache.cache,
            FetchPolicy(self._settings.offline, required=self._settings.fetch_only),
        )
        access = await stack.enter_async_context(fetched)
        return context._replace(dependencies=access)

    def _context(self, backend: Backend, logs: LogSink, scratch: Path) -> RunContext:
        return RunContext(
            run_id=self._bus.run_id,
            plan=self._plan,
            bus=self._bus,
            backend=backend,
            logs=logs,
            redactor=self._redactor,
            caller=self._settings.caller,
            scratch=scratch,
            folder=self._places.own.run,
            home=str(self._places.cache.homes or ""),
            keep=self._settings.keep,
            degraded=self._account.degraded,
            leads_out=self._leads_out,
            shell=self._settings.shell,
            pauser=self._settings.pauser,
        )

    def _leads_out(self, root: str, shown: Sequence[str]) -> str:
        """What leads out of a project to files that are in none of these folders. Blocks."""
        # Only where a phase failed.
        from cleanroom.project import outward

        return outward.not_shown(root, shown, self._settings.caller.get("HOME", ""))

    # --- the account

    async def _close_account(self) -> None:
        """Publish what was made, removed and left: by looking, after everything was left."""
        if self._supervisor is not None:
            observer = self._supervisor.observer
            self._account.service_violations = observer.violations_beside_phases
        if self._account.backend is None:
            return
        try:
            with anyio.fail_after(LEDGER_SECONDS):
                created, removed, left = await self._account.backend.ledger()
        except (CleanroomError, TimeoutError) as error:
            self._account.error = self._account.error or first_cause(error)
            return
        self._account.left = left
        ledger = Ledger(
            subject=self._settings.subject,
            created=created,
            removed=removed,
            held=self._account.shared_resources,
            left=tuple(f"{leftover.kind} {leftover.name}" for leftover in left),
        )
        self._bus.publish(ledger)

    async def _record_outcomes(self) -> None:
        """Record in the project's state file which phases ran."""
        if self._hooks.record is None:
            return
        try:
            await anyio.to_thread.run_sync(self._hooks.record, self._account.outcomes)
        except CleanroomError as error:
            self._account.error = self._account.error or error

    async def _expire_records(self) -> None:
        """Remove records of earlier runs beyond the project's limits; what fails fails no run."""
        if self._hooks.expire is None:
            return
        try:
            gone = await anyio.to_thread.run_sync(self._hooks.expire)
        except (CleanroomError, OSError) as error:
            text = f"records of old runs are kept beyond the limits: {error}"
            self._note("warning", text, "CR-HISTORY-004")
            return
        if gone:
            from cleanroom.evidence.reports.text import plural

            count = plural(gone, "old run")
            self._note("info", f"removed the records of {count}, by [cleanroom.retention]")

    def _conclude(self, span: Span, duration: float) -> None:
        """Set the exit status that follows from all causes, and the reason for that one."""
        if missed := missed_slo(self._plan, duration):
            self._note("warning", missed, "CR-SLO-001")
        if self._interruption is not None and self._interruption.why:
            self._note("warning", self._interruption.why, "CR-ENGINE-004")
        end = RunEnd(
            plan=self._plan,
            account=self._account,
            duration_seconds=duration,
            interruption=self._interruption,
            failure=self._subscribers.failure if self._subscribers is not None else None,
            conflicts_folder=self._conflicts_folder(),
            fetch_only=self._settings.fetch_only,
            shell=self._settings.shell is not None,
        )
        cause = decisive(causes(end))
        span.result, span.exit_code = EXIT_RESULTS[cause.exit], int(cause.exit)
        span.reason, span.code, span.attributes["hint"] = cause.reason, cause.code, cause.hint

    def _conflicts_folder(self) -> str:
        """The folder of the run's versions of conflicting files; empty where there is none."""
        folder = self._places.own.run.path / "conflicts"
        if not self._account.conflicts or not is_there(folder):
            return ""
        return relative(folder, self._places.root)

    def _note(self, level: Literal["info", "warning"], text: str, code: str = "") -> None:
        note = Note(subject=self._settings.subject, level=level, text=text, code=code)
        self._bus.publish(note)


def _needs_dependencies(plan: Plan, backend: Backend) -> bool:
    """Whether a phase has no network by which its tools could get the project's dependencies."""
    offline = any(phase.hermetic and phase.policy.offline for phase in plan.phases)
    return offline and backend.runs_programs


async def _shielded(work: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await work()


async def interrupt_when_ended(run: Run, process: str) -> None:
    """Interrupt the run when a process that started this one ends.

    Nobody would read its result, and the run must not outlive its purpose.
    """
    await wait_ended(process)
    number = process.partition(":")[0]
    run.interrupt(Exit.TERMINATED, f"process {number}, which started this run, has ended")
