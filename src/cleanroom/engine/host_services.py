"""The project's services for programs on the host: `up` and `down`.

A server of shared services holds them, in a process of its own, until `down`.
No run uses it: what a run verifies begins with new data. Blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from cleanroom.backends import registry
from cleanroom.backends.base import Leftover
from cleanroom.core.beneath import Folder
from cleanroom.core.locations import cache_folder
from cleanroom.engine.caller import refuse_recursion
from cleanroom.engine.host_ports import HOST, published
from cleanroom.engine.options import Options
from cleanroom.engine.own_folder import SESSIONS
from cleanroom.engine.project_folders import opened_project, refuse_machine
from cleanroom.engine.run_settings import CachePlaces
from cleanroom.engine.service_resolution import resolve_services
from cleanroom.engine.service_server import server_of_host, service_backend
from cleanroom.engine.shared_services.client import configuration_digest
from cleanroom.engine.shared_services.discovery import ServerConfig, mark_ended, unmarked
from cleanroom.engine.shared_services.protocol import PublishedService
from cleanroom.engine.shared_services.up import UpServer, found_server, started_server, up_key
from cleanroom.model.errors import CleanroomError, ServiceFailed, UsageError
from cleanroom.model.plan import Plan, ServiceSpec
from cleanroom.project.services import canonical
from cleanroom.sandbox.journal import process_name
from cleanroom.services import Recipe, image_of

Progress = Callable[[str], None]


class HostService(msgspec.Struct, frozen=True, kw_only=True):
    """One service that is up."""

    name: str
    version: str
    host: str
    ports: tuple[int, ...]  # its own first; none where it listens on no port
    log: str  # below the project's folder


class HostServices(msgspec.Struct, frozen=True, kw_only=True):
    """Services that are up, and the variables by which programs on the host find them."""

    id: str
    services: tuple[HostService, ...]
    variables: dict[str, str]


class EndedServices(msgspec.Struct, frozen=True, kw_only=True):
    """What `down` ended, and what is left of it; without `id` nothing was up."""

    id: str = ""
    ended: tuple[str, ...] = ()
    whole: bool = False  # the process that held them has ended too
    left: tuple[Leftover, ...] = ()


class Up:
    """Services that are up, for as long as the block."""

    def __init__(self, server: UpServer, services: HostServices) -> None:
        self.services = services
        self._server = server

    def changes(self) -> Iterator[str]:
        """A sentence for each change of a service's state, as it happens.

        Raises:
            ServiceFailed: the process that holds them has ended.
        """
        ready = dict.fromkeys((service.name for service in self.services.services), True)
        for state in self._server.states():
            if state.failure is not None:
                yield f"{state.service} has ended: {state.failure.message}"
            elif ready.get(state.service) != state.ready:
                yield f"{state.service} {'is ready again' if state.ready else 'is not ready'}"
            ready[state.service] = state.ready


@contextmanager
def services_up(
    root: str | Path,
    names: Sequence[str],
    *,
    caller: Mapping[str, str],
    options: Options,
    foreground: bool,
    progress: Progress,
) -> Iterator[Up]:
    """Start these services, or all of the project, and wait until they are ready.

    Those that are up stay as they are. They stay up when the block is left;
    in the `foreground` they end with it, or with this process.

    Raises:
        UsageError: there is no such service, or one is up in another way than is asked for.
        CleanroomError: one cannot be started; those that were not up before end again.
    """
    refuse_recursion(caller)
    asked = _Asked.of(root, names, caller, options)
    # until it is told to stay it ends with this process, wherever that is interrupted
    owner = process_name(os.getpid())
    config = msgspec.structs.replace(asked.config, owner=owner, foreground=foreground)
    with opened_project(asked.plan.root) as project, started_server(config) as server:
        if foreground and not server.started:
            raise UsageError(
                "CR-SESSION-009",
                f"services of this project are up already: {server.id}",
                hint="`cleanroom-engine down` ends them, with their data",
            )
        ending = server.started
        try:
            for line in _dead_servers(project, config.key, server.id):
                progress(line)
            _start(server, asked, progress)
            up = Up(server, _services_of(server, [recipe.name for recipe in asked.recipes]))
            ending = foreground
            server.keep()
            yield up
        finally:
            if ending:
                with suppress(ServiceFailed):
                    server.end()


def services_down(
    root: str | Path,
    names: Sequence[str],
    *,
    caller: Mapping[str, str],
    options: Options,
    progress: Progress,
) -> EndedServices:
    """End these services, or all, remove their data, and see that nothing is left.

    Their replicas, and services that depend on them, end too. Where nothing is up nothing happens.

    Raises:
        ServiceFailed: the process that holds them does not answer or does not end.
    """
    folder = Path(root).absolute()
    backend = service_backend(_backend(folder, caller, options))
    with found_server(str(cache_folder(caller) / "runs"), str(folder), backend) as server:
        with suppress(OSError), Folder.at(folder) as project:
            key = up_key(str(folder), backend)
            for line in _dead_servers(project, key, server.id if server else ""):
                progress(line)
        if server is None:
            return EndedServices()
        up = server.published()
        ending = _with_dependents([canonical(name) for name in names], up)
        for name in dict.fromkeys(map(canonical, names)):
            if name not in ending:
                progress(f"{name} is not up")
        if not names or len(ending) == len(up):
            left = server.end()
            ended = tuple(each.name for each in up)
            return EndedServices(id=server.id, ended=ended, whole=True, left=left)
        server.unpublish(ending)
        return EndedServices(id=server.id, ended=ending)


# --- up


class _Asked(msgspec.Struct, frozen=True):
    """The services that are to be up, and how."""

    plan: Plan
    recipes: tuple[Recipe, ...]
    caller: Mapping[str, str]
    places: CachePlaces
    config: ServerConfig

    @classmethod
    def of(
        cls, root: str | Path, names: Sequence[str], caller: Mapping[str, str], options: Options
    ) -> _Asked:
        """
        Raises:
            UsageError: there is no such service, or none at all.
            CleanroomError: the project's file, or a program that is missing.
        """
        plan = _plan(Path(root), names, caller, options)
        if not plan.services:
            raise UsageError(
                "CR-SESSION-008",
                "expected a service of the project, found none",
                hint="declare one, such as [cleanroom.services.postgres], or run `up postgres`",
            )
        refuse_machine((plan.root,))
        if plan.backend in registry.CONTAINERS:
            images = filter(None, map(image_of, plan.services))
            registry.require_parts(plan.backend, images, caller=caller, cache=cache_folder(caller))
        places = CachePlaces.of(caller, plan.root, "up", fresh=False)
        recipes = resolve_services(plan, caller, places).required()
        return cls(
            plan, _dependencies_first(recipes), caller, places, server_of_host(plan, caller, places)
        )

    def configuration(self, recipe: Recipe) -> str:
        return configuration_digest(recipe, self.config.policy, self.config.seed)

    def spec(self, name: str) -> ServiceSpec:
        return next(spec for spec in self.plan.services if spec.name == name)

    def resolve(self, spec: ServiceSpec) -> Recipe:
        """The recipe of another specification."""
        plan = msgspec.structs.replace(self.plan, services=(spec,))
        return resolve_services(plan, self.caller, self.places).required()[0]


def _plan(root: Path, names: Sequence[str], caller: Mapping[str, str], options: Options) -> Plan:
    from cleanroom.project import load

    overrides = msgspec.structs.replace(options.overrides(), services=tuple(names))
    return load(root, overrides=overrides, caller=caller)


def _dependencies_first(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """The same recipes in their order, but each after those that it depends on."""
    by_name = {recipe.name: recipe for recipe in recipes}
    ordered: dict[str, Recipe] = {}

    def add(recipe: Recipe) -> None:
        for needed in recipe.depends_on:
            if needed in by_name:
                add(by_name[needed])
        ordered.setdefault(recipe.name, recipe)

    for recipe in recipes:
        add(recipe)
    return tuple(ordered.values())


def _start(server: UpServer, asked: _Asked, progress: Progress) -> None:
    """Start what is not up, and wait until all of it is ready.

    Raises:
        UsageError: one is up with another configuration.
        CleanroomError: one cannot be started.
    """
    existing = {service.name: service for service in server.published()}
    for recipe in asked.recipes:
        if recipe.name in existing:
            _refuse_other(existing[recipe.name], asked.configuration(recipe))
    for recipe in asked.recipes:
        if line := _tell_ended(existing.get(recipe.name)):
            progress(line)
        configuration = asked.configuration(recipe)
        with published(asked.spec(recipe.name), recipe, configuration, asked.resolve) as made:
            server.publish(recipe.name, *made)
    waiting = {recipe.name for recipe in asked.recipes}
    for state in server.states():
        if state.failure is not None:
            raise state.failure.to_error()
        if state.ready and state.service in waiting:
            waiting.remove(state.service)
            progress(_described(server, state.service))
        if not waiting:
            return


def _refuse_other(service: PublishedService, configuration: str) -> None:
    """
    Raises:
        UsageError: the service has another configuration, and data.
    """
    fails_anyhow = service.failure is not None and not service.has_data
    if service.configuration == configuration or fails_anyhow:
        return
    raise UsageError(
        "CR-SESSION-010",
        f"service {service.name!r} is up with another configuration than the project has now",
        hint=f"`cleanroom-engine down {service.name}` ends it, with its data",
    )


def _tell_ended(service: PublishedService | None) -> str:
    if service is None or service.failure is None:
        return ""
    kept = ", with its data" if service.has_data else ""
    return f"{service.name} had ended: {service.failure.message}; it is started again{kept}"


def _described(server: UpServer, name: str) -> str:
    service = next(each for each in server.published() if each.name == name)
    at = ", ".join(f"{HOST}:{port}" for port in service.ports) or "no port"
    again = ""
    if service.restarts:
        last = service.last_error.partition("\n")[0]
        again = f"; started {service.restarts + 1} times, since {last}"
    return " ".join(filter(None, (name, service.version, "on", at))) + again


def _services_of(server: UpServer, names: Sequence[str]) -> HostServices:
    by_name = {service.name: service for service in server.published()}
    chosen = [by_name[name] for name in names if name in by_name]
    merged: dict[str, str] = {}
    # where two have the same variable the first named wins, as in phases
    for service in reversed(chosen):
        merged.update(service.variables)
    return HostServices(
        id=server.id,
        services=tuple(
            HostService(
                name=service.name,
                version=service.version,
                host=HOST,
                ports=service.ports,
                log=service.log,
            )
            for service in chosen
        ),
        variables=merged,
    )


def _dead_servers(project: Folder, key: str, living: str) -> Iterator[str]:
    """A sentence for each server that ended without `down`. Each is named once."""
    with suppress(OSError), project.folder(SESSIONS) as sessions:
        for evidence in unmarked(sessions, "up", key):
            name = evidence.path.name
            if name == living:
                continue
            mark_ended(evidence)
            yield (
                f"{name} ended without `down`, and with it its services and their data; "
                f"what they said is in {SESSIONS}/{name}/logs"
            )


# --- down


def _backend(root: Path, caller: Mapping[str, str], options: Options) -> str:
    """Services can be ended also where the project's file does not stand any more."""
    if options.backend:
        return options.backend
    with suppress(CleanroomError):
        return _plan(root, (), caller, options).backend
    return "auto"


def _with_dependents(names: Sequence[str], up: Sequence[PublishedService]) -> tuple[str, ...]:
    """Those of `names` that are up, their replicas, and all that depend on them."""
    found = {service.name for service in up if {service.name, service.replica_of} & set(names)}
    while more := {each.name for each in up if found & set(each.depends_on)} - found:
        found |= more
    return tuple(service.name for service in up if service.name in found)
