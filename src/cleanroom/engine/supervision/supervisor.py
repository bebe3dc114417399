"""Lives of services: started at once and concurrently, made ready, watched,
restarted when recovery says so, stopped in reverse order.

A life is one environment with the service's main command;
it ends when that command does, or when the service no longer answers.
What happens next is not decided here: recovery sees the life's Finished event and sends a command.
"""

from __future__ import annotations

import itertools
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup

from cleanroom.backends.base import (
    Environment,
    EnvironmentSpec,
    Mount,
    PortForward,
    Stream,
)
from cleanroom.core.bus import Span
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.environments import EnvironmentObserver, ObservedEnvironment
from cleanroom.engine.supervision.output import OutputPump
from cleanroom.engine.supervision.service import (
    QUOTED_LINES,
    Main,
    Service,
    ServiceAccess,
    SharedService,
    SharedServices,
)
from cleanroom.engine.supervision.service_data import in_thread, write_folders
from cleanroom.model.commands import Command, GiveUp, KillEnvironment, Restart
from cleanroom.model.errors import (
    CleanroomError,
    EnvironmentFailed,
    PolicyRefused,
    ProjectError,
    ServiceFailed,
)
from cleanroom.model.events import LINK, Note, Recovery, Subject
from cleanroom.services import Recipe, TemplateCache, phase_variables
from cleanroom.services.base import DATA, PRIVATE, run_folder
from cleanroom.services.probe import is_ready

# between questions for readiness: a server from cache is there in tens of ms
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.001, 0.025
UNANSWERED_MAX = 3  # health probes in a row: one may fall into a checkpoint or a fork
PREPARE_SECONDS = 120.0  # initdb and the project's SQL
STOP_SECONDS = 5.0  # for one service to be gone; killing one takes tens of ms
TAIL_BYTES = 64 << 10  # of a service's output that a log probe searches and an error quotes


