"""The only door to everything that runs, verifies or sweeps.

    async with cleanroom.open(project) as engine:
        outcome = await engine.pipeline("init", "test")

`open` reads nothing and starts nothing; a run opens everything in order and leaves it in reverse
(`run.py`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import anyio
import anyio.to_thread
import msgspec

from cleanroom.backends import registry
from cleanroom.backends.base import Backend
from cleanroom.core.arguments import (
    COUNT,
    FLAG,
    PATH,
    SECONDS,
    TEXT,
    TEXTS,
    VARIABLES,
    WHOLE,
    Expected,
    check,
    check_all,
    one_of,
    optional,
)
from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Bus, Subscription
from cleanroom.core.clock import SystemClock, new_run_id
from cleanroom.core.files import named
from cleanroom.core.host_programs import lies_in
from cleanroom.core.locations import cache_folder
from cleanroom.core.private_cache import open_cache
from cleanroom.core.redaction import Redactor, secret_values
from cleanroom.engine.own_folder import RunFolders, check_own_folders, run_folders
from cleanroom.engine.phase_cache.cache import PhaseCache, RunFacts, service_identities
from cleanroom.engine.phases.outcome import PhaseOutcome
from cleanroom.engine.phases.skipping import RUNS, Decision
from cleanroom.engine.prestart import KeeperProcess, keeper
from cleanroom.engine.records import (
    SweepReport,
    build_images,
    delivered_to,
    diagnose,
    init,
    list_runs,
    push_trace,
    read_run,
    read_trace,
    render_reports,
    show_audit,
    sweep,
    verify_audit,
)
from cleanroom.engine.run import Run
from cleanroom.engine.run_settings import RunHooks, RunPlaces, RunSettings
from cleanroom.engine.shared_services.ancestry import (
    ancestors_to_ggen,
    starting_processes,
    wait_ended,
)
from cleanroom.engine.shared_services.client import connect
from cleanroom.engine.shared_services.discovery import (
    POOLABLE_KINDS,
    Kind,
    ServerConfig,
    discovery_key,
)
from cleanroom.engine.shared_services.pool import PoolStatus, pool_key, pool_status, stop_pool
from cleanroom.engine.supervision.context import Keep
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.tracing.delivery import Delivered
from cleanroom.evidence.tracing.settings import place
from cleanroom.model.errors import CleanroomError, Exit, ProjectError, UsageError
from cleanroom.model.events import Envelope, Event
from cleanroom.model.plan import BackendName, Plan
from cleanroom.model.policy import Level
from cleanroom.sandbox.journal import Journal
from cleanroom.services import ImageFacts, ImageInspector, Recipe, TemplateCache, image_of, resolve

if TYPE_CHECKING:
    from cleanroom.backends.cleanup import SweepFindings

__all__ = [
    "Engine",
    "Options",
    "PoolStatus",
    "SweepReport",
    "build_images",
    "cache_folder",
    "delivered_to",
    "diagnose",
    "init",
    "list_runs",
    "open",
    "push_trace",
    "read_run",
    "read_trace",
    "render_reports",
    "show_audit",
    "started_by_ggen",
    "sweep",
    "verify_audit",
]

ENGINE_VARIABLES = (
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "HOME",
    "XDG_RUNTIME_DIR",
)  # by which a holder finds the container engine that this process would
# A reader of all events: more than a run has had so far;
# one that stops reading gets SubscriberLagged, the run goes on.
READER_LIMIT = 1_000_000


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What changes a run beside the project's files. None: as the files say."""

    backend: str | None = None
    policy: str | None = None
    env: str | None = None
    seed: int | None = None
    slo_seconds: float | None = None
    strict_slo: bool | None = None
    allow_degraded: tuple[str, ...] = ()
    keep: Keep = "never"
    report_directory: str | None = None  # None: .ggen/cleanroom/reports
    fresh: bool = False  # use no cached data of services and homes, and skip no phase
    no_cache: bool = False  # skip no phase


