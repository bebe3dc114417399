"""The supervisor of a run: its services, and the observation of all its environments.

Services start at once and concurrently, are restarted when recovery sends the command, and stop in
reverse order.
What happens after a service ended is not decided here: recovery reads the Finished event and sends
a command.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from cleanroom.backends.base import Environment, EnvironmentSpec, Mount, PortForward
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.environments import EnvironmentObserver, ObservedEnvironment
from cleanroom.engine.supervision.service import (
    Service,
    ServiceAccess,
    SharedService,
    SharedServices,
)
from cleanroom.engine.supervision.service_data import ServiceData
from cleanroom.engine.supervision.service_errors import given_up
from cleanroom.engine.supervision.service_runner import STOP_SECONDS, ServiceRunner
from cleanroom.engine.supervision.service_spec import client_mounts, forwarded_ports, service_folder
from cleanroom.model.commands import Command, GiveUp, KillEnvironment, Restart
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import LINK, Recovery, Subject
from cleanroom.services import Recipe, TemplateCache, phase_variables
from cleanroom.services.base import clients_folder, run_folder


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
        self._tasks = tasks
        self.observer = EnvironmentObserver(context, tasks)
        self._data = ServiceData(context, cache, self.observer)
        self._runner = ServiceRunner(context, self.observer, self._data, tasks)
        self._shared_services = shared_services
        self._services: dict[str, Service] = {}
        self._numbers = itertools.count(1)
        # phase -> that it has passed, of those that a service comes after and that this run has
        names = {phase.name for phase in context.plan.phases}
        self._awaited = {recipe.after: anyio.Event() for recipe in recipes if recipe.after in names}
        shared = shared_services.services if shared_services else {}
        for recipe in recipes:
            self._register(recipe, shared.get(recipe.name))
        self._commands: list[Command] = []
        self._sent = anyio.Event()

    # --- for phases

    def environment(
        self, spec: EnvironmentSpec, *, of: str
    ) -> AbstractAsyncContextManager[ObservedEnvironment]:
        """Open an environment and observe it. Raises as `EnvironmentObserver.environment` does."""
        return self.observer.environment(spec, of=of)

    async def wait_opened(self, names: Sequence[str]) -> None:
        """Wait until these services' environments exist, so that port forwards can lead to them.

        Raises:
            CleanroomError: one of them will not exist, for this reason.
        """
        for name in names:
            await self._services[name].wait_opened()

    async def wait_ready(self, names: Sequence[str]) -> None:
        """Wait until these services are ready.

        Raises:
            CleanroomError: one of them will not be, for this reason.
        """
        for name in names:
            await self._services[name].wait_ready()

    def access(self, names: Sequence[str]) -> ServiceAccess:
        """How a phase that names these services reaches them."""
        chosen = [self._services[name] for name in names]
        port_forwards = tuple(
            PortForward(
                service=service.recipe.name,
                port=port,
                environment=service.environment_id,
                to=to,
            )
            for service in chosen
            for port, to in forwarded_ports(service.recipe)
            if not service.idle
        )
        running = [service for service in chosen if not service.idle]
        mounts = tuple(
            Mount(
                source=str(service_folder(self._context, service) / "run"),
                target=run_folder(service.recipe.name),
            )
            for service in running
        )
        recipes = [service.recipe for service in running if _has_clients(service.recipe)]
        return ServiceAccess(
            port_forwards,
            (*mounts, *client_mounts(recipes)),
            phase_variables([service.recipe for service in chosen]),
            tuple(clients_folder(recipe.name) for recipe in recipes),
        )

    async def ready_environment(self, name: str) -> Environment:
        """Wait until the service is ready, and return its environment.

        Raises:
            CleanroomError: it will not be ready, for this reason.
        """
        await self.wait_ready((name,))
        environment = self._services[name].environment
        assert environment is not None, "the backend runs nothing"
        return environment

    # --- for clients on the host

    def forward(self, name: str, listening: socket.socket, to: str = "") -> None:
        """Forward connections on `listening` to the service, across restarts.

        `to` is where inside of it; without one, its socket for phases.
        """
        self._services[name].forward(listening, to)

    def stop_forwarding(self, name: str, listening: socket.socket) -> None:
        """Stop forwarding connections on `listening`."""
        self._services[name].stop_forwarding(listening)

    # --- services

    def start(self) -> None:
        """Start every service at once; mirror the state of those that another process runs."""
        for service in self._services.values():
            if service.shared is None:
                self._tasks.start_soon(self._start, service)
            else:
                self._tasks.start_soon(self._mirror_state, service, service.shared)
        if self._shared_services is not None:
            self._tasks.start_soon(self._forward_events, self._shared_services)

    def phase_passed(self, name: str) -> None:
        """Let the services start that a phase had to build."""
        if name in self._awaited:
            self._awaited[name].set()

    async def _start(self, service: Service) -> None:
        """Run the service once, when what it waits for is there."""
        recipe = service.recipe
        try:
            if recipe.after in self._awaited:
                await self._awaited[recipe.after].wait()
            await self.wait_ready(recipe.depends_on)
        except CleanroomError as error:
            service.change(failure=error)
            return
        service.access = self.access(recipe.depends_on)
        await self._runner.run_once(service)

    async def stop(self) -> None:
        """Stop all services, last started first, also when cancelled."""
        for service in reversed(self._services.values()):
            with anyio.move_on_after(STOP_SECONDS, shield=True):
                await self._runner.stop(service)

    def add(self, recipe: Recipe) -> Service:
        """Start one more service. Those that it depends on have been added before."""
        service = self._register(recipe, None)
        self._tasks.start_soon(self._start, service)
        return service

    def start_again(self, name: str) -> Service:
        """Start a service that has failed for good once more, with the data that it has."""
        service = self._services[name] = self._services[name].successor()
        self._tasks.start_soon(self._start, service)
        return service

    async def remove(self, name: str) -> None:
        """Stop a service and remove its data. No other one depends on it."""
        await self._retire(self._services.pop(name))

    def renew(self, recipe: Recipe) -> Service:
        """Start a new service from this recipe in the place of the one of that name.

        The old one is stopped meanwhile, and its data removed.
        """
        old = self._services[recipe.name]
        service = self.add(recipe)  # from now on commands concern this one
        self._tasks.start_soon(self._retire, old)
        return service

    async def _retire(self, service: Service) -> None:
        await self._runner.stop(service)
        await self._data.remove(service)

    def _register(self, recipe: Recipe, shared: SharedService | None) -> Service:
        service = Service(shared.recipe if shared else recipe, next(self._numbers))
        self._services[recipe.name] = service
        if shared is not None:
            backend = self._context.backend
            assert backend.forwards_elsewhere, "a run joins others only on such a backend"
            service.shared, service.environment_id = shared, shared.environment
            backend.forward_elsewhere(shared.environment, shared.forward)
        return service

    # --- services of another process

    async def _mirror_state(self, service: Service, shared: SharedService) -> None:
        """Mirror the state of a service that another process runs.

        This trace gets a span for the wait, none for the service.
        """
        self._bus.publish(shared.attached)
        states = shared.states()
        with self._bus.span(
            Subject("readiness", service.recipe.name), {LINK: shared.attached.traceparent}
        ) as readiness:
            async for state in states:
                service.set_state(state)
                if state.failure is not None:
                    readiness.result, readiness.reason = "failed", str(state.failure)
                    readiness.code = state.failure.code
                if state.ready or state.failure is not None:
                    break
        async for state in states:
            service.set_state(state)

    async def _forward_events(self, shared_services: SharedServices) -> None:
        """Publish here the events of shared services: they concern this run too."""
        async for event in shared_services.events():
            self._bus.publish(event)

    # --- commands of recovery

    def send(self, command: Command) -> None:
        """Receive a command from recovery. Never waits; executed in order of arrival."""
        self._commands.append(command)
        self._sent.set()

    async def execute_commands(self) -> None:
        """Execute commands until cancelled. The one reader of the commands."""
        while True:
            await self._sent.wait()
            self._sent = anyio.Event()
            commands, self._commands = self._commands, []
            for command in commands:
                self._execute(command)

    def _execute(self, command: Command) -> None:
        match command:
            case Restart(service=name):
                # one that was removed meanwhile needs nothing
                if (service := self._services.get(name)) is not None:
                    self._tasks.start_soon(self._restart, service, command)
            case GiveUp(service=name):
                if (service := self._services.get(name)) is not None:
                    self._give_up(service, command.cause)
            case KillEnvironment():
                self._tasks.start_soon(self.observer.kill, command)

    async def _restart(self, service: Service, command: Restart) -> None:
        if service.failure is not None or service.running:
            return
        await anyio.sleep(command.delay_seconds)
        if self._services.get(command.service) is not service:
            return  # it was renewed or removed meanwhile
        self._bus.publish(
            Recovery(
                subject=service.subject,
                action="restarted",
                cause=command.cause,
                attempt=command.attempt,
                delay_seconds=command.delay_seconds,
            )
        )
        await self._runner.run_once(service)

    def _give_up(self, service: Service, cause: str) -> None:
        if service.failure is not None:
            return
        self._bus.publish(Recovery(subject=service.subject, action="gave_up", cause=cause))
        failure = given_up(service, cause, self._context.log_path(service.log))
        service.change(failure=failure)
        self._tasks.start_soon(self.observer.end_users, service.environment_id, failure)


@asynccontextmanager
async def supervise(
    context: RunContext,
    recipes: Sequence[Recipe],
    cache: TemplateCache,
    shared_services: SharedServices | None = None,
) -> AsyncIterator[Supervisor]:
    """Start all services except those of `shared_services`.

    Leaving stops them in reverse order, also when cancelled.
    A failure of a task that observes ends the body.
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


def _has_clients(recipe: Recipe) -> bool:
    """Whether there are client programs for phases.

    Those of an image are part of the template, which a pool's server may outlive in the cache, and
    which the project's init files wrote to: a link in their place would show a folder of the host.
    """
    folder = Path(recipe.clients)
    return bool(recipe.clients) and folder.is_dir() and not folder.is_symlink()
