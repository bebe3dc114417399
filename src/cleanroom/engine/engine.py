"""The engine: plans, runs and pools of one project.

    async with cleanroom.open(project) as engine:
        outcome = await engine.pipeline("init", "test")

`open` reads nothing and starts nothing.
A run opens everything in order and leaves it in reverse (`run.py`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import anyio
import anyio.to_thread

from cleanroom.backends import registry
from cleanroom.backends.base import Backend
from cleanroom.core.arguments import (
    COUNT,
    PATH,
    SECONDS,
    TEXT,
    TEXTS,
    VARIABLES,
    check,
    optional,
)
from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Bus, Subscription
from cleanroom.core.clock import SystemClock, new_run_id
from cleanroom.core.locations import cache_folder
from cleanroom.core.private_cache import open_cache
from cleanroom.core.redaction import Redactor
from cleanroom.engine.caller import refuse_recursion, secrets_of
from cleanroom.engine.fetch.sweep import sweep_all
from cleanroom.engine.options import INTERRUPTING_EXIT, PHASES, Options, RunOptions, checked_options
from cleanroom.engine.own_folder import RunFolders, reports_aside, run_folders
from cleanroom.engine.phases.interactive import shell_plan
from cleanroom.engine.phases.skipping import RUNS, Decision
from cleanroom.engine.prestart import KeeperProcess, keeper
from cleanroom.engine.project_folders import (
    opened_project,
    opened_projects,
    record_outcomes,
    refuse_machine,
)
from cleanroom.engine.replay import recorded, replayed
from cleanroom.engine.retention import at_end_of_run
from cleanroom.engine.run import Run, interrupt_when_ended
from cleanroom.engine.run_preparation import RunPreparation
from cleanroom.engine.run_settings import RunHooks, RunPlaces, RunSettings
from cleanroom.engine.sealed import seal_run
from cleanroom.engine.service_resolution import require_parts
from cleanroom.engine.service_server import poolable_services, service_backend, start_pool
from cleanroom.engine.shared_services.ancestry import starting_processes
from cleanroom.engine.shared_services.pool import PoolStatus, pool_status, stop_pool
from cleanroom.engine.supervision.context import Pauser, Shell, Terminal
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.tracing.delivery import Delivered
from cleanroom.evidence.tracing.settings import place
from cleanroom.model.errors import CleanroomError, Exit, UsageError
from cleanroom.model.events import Envelope, Event
from cleanroom.model.plan import Plan
from cleanroom.sandbox.journal import Journal

if TYPE_CHECKING:
    from cleanroom.engine.fetch.forecast import SetForecast

# A reader of all events: more than a run has had so far.
# One that stops reading gets SubscriberLagged, and the run goes on.
READER_LIMIT = 1_000_000


class Engine:
    """Runs phases of one project, one run at a time. Made by `open`."""

    def __init__(
        self,
        root: str | Path,
        caller: Mapping[str, str],
        options: Options,
        make: Callable[..., Backend] = registry.make,
    ) -> None:
        """`caller` are the caller's environment variables; `make` makes a backend by its name."""
        self.root = Path(root)
        self._caller = dict(caller)
        self._options = options
        self._make = make
        self._redactor = Redactor()
        self._clock = SystemClock()
        self._run: Run | None = None
        self._busy = False  # from the call until there is a result
        self._closed = False
        self._keeper: KeeperProcess | None = None
        self._interrupted: Exit | None = None
        self._recorded_in: Path | None = None  # the folder of the run under way
        self._alone = False
        self._pauser: Pauser | None = None
        # the delivery of the last run's spans, metrics and log records; None: no collector is named
        self.delivered: Delivered | None = None
        self._bus = self._new_bus()

    def plan(self, *phases: str, single: bool = False, arguments: Sequence[str] = ()) -> Plan:
        """The plan of these phases; of all phases where none is named. Runs nothing, and blocks.

        `arguments` are for the commands of these phases.

        Raises:
            UsageError: a phase does not exist, or an option does not fit.
            ProjectError: a file of the project has to be edited.
            PolicyRefused: an option asks for less isolation than the project's file allows.
        """
        from cleanroom.project import load

        check("the engine: phases", phases, PHASES)
        check("the engine: arguments", arguments, TEXTS)
        return load(
            self.root,
            phases,
            overrides=self._options.overrides(),
            caller=self._caller,
            single=single,
            arguments=arguments,
        )

    def forecast(self, *phases: str) -> list[Decision]:
        """For each phase of the plan: would it be skipped, if nothing before it changed anything?

        Runs nothing, and blocks.

        Raises:
            CleanroomError: the plan does not stand, as `plan` says.
        """
        plan = self.plan(*phases)
        preparation = self._preparation(plan)
        services = preparation.services_of_cached_phases()
        with opened_project(plan.root) as root:
            cache = preparation.phase_cache(root, services)
            positions = range(len(plan.phases))
            if cache is None:
                return [RUNS for _ in positions]
            return [cache.decide_now(position, ()) for position in positions]

    async def pipeline(self, *phases: str) -> RunResult:
        """Run these phases with their hooks and prerequisites, in every workspace.

        Raises:
            CleanroomError: there is no run, because the plan does not stand.
                Everything later is in the result.
        """
        return await self._run_phases(phases, single=False)

    async def run(self, phase: str, *arguments: str) -> RunResult:
        """Run one phase with its hooks and prerequisites, ignoring workspaces.

        `arguments` follow the phase's last command, or are what its `"$@"` stands for.

        Raises:
            CleanroomError: there is no run, because the plan does not stand.
                Everything later is in the result.
        """
        return await self._run_phases((phase,), single=True, arguments=arguments)

    async def shell(self, phase: str, terminal: Terminal) -> RunResult:
        """Run an interactive shell on `terminal` in the environment of a phase, in its place.

        Nothing comes back, and the result says of the phase "unverified" with the shell's status.

        Raises:
            UsageError: the phase runs on the host.
            CleanroomError: there is no run, because the plan does not stand.
        """
        return await self._run_phases((phase,), single=True, shell=Shell(phase, terminal))

    async def fetch(self) -> RunResult:
        """Fetch the dependencies of all phases into the store; no phase runs.

        What cannot be had is an error of the result.

        Raises:
            CleanroomError: there is no run, because the plan does not stand.
        """
        return await self._run_phases((), single=False, fetch_only=True)

    def dependencies(self, *phases: str) -> list[SetForecast]:
        """The sets of dependencies that a run of these phases finds, and what it would fetch.

        Reads lock files and the store, and blocks.

        Raises:
            CleanroomError: the plan does not stand, as `plan` says; or a lock file cannot be read.
        """
        from cleanroom.engine.fetch.forecast import forecast_dependencies

        return forecast_dependencies(self.plan(*phases), self._caller)

    def events(self, run_id: str | None = None) -> AsyncIterator[Envelope]:
        """All events of the run under way from its first on, ending with it; of the next run where
        none is under way. It may be read at any time, also after the run.

        `run_id` names a run of this project, which may have ended.

        Raises:
            UsageError: there is no such run.
        """
        check("Engine.events: run_id", run_id, optional(TEXT))
        if run_id is not None and run_id != self._bus.run_id:
            return recorded(self.root, run_id)
        inbox = self.subscribe("reader", limit=READER_LIMIT, keep_newest=False)
        return replayed(self._recorded_in, self._bus.published, inbox)

    def subscribe(
        self,
        name: str,
        kinds: tuple[type[Event], ...] | None = None,
        *,
        limit: int = 10_000,
        keep_newest: bool = True,
    ) -> Subscription:
        """An inbox for the next run's events, closed with it.

        A display keeps the newest and counts the events that it drops.

        Raises:
            UsageError: `limit` is no number above 0.
        """
        check("Engine.subscribe: limit", limit, COUNT)
        return self._bus.subscribe(name, kinds, limit=limit, keep_newest=keep_newest)

    def interrupt(self, code: Exit = Exit.INTERRUPTED) -> None:
        """End the run under way, or the next one at once.

        It unwinds, and its result says that it was interrupted.
        May be called again.

        Raises:
            UsageError: `code` is not one that a signal stands for.
        """
        check("Engine.interrupt: code", code, INTERRUPTING_EXIT)
        self._interrupted = code
        if self._run is not None:
            self._run.interrupt(code)

    def adopt(self, started: KeeperProcess | None) -> None:
        """Use this keeper, which was started before there was an engine, for the next run."""
        self._keeper = started

    def alone(self) -> None:
        """Declare that this process is the engine's own, and no program's that has code in the
        project: once phases run, it loads no code from there.
        """
        self._alone = True

    def pause_with(self, pauser: Pauser) -> None:
        """Let this decide about phases that fail; their environments stay until it has."""
        self._pauser = pauser

    # --- a run

    async def _run_phases(
        self,
        phases: Sequence[str],
        *,
        single: bool,
        arguments: tuple[str, ...] = (),
        fetch_only: bool = False,
        shell: Shell | None = None,
    ) -> RunResult:
        """Check the request, start the keeper, plan, and run the plan."""
        self._refuse_second()
        refuse_recursion(self._caller)
        check("the engine: phases", phases, PHASES)
        if not phases and not fetch_only:
            raise UsageError(
                "CR-ENGINE-005",
                "expected the name of a phase, found none",
                hint="`cleanroom-engine plan` lists the phases",
            )
        self._busy = True
        try:
            if self._make is registry.make and self._keeper is None:
                self._keeper = await anyio.to_thread.run_sync(
                    keeper, self._options.backend, self._caller
                )
            read = partial(self.plan, *phases, single=single, arguments=arguments)
            plan = await anyio.to_thread.run_sync(read)
            if shell is not None:
                plan = shell_plan(plan, shell.phase)
            return await self._run_plan(plan, fetch_only, shell)
        finally:
            self._busy = False
            if self._keeper is not None:
                self._keeper.abandon()
                self._keeper = None

    async def _run_plan(self, plan: Plan, fetch_only: bool, shell: Shell | None) -> RunResult:
        """Open the plan's folders, resolve its services, and run it."""
        with ExitStack() as stack:
            projects = stack.enter_context(opened_projects(plan))
            stack.enter_context(open_cache(cache_folder(self._caller)))
            refuse_machine(tuple(projects))
            self._redactor.add(*secrets_of(self._caller, plan))
            await anyio.to_thread.run_sync(require_parts, plan, self._caller)
            preparation = self._preparation(plan)
            services = await preparation.resolve_services()
            reports = self._options.report_directory
            if fetch_only or shell is not None:
                # The project's reports are about its phases.
                reports = reports or str(reports_aside(plan, self._bus.run_id))
            own = stack.enter_context(
                run_folders(
                    projects[plan.root], self._bus.run_id, Path(reports) if reports else None
                )
            )
            skipping = await anyio.to_thread.run_sync(
                preparation.phase_cache, projects[plan.root], services
            )
            server = await anyio.to_thread.run_sync(preparation.server)
            settings = RunSettings(
                plan=plan,
                places=RunPlaces(Path(plan.root), own, preparation.places),
                caller=self._caller,
                services=services,
                keep=self._options.keep,
                server=server,
                offline=self._options.offline,
                fetch_only=fetch_only,
                shell=shell,
                pauser=self._pauser,
            )
            hooks = self._hooks(plan, projects, own)
            self._recorded_in = own.run.path
            return await self._run_to_end(Run(settings, hooks, self._bus, self._redactor, skipping))

    async def _run_to_end(self, run: Run) -> RunResult:
        """Run until the end, until `interrupt`, or until a process that started this one ends."""
        self._run = run
        outlives = self._pauser is not None and self._pauser.outlives
        if self._interrupted is not None:
            run.interrupt(self._interrupted)
        try:
            async with anyio.create_task_group() as tasks:
                for process in () if outlives else starting_processes():
                    tasks.start_soon(interrupt_when_ended, run, process)
                result = await run.run_and_report()
                self.delivered = run.delivered
                tasks.cancel_scope.cancel()
        finally:
            self._run, self._interrupted, self._recorded_in = None, None, None
            self._bus = self._new_bus()
        return result

    def _refuse_second(self) -> None:
        if self._closed:
            raise UsageError(
                "CR-ENGINE-008",
                "expected an engine that is open, found one whose block was left",
                hint="run inside of `async with cleanroom.open(...) as engine:`",
            )
        if self._busy:
            raise UsageError(
                "CR-ENGINE-007",
                "expected an engine without a run, found one that runs already",
                hint=(
                    "wait for its result; `cleanroom.open` gives an engine for a second run "
                    "beside it"
                ),
            )

    def _preparation(self, plan: Plan) -> RunPreparation:
        return RunPreparation(plan, self._caller, self._options, self._bus.run_id)

    def _hooks(self, plan: Plan, projects: Mapping[str, Folder], own: RunFolders) -> RunHooks:
        return RunHooks(
            make_backend=partial(self._make_backend, journal=partial(Journal.at, own.run)),
            record=None if plan.dry_run else partial(record_outcomes, plan, projects),
            sweep=partial(sweep_all, cache_folder(self._caller)),
            expire=at_end_of_run(plan, projects, self._caller),
            before_phases=partial(seal_run, plan, tuple(projects), self._caller)
            if self._alone
            else None,
        )

    def _make_backend(self, name: str, journal: Callable[[], Journal]) -> Backend:
        cache = cache_folder(self._caller)
        return self._make(
            name,
            run_id=self._bus.run_id,
            scratch=cache / "runs" / self._bus.run_id,
            journal=journal,
            keeper=self._keeper,
            cache=cache,
            caller=self._caller,
        )

    def _new_bus(self) -> Bus:
        trace_id, parent, sampled = place(self._caller)
        return Bus(
            new_run_id(self._clock.wall_ns()),
            self._clock,
            trace_id=trace_id,
            parent_span=parent,
            sampled=sampled,
            redactor=self._redactor,
        )

    # --- the project's pool

    async def start_pool(self, idle_seconds: float) -> PoolStatus:
        """Start the project's pool unless it runs, and wait until its services are ready.

        The pool ends when no run has used it for `idle_seconds`.

        Raises:
            UsageError: `idle_seconds` is no number above 0, or no service can be pooled.
            CleanroomError: it cannot be started, or a service in it.
        """
        check("Engine.start_pool: idle_seconds", idle_seconds, SECONDS)
        plan = await anyio.to_thread.run_sync(self.plan)
        names = poolable_services(plan)
        if plan.backend in registry.CONTAINERS:
            await anyio.to_thread.run_sync(require_parts, plan, self._caller)
            async with self._make_backend(plan.backend, _no_journal):
                pass  # entered only so that a backend which cannot be used is an error here
        preparation = self._preparation(plan)
        services = await preparation.resolve_services()
        recipes = [recipe for recipe in services.required() if recipe.name in names]
        await start_pool(preparation.pool(idle_seconds), self._bus.run_id, recipes)
        return await self.pool_status()

    async def pool_status(self) -> PoolStatus:
        """The state of the project's pool, on the backend that the options or the file name.

        Raises:
            ServiceFailed: the pool does not answer.
        """
        return await anyio.to_thread.run_sync(lambda: pool_status(*self._pool()))

    async def stop_pool(self) -> PoolStatus:
        """End the project's pool, on the same backend, and return its state before.

        Raises:
            ServiceFailed: the pool does not answer or does not end.
        """
        return await anyio.to_thread.run_sync(lambda: stop_pool(*self._pool()))

    def _pool(self) -> tuple[str, str, str]:
        """The folder of runs, the project and the backend by which the pool is found. Blocks.

        A pool can be found and ended also where the project's file does not stand any more.
        """
        backend = self._options.backend or "auto"
        if not self._options.backend:
            with suppress(CleanroomError):
                backend = self.plan().backend
        runs = cache_folder(self._caller) / "runs"
        return str(runs), str(self.root), service_backend(backend)


@asynccontextmanager
async def open(
    project: str | Path = ".",
    options: Options | None = None,
    *,
    caller: Mapping[str, str] | None = None,
    **changes: Unpack[RunOptions],
) -> AsyncIterator[Engine]:
    """An engine for the project in this folder.

    `caller` stands for the caller's environment variables.
    `changes` are fields of `Options`, each by its name, and go before those of `options`.
    Leaving ends the subscriptions that `events` and `subscribe` returned.

    Raises:
        UsageError: an argument is not what it has to be.
    """
    check("cleanroom.open: project", project, PATH)
    check("cleanroom.open: caller", caller, optional(VARIABLES))
    checked = checked_options(changes, options)
    engine = Engine(_absolute(project), os.environ if caller is None else caller, checked)
    try:
        yield engine
    finally:
        engine._closed = True
        engine._bus.close()


def _absolute(path: str | Path) -> Path:
    """Without resolving links: the project is where its people say it is."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _no_journal() -> Journal:
    raise AssertionError("nothing is made that a journal would have to name")