_OPTIONS = {
    "backend": optional(one_of(get_args(BackendName))),
    "policy": optional(one_of([level.value for level in Level])),
    "env": optional(TEXT),
    "seed": optional(WHOLE),
    "slo_seconds": optional(SECONDS),
    "strict_slo": optional(FLAG),
    "allow_degraded": TEXTS,
    "keep": one_of(("never", "on-failure", "always")),
    "report_directory": optional(PATH),
    "fresh": FLAG,
    "no_cache": FLAG,
}
_PHASES = Expected("names of phases, each an argument of its own", TEXTS.holds)
_EXIT = Expected(
    "Exit.INTERRUPTED or Exit.TERMINATED", (Exit.INTERRUPTED, Exit.TERMINATED).__contains__
)


class Engine:
    """Runs phases of one project, one run at a time. Made by `open`."""

    def __init__(
        self,
        root: str | Path,
        caller: Mapping[str, str],
        options: Options,
        make: Callable[..., Backend] = registry.make,
    ) -> None:
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
        self._alone = False
        # what became of the last run's spans, metrics and log records; None: no collector is named
        self.delivered: Delivered | None = None
        self._bus = self._new_bus()

    def plan(self, *phases: str, single: bool = False) -> Plan:
        """What would run; all phases where none is named.

        Raises: ProjectError, UsageError, PolicyRefused: the project's files or the options do
            not make a plan.
        """
        from cleanroom.project import Overrides, load

        check("the engine: phases", phases, _PHASES)
        chosen = {
            name: getattr(self._options, name)
            for name in Overrides.__struct_fields__
            if hasattr(self._options, name)
        }
        overrides = Overrides(
            **{name: value for name, value in chosen.items() if value is not None}
        )
        return load(self.root, phases, overrides=overrides, caller=self._caller, single=single)

    async def pipeline(self, *phases: str) -> RunResult:
        """Run these phases with their hooks and prerequisites, in every workspace.

        Raises:
            CleanroomError: there is no run, because the plan does not stand.
                Everything later is in the result.
        """
        return await self._run_phases(phases, single=False)

    async def run(self, phase: str) -> RunResult:
        """Run one phase with its hooks and prerequisites, ignoring workspaces.

        Raises as `pipeline` does.
        """
        return await self._run_phases((phase,), single=True)

    def events(self) -> AsyncIterator[Envelope]:
        """All events of the next run, ending with it. Call it before the run."""
        return _each(self.subscribe("reader", limit=READER_LIMIT, keep_newest=False))

    def subscribe(
        self,
        name: str,
        kinds: tuple[type[Event], ...] | None = None,
        *,
        limit: int = 10_000,
        keep_newest: bool = True,
    ) -> Subscription:
        """An inbox for the next run's events, closed with it.

        A display keeps the newest and counts what it drops.

        Raises:
            UsageError: `limit` is no number above 0.
        """
        check("Engine.subscribe: limit", limit, COUNT)
        return self._bus.subscribe(name, kinds, limit=limit, keep_newest=keep_newest)

    def interrupt(self, code: Exit = Exit.INTERRUPTED) -> None:
        """End the run under way, or the next one at once: it unwinds,
        and its result says interrupted.

        May be called again.

        Raises:
            UsageError: `code` is not one that a signal stands for.
        """
        check("Engine.interrupt: code", code, _EXIT)
        self._interrupted = code
        if self._run is not None:
            self._run.interrupt(code)

    def adopt(self, started: KeeperProcess | None) -> None:
        """Use this keeper, which was started before there was an engine, for the next run."""
        self._keeper = started

    def alone(self) -> None:
        """This process is the engine's own, and no program's that has code in the project:
        once phases run it loads none from there.
        """
        self._alone = True

    async def _run_phases(self, phases: Sequence[str], *, single: bool) -> RunResult:
        self._refuse_second()
        self._refuse_recursion()
        check("the engine: phases", phases, _PHASES)
        if not phases:
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
            return await self._plan_and_run(phases, single=single)
        finally:
            self._busy = False
            if self._keeper is not None:
                self._keeper.abandon()
                self._keeper = None

    async def _plan_and_run(self, phases: Sequence[str], *, single: bool) -> RunResult:
        plan = await anyio.to_thread.run_sync(partial(self.plan, *phases, single=single))
        with ExitStack() as stack:
            projects = {
                path: stack.enter_context(_project(path))
                for path in (plan.root, *(w.path for w in plan.workspaces))
            }
            stack.enter_context(open_cache(cache_folder(self._caller)))
            _refuse_machine(tuple(projects))
            self._redactor.add(*_hidden(self._caller, plan))
            await anyio.to_thread.run_sync(_require_parts, plan, self._caller)
            recipes = await self._resolve(plan)
            reports = self._options.report_directory
            own = stack.enter_context(
                run_folders(
                    projects[plan.root], self._bus.run_id, Path(reports) if reports else None
                )
            )
            return await self._start_run(plan, projects, own, recipes)

    async def _start_run(
        self,
        plan: Plan,
        projects: Mapping[str, Folder],
        own: RunFolders,
        recipes: Callable[[], tuple[Recipe, ...]],
    ) -> RunResult:
        """`projects` are the folders of its workspaces and its root, by path."""
        skipping = await anyio.to_thread.run_sync(
            self._phase_cache, plan, projects[plan.root], recipes
        )
        settings = RunSettings(
            plan=plan,
            places=self._places(plan, own),
            caller=self._caller,
            recipes=recipes,
            keep=self._options.keep,
            server=await anyio.to_thread.run_sync(self._charge, plan),
        )
        hooks = RunHooks(
            make_backend=partial(self._made_backend, journal=partial(Journal.at, own.run)),
            record=partial(_record, plan, projects),
            sweep=partial(_sweep_runs, cache_folder(self._caller)),
            before_phases=partial(self._seal, plan, tuple(projects)),
        )
        run = self._run = Run(settings, hooks, self._bus, self._redactor, skipping)
        if self._interrupted is not None:
            run.interrupt(self._interrupted)
        try:
            async with anyio.create_task_group() as tasks:
                for starter in starting_processes():
                    tasks.start_soon(self._watch, starter)
                result = await run.run_and_report()
                self.delivered = run.delivered
                tasks.cancel_scope.cancel()
        finally:
            self._run, self._interrupted = None, None
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

    def _refuse_recursion(self) -> None:
        if outer := self._caller.get("CLEANROOM_RUN_ID"):
            raise UsageError(
                "CR-ENGINE-001",
                f"this is already inside a run ({outer}): a run does not start another one",
                hint='say what the phase does with cleanroom.command = "...", next to its command',
            )

    def _seal(self, plan: Plan, roots: Sequence[str]) -> None:
        """Blocks."""
        if self._alone:
            from cleanroom.engine.sealed import seal

            told = any(name.startswith("OTEL_EXPORTER_OTLP") for name in self._caller)
            seal(roots, telemetry=told or any(phase.telemetry for phase in plan.phases))

    def forecast(self, *phases: str) -> list[Decision]:
        """For each phase of the plan: would it be skipped, if nothing before it changed anything?

        Blocks.
        """
        plan = self.plan(*phases)
        recipes = (
            partial(self._recipes, plan)
            if any(phase.cache_inputs for phase in plan.phases)
            else tuple
        )
        with _project(plan.root) as root:
            cache = self._phase_cache(plan, root, recipes)
            return [
                cache.decide_now(position, ()) if cache.enabled else RUNS
                for position in range(len(plan.phases))
            ]

    async def _resolve(self, plan: Plan) -> Callable[[], tuple[Recipe, ...]]:
        """The services' recipes.

        A file that has to be edited is an error before anything is written;
        other trouble belongs to the run.
        """
        try:
            recipes = await anyio.to_thread.run_sync(self._recipes, plan)
        except ProjectError:
            raise
        except CleanroomError as error:
            return partial(_raise, error)
        return lambda: recipes

    def _recipes(self, plan: Plan) -> tuple[Recipe, ...]:
        cache = TemplateCache(self._templates())
        return resolve(
            plan.services,
            caller=self._caller,
            root=plan.root,
            cache=cache,
            tools=plan.tools,
            image=_image_asker(plan, self._caller),
        )

    def _phase_cache(
        self, plan: Plan, root: Folder, recipes: Callable[[], tuple[Recipe, ...]]
    ) -> PhaseCache:
        """Of a plan without inputs: one that decides nothing.

        Services that cannot be had are unknown to it.
        Blocks.
        """
        services: dict[str, str] = {}
        secret = ""
        if any(phase.cache_inputs for phase in plan.phases):
            with suppress(CleanroomError):
                services = service_identities(plan, recipes())
            if any(phase.passed for phase in plan.phases):
                secret = TemplateCache(cache_folder(self._caller) / "services").secret("phases")
        return PhaseCache(
            plan,
            root,
            self._bus.run_id,
            RunFacts(
                caller=self._caller,
                service_identities=services,
                secret=secret,
                services_outlive_run=bool(ancestors_to_ggen()) and self._charge(plan) is not None,
            ),
            ignored=self._options.fresh or self._options.no_cache,
        )

    def _charge(self, plan: Plan) -> ServerConfig | None:
        """Who is to hold the services: the session of the ggen that started this engine,
        until it ends; else the project's pool.
        """
        if not plan.services or self._options.fresh:
            return None
        if way := ancestors_to_ggen():
            return self._holder(
                plan,
                "session",
                discovery_key(plan.root, way[-1], _held_on(plan.backend)),
                owner=way[-1],
            )
        return self._holder(plan, "pool", pool_key(plan.root, _held_on(plan.backend)))

    def _holder(
        self, plan: Plan, kind: Kind, key: str, *, owner: str = "", idle_seconds: float = 0.0
    ) -> ServerConfig:
        backend = _held_on(plan.backend)
        where = (
            {name: self._caller[name] for name in ENGINE_VARIABLES if name in self._caller}
            if backend in registry.CONTAINERS
            else {}
        )
        return ServerConfig(
            backend=backend,
            caller=where,
            kind=kind,
            key=key,
            project=plan.project,
            root=plan.root,
            runs=str(self._scratch().parent),
            templates=str(self._templates()),
            policy=plan.policy,
            seed=plan.seed,
            owner=owner,
            idle_seconds=idle_seconds,
        )

    async def start_pool(self, idle_seconds: float) -> PoolStatus:
        """Start the project's pool and wait until what is in it is ready;
        one that runs is only asked.

        Raises:
            UsageError: `idle_seconds` is no number above 0,
                or no phase names a service that can be pooled.
            CleanroomError: it cannot be started, or a service in it.
        """
        check("Engine.start_pool: idle_seconds", idle_seconds, SECONDS)
        plan = await anyio.to_thread.run_sync(self.plan)
        wanted = {
            service.name
            for service in plan.services
            if service.kind in POOLABLE_KINDS and not service.superuser
        }
        if not wanted:
            raise UsageError(
                "CR-SESSION-007",
                (
                    "expected a phase that names a PostgreSQL or a key-value server, found none "
                    "that can be pooled"
                ),
                hint=(
                    "a pool holds these, where the database's role is an ordinary one; other "
                    "services start with each run"
                ),
            )
        if plan.backend in registry.CONTAINERS:
            await anyio.to_thread.run_sync(_require_parts, plan, self._caller)
            async with self._made_backend(plan.backend, _no_journal):
                pass  # why it cannot be used is said here, where somebody listens
        recipes = [recipe for recipe in (await self._resolve(plan))() if recipe.name in wanted]
        charge = self._holder(
            plan, "pool", pool_key(plan.root, _held_on(plan.backend)), idle_seconds=idle_seconds
        )
        async with connect(charge, self._bus.run_id, recipes, lease=False) as holder:
            assert holder is not None, "it is started where there is none"
            for service in holder.services.values():
                async for state in service.states():
                    if state.failure is not None:
                        raise state.failure
                    if state.ready:
                        break
        return await self.pool_status()

    async def pool_status(self) -> PoolStatus:
        """How the project's pool is, on the backend that the options or the file name."""
        return await anyio.to_thread.run_sync(
            lambda: pool_status(
                str(cache_folder(self._caller) / "runs"), str(self.root), self._pool_backend()
            )
        )

    async def stop_pool(self) -> PoolStatus:
        """End the project's pool, on the same backend; how it was."""
        return await anyio.to_thread.run_sync(
            lambda: stop_pool(
                str(cache_folder(self._caller) / "runs"), str(self.root), self._pool_backend()
            )
        )

    def _pool_backend(self) -> str:
        """A pool is asked and ended also where the file does not stand any more."""
        if self._options.backend:
            return _held_on(self._options.backend)
        with suppress(CleanroomError):
            return _held_on(self.plan().backend)
        return _held_on("auto")

    def _places(self, plan: Plan, own: RunFolders) -> RunPlaces:
        project = hashlib.sha256(os.fsencode(plan.root)).hexdigest()[:16]
        home = (
            "" if self._options.fresh else str(cache_folder(self._caller) / "home-caches" / project)
        )
        return RunPlaces(
            root=Path(plan.root),
            own=own,
            scratch=self._scratch(),
            templates=self._templates(),
            home=home,
        )

    def _scratch(self) -> Path:
        """What a run has in the cache for itself."""
        return cache_folder(self._caller) / "runs" / self._bus.run_id

    def _templates(self) -> Path:
        return (
            self._scratch() / "templates"
            if self._options.fresh
            else cache_folder(self._caller) / "services"
        )

    def _made_backend(self, name: str, journal: Callable[[], Journal]) -> Backend:
        return self._make(
            name,
            run_id=self._bus.run_id,
            scratch=self._scratch(),
            journal=journal,
            keeper=self._keeper,
            cache=cache_folder(self._caller),
            caller=self._caller,
        )

    def _new_bus(self) -> Bus:
        trace_id, parent, sampled = place(self._caller)
        run_id = new_run_id(self._clock.wall_ns())
        return Bus(
            run_id,
            self._clock,
            trace_id=trace_id,
            parent_span=parent,
            sampled=sampled,
            redactor=self._redactor,
        )

    async def _watch(self, starter: str) -> None:
        """Interrupt the run when whoever started this process dies:
        nobody would read its result, and it must not outlive its purpose.
        """
        await wait_ended(starter)
        if self._run is not None:
            self._run.interrupt(
                Exit.TERMINATED,
                f"process {starter.partition(':')[0]}, which started this run, has ended",
            )