class Supervisor:
    """Owns the run's services and observes every environment. Made by `supervise`."""

    def __init__(
        self,
        context: RunContext,
        recipes: Sequence[Recipe],
        cache: TemplateCache,
        tasks: TaskGroup,
        shared_services: SharedServices | None = None,
    ) -> None:
        self._context = context
        self._bus = context.bus
        self._cache = cache
        self._tasks = tasks
        self.observer = EnvironmentObserver(context, tasks)
        self._shared_services = shared_services
        self._services: dict[str, Service] = {}
        self._numbers = itertools.count(1)
        for recipe in recipes:
            self._register(
                recipe, shared_services.services.get(recipe.name) if shared_services else None
            )
        self._commands: list[Command] = []
        self._sent = anyio.Event()

    # --- for phases

    def environment(
        self, spec: EnvironmentSpec, *, of: str
    ) -> AbstractAsyncContextManager[ObservedEnvironment]:
        """Open an environment and observe it."""
        return self.observer.environment(spec, of=of)

    async def wait_opened(self, names: Sequence[str]) -> None:
        """Wait until these services' environments are there, so that doorways can lead to them.

        Raises as `wait_ready` does.
        """
        for service in (self._services[name] for name in names):
            while not service.opened and not service.idle:
                if service.failure is not None:
                    raise service.failure
                await service.changed.wait()

    async def wait_ready(self, names: Sequence[str]) -> None:
        """Wait until these services are ready.

        Raises:
            CleanroomError: one of them will not be; what ended it.
        """
        for service in (self._services[name] for name in names):
            while not service.ready and not service.idle:
                if service.failure is not None:
                    raise service.failure
                await service.changed.wait()

    def access(self, names: Sequence[str]) -> ServiceAccess:
        """How a phase that names these services reaches them."""
        chosen = [self._services[name] for name in names]
        doorways = tuple(
            PortForward(
                service=service.recipe.name,
                port=service.recipe.port,
                environment=service.environment_id,
                to=service.recipe.to,
            )
            for service in chosen
            if service.recipe.to and not service.idle
        )
        mounts = tuple(
            Mount(source=str(self._folder(service) / "run"), target=run_folder(service.recipe.name))
            for service in chosen
            if not service.idle
        )
        return ServiceAccess(
            doorways, mounts, phase_variables([service.recipe for service in chosen])
        )

    # --- for clients on the host

    def admit(self, name: str, listening: socket.socket) -> None:
        """Lead whoever connects to this listening socket to the service,
        from now on and in every life.
        """
        service = self._services[name]
        service.listening.append(listening)
        if service.ready and service.environment is not None:
            with suppress(EnvironmentFailed):  # its next life takes it
                service.environment.admit(listening, service.recipe.to)

    def dismiss(self, name: str, listening: socket.socket) -> None:
        """Lead nobody through this socket any more."""
        service = self._services[name]
        service.listening.remove(listening)
        if service.environment is not None:
            service.environment.dismiss(listening)

    # --- what others hold, and what is held for others

    def add(self, recipe: Recipe) -> Service:
        """Start one more service."""
        service = self._register(recipe, None)
        self._tasks.start_soon(self._run_once, service)
        return service

    def renew(self, recipe: Recipe) -> Service:
        """Start a new service in the place of the one of that name, as this recipe says.

        The old one ends meanwhile, for good and with what it held.
        """
        old = self._services[recipe.name]
        service = self._register(recipe, None)  # from now on commands concern this one
        self._tasks.start_soon(self._run_once, service)
        self._tasks.start_soon(self._retire, old)
        return service

    async def _retire(self, service: Service) -> None:
        if service.running:
            service.scope.cancel()
            await service.ended.wait()
        await anyio.to_thread.run_sync(
            partial(shutil.rmtree, self._folder(service), ignore_errors=True)
        )

    def _register(self, recipe: Recipe, shared: SharedService | None) -> Service:
        service = self._services[recipe.name] = Service(
            shared.recipe if shared else recipe, next(self._numbers)
        )
        if shared is not None:
            assert self._context.backend.forwards_elsewhere, (
                "a run joins others only on such a backend"
            )
            service.shared, service.environment_id = shared, shared.environment
            self._context.backend.forward_elsewhere(shared.environment, shared.admit)
        return service

    async def _mirror_state(self, service: Service, shared: SharedService) -> None:
        """Know of a held service what its holder says.

        It was not started here, so it has no span here: only waiting for it has.
        """
        self._bus.publish(shared.attached)
        states = shared.states()
        with self._bus.span(
            Subject("readiness", service.recipe.name), {LINK: shared.attached.traceparent}
        ) as readiness:
            async for state in states:
                service.change(opened=state.opened, ready=state.ready, failure=state.failure)
                if state.failure is not None:
                    readiness.result, readiness.reason, readiness.code = (
                        "failed",
                        str(state.failure),
                        state.failure.code,
                    )
                if state.ready or state.failure is not None:
                    break
        async for state in states:
            service.change(opened=state.opened, ready=state.ready, failure=state.failure)

    async def _forward_events(self, shared_services: SharedServices) -> None:
        """Tell here what a holder says of its services: it concerns this run too."""
        async for event in shared_services.events():
            self._bus.publish(event)

    async def ready_environment(self, name: str) -> Environment:
        """The service's environment, once the service is ready. Raises as `wait_ready` does."""
        await self.wait_ready((name,))
        environment = self._services[name].environment
        assert environment is not None, "the backend runs nothing"
        return environment

    # --- the way back

    def send(self, command: Command) -> None:
        """Take a command from recovery. Never waits; carried out in order of arrival."""
        self._commands.append(command)
        self._sent.set()

    async def execute_commands(self) -> None:
        """The one reader of the commands."""
        while True:
            await self._sent.wait()
            self._sent = anyio.Event()
            for command in [self._commands.pop(0) for _ in range(len(self._commands))]:
                match command:
                    case Restart():
                        self._tasks.start_soon(
                            self._restart, self._services[command.service], command
                        )
                    case GiveUp():
                        self._give_up(self._services[command.service], command.cause)
                    case KillEnvironment():
                        self._tasks.start_soon(self.observer.kill, command)

    async def _restart(self, service: Service, command: Restart) -> None:
        if service.failure is not None or service.running:
            return
        await anyio.sleep(command.delay_seconds)
        if self._services[command.service] is not service:
            return  # it was renewed meanwhile
        self._bus.publish(
            Recovery(
                subject=service.subject,
                action="restarted",
                cause=command.cause,
                attempt=command.attempt,
                delay_seconds=command.delay_seconds,
            )
        )
        await self._run_once(service)

    def _give_up(self, service: Service, cause: str) -> None:
        if service.failure is not None:
            return
        self._bus.publish(Recovery(subject=service.subject, action="gave_up", cause=cause))
        failure = ServiceFailed(
            "CR-SERVICE-021",
            f"service {service.recipe.name!r} was given up: {cause}",
            hint=self._see_log(service),
        )
        if service.last_error is not None:
            failure.__cause__ = service.last_error
        service.change(failure=failure)
        self._tasks.start_soon(self.observer.end_users, service.environment_id, failure)

    # --- lives

    def start(self) -> None:
        """Start every service at once, or follow what its holder says of it."""
        for service in self._services.values():
            if service.shared is None:
                self._tasks.start_soon(self._run_once, service)
            else:
                self._tasks.start_soon(self._mirror_state, service, service.shared)
        if self._shared_services is not None:
            self._tasks.start_soon(self._forward_events, self._shared_services)

    async def stop(self) -> None:
        """Stop all, last started first, whatever is cancelled meanwhile."""
        for service in reversed(self._services.values()):
            if service.running:
                with anyio.move_on_after(STOP_SECONDS, shield=True):
                    service.scope.cancel()
                    await service.ended.wait()

    async def _run_once(self, service: Service) -> None:
        """One life as one span. How it ended is in the span; recovery reads it there."""
        service.scope, service.ended, service.running = anyio.CancelScope(), anyio.Event(), True
        recipe = service.recipe
        attributes: dict[str, str | int | float | bool] = {
            "version": recipe.version,
            "kind": recipe.kind,
            "port": recipe.port,
            "restarts_max": recipe.restarts_max,
            "restart_window_seconds": recipe.restart_window_seconds,
            "log": self._log(service),
            "server_sha256": recipe.server_sha256,
        }
        try:
            with service.scope, self._bus.span(service.subject, attributes) as span:
                service.begin(span.context, self._bus.clock.wall_ns())
                try:
                    with ExitStack() as starting:
                        readiness = starting.enter_context(
                            self._bus.aside(Subject("readiness", recipe.name))
                        )
                        await self._run_in_environment(service, span, readiness, starting)
                except CleanroomError as error:
                    self._record_failure(service, span, error)
                    await self._renew_data(service)
                except anyio.get_cancelled_exc_class():
                    # being stopped is how a service's life is meant to end
                    span.result, span.reason = "passed", ""
                    raise
        finally:
            service.running = False
            service.change(opened=False)
            service.ended.set()

    def _record_failure(self, service: Service, span: Span, error: CleanroomError) -> None:
        service.last_error = error
        span.result, span.reason, span.code = "failed", str(error), error.code
        if isinstance(error, PolicyRefused | ProjectError):
            service.change(failure=error)  # another try would end the same way

    async def _run_in_environment(
        self, service: Service, span: Span, readiness: Span, starting: ExitStack
    ) -> None:
        """Make the environment, run the main command in it, and stay until one of them ends.

        Ends only by an exception, or where nothing runs. `starting` ends `readiness`.
        """
        pump = self._context.pump(service.subject, self._log(service), span.context)
        main = Main()
        try:
            await self._make_data(service, pump)
            async with self.observer.environment(
                self._spec(service, "service"), of=service.recipe.name
            ) as observed:
                service.change(opened=True)
                self._tasks.start_soon(self._run_main, service, observed.environment, main, pump)
                main.started = True
                try:
                    await self._monitor_health(service, observed, main, readiness, starting)
                except EnvironmentFailed:
                    if not observed.ended_for:
                        raise
                    raise ServiceFailed(
                        "CR-SERVICE-022",
                        f"service {service.recipe.name!r} was ended: {observed.ended_for}",
                    ) from None
            if main.result is not None and not main.result.ran:
                span.result, span.reason = "unverified", "the backend runs nothing"
        finally:
            if main.started:
                with anyio.move_on_after(STOP_SECONDS, shield=True):
                    await main.ended.wait()
            pump.end()

    async def _run_main(
        self, service: Service, environment: Environment, main: Main, pump: OutputPump
    ) -> None:
        def listen(stream: Stream, data: bytes) -> None:
            pump.feed(stream, data)
            service.output += data
            del service.output[:-TAIL_BYTES]

        service.output.clear()
        try:
            main.result = await environment.exec(service.recipe.main, on_output=listen)
        except EnvironmentFailed:
            pass  # whoever looks at `main` learns that it ended
        finally:
            main.ended.set()

    async def _monitor_health(
        self,
        service: Service,
        observed: ObservedEnvironment,
        main: Main,
        readiness: Span,
        starting: ExitStack,
    ) -> None:
        """Get it ready, say so, and watch its health until it ends."""
        recipe = service.recipe
        with starting:
            if not await self._become_ready(service, observed.environment, main):
                readiness.result = "unverified"
                service.idle = True
                service.change()
                return
        service.environment = observed.environment
        for listening in service.listening:
            observed.environment.admit(listening, recipe.to)
        service.change(ready=True)
        unanswered = 0
        while unanswered < UNANSWERED_MAX:
            with anyio.move_on_after(recipe.health_seconds or None):
                await main.ended.wait()
            if main.ended.is_set():
                raise self._end_error(service, observed, main)
            unanswered = (
                0
                if await is_ready(recipe.probe, observed.environment, bytes(service.output))
                else unanswered + 1
            )
        raise ServiceFailed(
            "CR-SERVICE-024",
            f"service {recipe.name!r} stopped answering ({unanswered} probes in a row)",
            hint=self._see_log(service),
        )

    async def _become_ready(self, service: Service, environment: Environment, main: Main) -> bool:
        """Ask until it answers. False where the backend runs nothing."""
        recipe, pause, asked = service.recipe, FIRST_PAUSE_SECONDS, 0
        question = recipe.first_probe or recipe.probe
        with anyio.move_on_after(recipe.start_timeout_seconds) as limit:
            while True:
                if main.ended.is_set():
                    if main.result is not None and not main.result.ran:
                        return False
                    raise ServiceFailed(
                        "CR-SERVICE-023",
                        self._with_tail(
                            service, f"service {recipe.name!r} {main.story} before it was ready"
                        ),
                        hint=self._see_log(service),
                    )
                asked += 1
                if await is_ready(question, environment, bytes(service.output)):
                    break
                with anyio.move_on_after(pause):
                    await main.ended.wait()
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        if limit.cancelled_caught:
            waited = (
                f"not ready after {recipe.start_timeout_seconds:g} s ({recipe.probe.kind} probe, "
                f"{asked} tries)"
            )
            raise ServiceFailed(
                "CR-SERVICE-020",
                self._with_tail(service, f"service {recipe.name!r} {waited}"),
                hint=self._see_log(service),
            )
        return True

    def _end_error(
        self, service: Service, observed: ObservedEnvironment, main: Main
    ) -> ServiceFailed:
        if observed.ended_for:
            return ServiceFailed(
                "CR-SERVICE-022", f"service {service.recipe.name!r} was ended: {observed.ended_for}"
            )
        return ServiceFailed(
            "CR-SERVICE-025",
            f"service {service.recipe.name!r} {main.story}",
            hint=self._see_log(service),
        )

    # --- data

    async def _make_data(self, service: Service, pump: OutputPump) -> None:
        """Folders and files of the service, and the template below its data;
        once, so that a restart finds its state.
        """
        if service.has_data:
            return
        folder, recipe = self._folder(service), service.recipe
        write_folders(folder, recipe.files)
        if recipe.template_key:
            template = await anyio.to_thread.run_sync(self._cache.lookup, recipe.template_key)
            if template is None:
                if not await self._build_template(service, pump):
                    return
                template = await anyio.to_thread.run_sync(self._cache.lookup, recipe.template_key)
            if template is None:
                raise ServiceFailed(
                    "CR-SERVICE-027",
                    f"service {recipe.name!r}: its prepared data vanished from the cache",
                    hint="run it again",
                )
            service.template = str(template)
        service.has_data = True

    async def _renew_data(self, service: Service) -> None:
        """Where a server that was never ready began with damaged data,
        the next life begins with new data.
        """
        if not service.template or service.environment is not None:
            return
        if await anyio.to_thread.run_sync(self._cache.drop_damaged, service.recipe.template_key):
            text = (
                f"the prepared data of service {service.recipe.name!r} was damaged in the cache; "
                "it is made anew"
            )
            self._bus.publish(
                Note(subject=service.subject, level="warning", text=text, code="CR-SERVICE-028")
            )
            folder = self._folder(service)
            await anyio.to_thread.run_sync((folder / "data").rename, folder / "damaged")
            service.has_data, service.template = False, ""

    async def _build_template(self, service: Service, pump: OutputPump) -> bool:
        """Prepare the cached data folder in an environment of its own.

        False where the backend runs nothing.
        """
        recipe = service.recipe
        building = self._cache.building(
            recipe.template_key, waiting=anyio.from_thread.check_cancelled
        )
        try:
            with self._bus.span(Subject("prepare", recipe.name)):
                async with in_thread(building) as place:
                    if place is not None:
                        async with self.observer.environment(
                            self._spec(service, "prepare", place), of=recipe.name
                        ) as observed:
                            for argv in recipe.prepare:
                                await self._run_prepare_step(
                                    service, observed.environment, argv, pump
                                )
        except _NothingRuns:
            return False
        return True

    async def _run_prepare_step(
        self, service: Service, environment: Environment, argv: Sequence[str], pump: OutputPump
    ) -> None:
        heard = bytearray()

        def listen(stream: Stream, data: bytes) -> None:
            pump.feed(stream, data)
            heard.extend(data)
            del heard[:-TAIL_BYTES]

        result = await environment.exec(argv, on_output=listen, timeout_seconds=PREPARE_SECONDS)
        if not result.ran:
            raise _NothingRuns
        if result.exit_code:
            said = "\n".join(heard.decode(errors="replace").splitlines()[-QUOTED_LINES:])
            ended = (
                f"still running after {PREPARE_SECONDS:g} s"
                if result.timed_out
                else f"exit status {result.exit_code}"
            )
            raise ProjectError(
                "CR-SERVICE-026",
                f"service {service.recipe.name!r}: its prepare step failed ({ended}): {said}",
                hint="correct the service's init files or settings; " + self._see_log(service),
            )

    # --- values

    def _spec(
        self, service: Service, role: Literal["service", "prepare"], data: Path | None = None
    ) -> EnvironmentSpec:
        recipe, folder, plan = service.recipe, self._folder(service), self._context.plan
        mounts = [
            *(Mount(source=program, target=program) for program in recipe.programs),
            Mount(
                source=str(data or folder / "data"),
                target=DATA,
                writable=True,
                above="" if data else service.template,
            ),
            Mount(source=str(folder / "private"), target=PRIVATE, writable=True, names_paths=True),
            Mount(source=str(folder / "run"), target=run_folder(recipe.name), writable=True),
        ]
        policy = msgspec.structs.replace(plan.policy, egress=(), expected=())
        return EnvironmentSpec(
            id=service.environment_id if role == "service" else f"prepare-{service.environment_id}",
            run_id=self._context.run_id,
            role=role,
            policy=policy,
            variables=dict(recipe.variables),
            working_directory=recipe.working_directory,
            mounts=tuple(mounts),
            image=recipe.image,
            seed=plan.seed,
        )

    def _folder(self, service: Service) -> Path:
        return (
            service.shared.folder
            if service.shared
            else self._context.scratch / "services" / service.environment_id
        )

    def _log(self, service: Service) -> str:
        return f"service-{service.recipe.name}"

    def _see_log(self, service: Service) -> str:
        return f"its output is in {self._context.log_path(self._log(service))}"

    def _with_tail(self, service: Service, message: str) -> str:
        tail = service.tail()
        return f"{message}; it said: {tail}" if tail else message


@asynccontextmanager
async def supervise(
    context: RunContext,
    recipes: Sequence[Recipe],
    cache: TemplateCache,
    shared_services: SharedServices | None = None,
) -> AsyncIterator[Supervisor]:
    """Start all services but those that `shared_services` has; leaving stops them in reverse order,
    also when cancelled.

    A failure of any watching task ends the body.
    """
    async with anyio.create_task_group() as tasks:
        supervisor = Supervisor(context, recipes, cache, tasks, shared_services)
        tasks.start_soon(supervisor.execute_commands)
        supervisor.start()
        try:
            yield supervisor
        finally:
            await supervisor.stop()
            tasks.cancel_scope.cancel()


class _NothingRuns(Exception):
    """The backend has nothing that could run a command."""
