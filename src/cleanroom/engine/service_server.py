"""Which other process is to run a plan's services: ggen's session, or the project's pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cleanroom.backends import registry
from cleanroom.engine.run_settings import CachePlaces
from cleanroom.engine.shared_services.ancestry import ancestors_to_ggen
from cleanroom.engine.shared_services.client import connect
from cleanroom.engine.shared_services.discovery import (
    POOLABLE_KINDS,
    Kind,
    ServerConfig,
    discovery_key,
)
from cleanroom.engine.shared_services.pool import pool_key
from cleanroom.engine.shared_services.up import up_key
from cleanroom.model.errors import UsageError
from cleanroom.model.plan import Plan
from cleanroom.services import Recipe

# by which the other process finds the container engine that this process would find
ENGINE_VARIABLES = ("DOCKER_HOST", "CONTAINER_HOST", "HOME", "XDG_RUNTIME_DIR")


def server_of_run(
    plan: Plan, caller: Mapping[str, str], places: CachePlaces
) -> ServerConfig | None:
    """The server that a run joins; None where the plan has no services.

    It is the session of the ggen that started this process, until that ggen ends; else the
    project's pool.
    """
    if not plan.services:
        return None
    ancestors = ancestors_to_ggen()
    if not ancestors:
        return pool_of_project(plan, caller, places)
    ggen = ancestors[-1]
    key = discovery_key(plan.root, ggen, service_backend(plan.backend))
    config = _config(plan, caller, places, kind="session", key=key)
    return msgspec.structs.replace(config, owner=ggen)


def pool_of_project(
    plan: Plan, caller: Mapping[str, str], places: CachePlaces, idle_seconds: float = 0.0
) -> ServerConfig:
    """The project's pool, which ends when no run has used it for `idle_seconds`; 0: never."""
    key = pool_key(plan.root, service_backend(plan.backend))
    config = _config(plan, caller, places, kind="pool", key=key)
    return msgspec.structs.replace(config, idle_seconds=idle_seconds)


def server_of_host(plan: Plan, caller: Mapping[str, str], places: CachePlaces) -> ServerConfig:
    """The server of the project's services for programs on the host, which `down` ends."""
    key = up_key(plan.root, service_backend(plan.backend))
    return _config(plan, caller, places, kind="up", key=key)


def _config(
    plan: Plan, caller: Mapping[str, str], places: CachePlaces, *, kind: Kind, key: str
) -> ServerConfig:
    backend = service_backend(plan.backend)
    variables: dict[str, str] = {}
    if backend in registry.CONTAINERS:
        variables = {name: caller[name] for name in ENGINE_VARIABLES if name in caller}
    return ServerConfig(
        kind=kind,
        key=key,
        project=plan.project,
        root=plan.root,
        runs=str(places.scratch.parent),
        templates=str(places.templates),
        backend=backend,
        caller=variables,
        policy=plan.policy,
        seed=plan.seed,
    )


def service_backend(backend: str) -> str:
    """The backend on which another process runs services for a run on this one."""
    return backend if backend in registry.CONTAINERS else "embedded"


def poolable_services(plan: Plan) -> frozenset[str]:
    """The names of the services that the project's pool can run.

    Raises:
        UsageError: there is none.
    """
    names = frozenset(
        service.name
        for service in plan.services
        if service.kind in POOLABLE_KINDS and not service.superuser
    )
    if not names:
        superusers = [repr(service.name) for service in plan.services if service.superuser]
        found = "found none that can be pooled"
        if superusers:
            found = f"found {', '.join(superusers)} with superuser = true, which no pool has"
        raise UsageError(
            "CR-SESSION-007",
            f"expected a phase that names a PostgreSQL or a key-value server, {found}",
            hint=(
                "a pool holds these, where the database's role is an ordinary one; other "
                "services start with each run"
            ),
        )
    return names


async def start_pool(config: ServerConfig, run_id: str, recipes: Sequence[Recipe]) -> None:
    """Start the pool unless it runs, and wait until all these services are ready in it.

    Raises:
        CleanroomError: it cannot be started, or a service in it.
    """
    async with connect(config, run_id, recipes, lease=False) as server:
        assert server is not None, "it is started where there is none"
        for service in server.services.values():
            async for state in service.states():
                if state.failure is not None:
                    raise state.failure
                if state.ready:
                    break