@asynccontextmanager
async def open(
    project: str | Path = ".", *, caller: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Engine]:
    """An engine for the project in this folder.

    `caller` stands for the caller's environment, `options` are the fields of `Options`.

    Leaving it ends what `events` and `subscribe` gave out.

    Raises:
        UsageError: an argument is not what it has to be.
    """
    check("cleanroom.open: project", project, PATH)
    check("cleanroom.open: caller", caller, optional(VARIABLES))
    check_all("cleanroom.open", options, _OPTIONS)
    engine = Engine(
        _absolute(project), os.environ if caller is None else caller, Options(**options)
    )
    try:
        yield engine
    finally:
        engine._closed = True
        engine._bus.close()


def started_by_ggen() -> bool:
    """Is this process below a ggen?"""
    return bool(ancestors_to_ggen())


def _absolute(path: str | Path) -> Path:
    """Without resolving links: the project is where its people say it is."""
    return Path(os.path.abspath(path))  # noqa: PTH100


async def _each(inbox: Subscription) -> AsyncIterator[Envelope]:
    while batch := await inbox.batch():
        for envelope in batch:
            yield envelope


def _hidden(caller: Mapping[str, str], plan: Plan) -> list[str]:
    """The caller's secret values, but for those that are part of a name which every report says
    openly.
    """
    names = (
        plan.project,
        plan.root,
        *(phase.name for phase in plan.phases),
        *(service.name for service in plan.services),
    )
    return [value for value in secret_values(caller) if not any(value in name for name in names)]


