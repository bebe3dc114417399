"""The services of one server, by name, with the configuration that each was started with."""

from __future__ import annotations

from collections.abc import Callable

from anyio.abc import TaskGroup

from cleanroom.core.redaction import Redactor
from cleanroom.engine.shared_services.protocol import PooledService, ServiceRequest
from cleanroom.engine.supervision.service import Service
from cleanroom.engine.supervision.supervisor import Supervisor
from cleanroom.services import new_secret


class ServiceTable:
    """Starts services, replaces them, and reports every change of their states."""

    def __init__(
        self,
        supervisor: Supervisor,
        redactor: Redactor,
        tasks: TaskGroup,
        on_change: Callable[[Service], None],
    ) -> None:
        """`on_change` is called once for the first state of a service, then for every change."""
        self._supervisor = supervisor
        self._redactor = redactor
        self._tasks = tasks
        self._on_change = on_change
        self._services: dict[str, Service] = {}
        self._configurations: dict[str, str] = {}

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def usable(self, name: str) -> Service | None:
        """The service of this name; None where there is none, or one that has failed for good."""
        service = self._services.get(name)
        return service if service is not None and service.failure is None else None

    def configuration(self, name: str) -> str:
        return self._configurations[name]

    def start(self, name: str, request: ServiceRequest) -> Service:
        """Start a service as it is requested."""
        self._redactor.add(*request.recipe.secrets)
        self._configurations[name] = request.configuration
        service = self._services[name] = self._supervisor.add(request.recipe)
        self._tasks.start_soon(self._report_changes, service)
        return service

    def renew(self, name: str) -> None:
        """Replace a service by a new one: another process, folder and password."""
        old = self._services[name]
        recipe = old.recipe.renewed(new_secret)
        self._redactor.add(*recipe.secrets)
        service = self._services[name] = self._supervisor.renew(recipe)
        old.change()  # ends its `_report_changes`
        self._tasks.start_soon(self._report_changes, service)

    def start_again(self, name: str) -> None:
        """Start a service that has failed for good once more, with the data that it has."""
        service = self._services[name] = self._supervisor.start_again(name)
        self._tasks.start_soon(self._report_changes, service)

    def replace(self, name: str, request: ServiceRequest) -> None:
        """Replace a service by one of another configuration, with another folder."""
        old = self._services[name]
        self._redactor.add(*request.recipe.secrets)
        self._configurations[name] = request.configuration
        service = self._services[name] = self._supervisor.renew(request.recipe)
        old.change()  # ends its `_report_changes`
        self._tasks.start_soon(self._report_changes, service)

    async def remove(self, name: str) -> None:
        """Stop a service and remove its data."""
        service = self._services.pop(name)
        del self._configurations[name]
        service.change()  # ends its `_report_changes`
        await self._supervisor.remove(name)

    async def _report_changes(self, service: Service) -> None:
        """Until the service fails for good or is replaced."""
        while True:
            changed = service.changed
            self._on_change(service)
            if service.failure is not None:
                return
            await changed.wait()
            if self._services.get(service.recipe.name) is not service:
                return

    def find(self, name: str) -> Service | None:
        """The service of this name, whatever its state."""
        return self._services.get(name)

    def name_of_subject(self, subject: str) -> str:
        """The service that an event is about: `subject` names the service or its environment."""
        by_environment = {service.environment_id: name for name, service in self._services.items()}
        return by_environment.get(subject.removeprefix("prepare-"), subject)

    def status(self) -> tuple[PooledService, ...]:
        """The services as they are now, for `pool status`."""
        return tuple(
            PooledService(
                name=name,
                version=service.recipe.version,
                ready=service.ready,
                configuration=self._configurations[name],
            )
            for name, service in self._services.items()
        )