@contextmanager
def _project(path: str) -> Iterator[Folder]:
    """A project's folder, held open and looked at.

    Raises:
        ProjectError: something else stands in the place of a folder or file of ours.
    """
    with named("CR-FILE-001", "open", Path(path)):
        folder = Folder.at(Path(path))
    with folder:
        check_own_folders(folder)
        yield folder


def _record(plan: Plan, projects: Mapping[str, Folder], outcomes: Sequence[PhaseOutcome]) -> None:
    """Add the phases that ran to the state of their workspace, as ggen keeps it."""
    from cleanroom.project.state import PhaseRecord, cache_key, record

    for workspace in plan.workspaces:
        commands = {phase.name: phase.commands for phase in workspace.phases}
        records = [
            PhaseRecord(
                phase=outcome.name,
                started_ms=outcome.started_unix_ns // 1_000_000,
                duration_ms=round(outcome.duration_seconds * 1000),
                success=outcome.result == "passed",
                cache_key=cache_key(outcome.name, commands[outcome.name], plan.environment),
            )
            for outcome in outcomes
            if outcome.workspace == workspace.name and outcome.exit_code is not None
        ]
        if records:
            record(projects[workspace.path], records)


def _refuse_machine(roots: Sequence[str]) -> None:
    """No workspace holds what the engine itself runs on:
    a phase could exchange it under its hands.
    """
    if root := lies_in(roots):
        raise ProjectError(
            "CR-ENGINE-006",
            (
                f"{root}: expected a project beside the Python that runs the engine and the "
                "system's programs, found one around them"
            ),
            hint=(
                "make a virtual environment for the engine from a Python outside of the project; "
                "give the project a folder of its own"
            ),
        )


def _held_on(backend: str) -> str:
    """The backend that holds services for a run on this one."""
    return backend if backend in registry.CONTAINERS else "embedded"


def _sweep_runs(cache: Path) -> SweepFindings:
    from cleanroom.backends.cleanup import sweep_runs

    return sweep_runs(cache)


def _require_parts(plan: Plan, caller: Mapping[str, str]) -> None:
    """For a backend with images: that each phase names one, and that all is there. Blocks."""
    if plan.backend not in registry.CONTAINERS:
        return
    phases = [phase for phase in plan.phases if phase.hermetic and phase.runs_commands]
    for phase in phases:
        if not phase.image:
            raise ProjectError(
                "CR-CONTAINER-009",
                (
                    f"phase {phase.name!r}: backend {plan.backend!r} needs to know which image "
                    "it runs in"
                ),
                hint=(
                    'add image = "cleanroom/base" under [cleanroom]; `cleanroom-engine image '
                    "build` makes it"
                ),
                where=str(phase.origin or plan.file),
            )
    wanted = filter(None, (*(phase.image for phase in phases), *map(image_of, plan.services)))
    registry.require_parts(plan.backend, wanted, caller=caller, cache=cache_folder(caller))


def _image_asker(plan: Plan, caller: Mapping[str, str]) -> ImageInspector | None:
    """What tells about images, for a backend that has them."""
    if plan.backend not in registry.CONTAINERS:
        return None
    ask = registry.image_reader(plan.backend, caller)
    return lambda name: _facts(name, ask(name))


def _facts(name: str, found: Mapping[str, Any]) -> ImageFacts:
    said = found.get("Config") or {}
    return ImageFacts(
        name=name,
        identity=str(found.get("Id", "")),
        labels=said.get("Labels") or {},
        command=(*(said.get("Entrypoint") or ()), *(said.get("Cmd") or ())),
        variables=dict(entry.partition("=")[::2] for entry in said.get("Env") or ()),
        working_directory=said.get("WorkingDir") or "/",
    )


def _no_journal() -> Journal:
    raise AssertionError("nothing is made of which somebody would have to know")


def _raise(error: CleanroomError) -> tuple[Recipe, ...]:
    raise error
