"""The specifications of a service's environments, and where its data lies. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from cleanroom.backends.base import EnvironmentSpec, Mount
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.service import Service
from cleanroom.services import Recipe
from cleanroom.services.base import DATA, PRIVATE, clients_folder, run_folder


def service_spec(context: RunContext, service: Service) -> EnvironmentSpec:
    """The specification of the environment that the service runs in."""
    data = Mount(
        source=str(service_folder(context, service) / "data"),
        target=DATA,
        writable=True,
        above=service.template,
    )
    return _spec(context, service, data)


def prepare_spec(context: RunContext, service: Service, data: Path) -> EnvironmentSpec:
    """The specification of the environment that prepares the service's data in `data`."""
    spec = _spec(context, service, Mount(source=str(data), target=DATA, writable=True))
    inputs = (Mount(source=path, target=path) for path in service.recipe.prepare_inputs)
    return msgspec.structs.replace(
        spec, id=f"prepare-{spec.id}", role="prepare", mounts=(*spec.mounts, *inputs)
    )


def service_folder(context: RunContext, service: Service) -> Path:
    """The folder of the service on the host; of a shared service, that of its sockets."""
    if service.shared is not None:
        return service.shared.folder
    return context.scratch / "services" / service.environment_id


def forwarded_ports(recipe: Recipe) -> tuple[tuple[int, str], ...]:
    """The ports of a service on 127.0.0.1 of phases, each with where it leads to inside."""
    if not recipe.to:
        return ()
    return ((recipe.port, recipe.to), *((port, f"tcp:{port}") for port in recipe.ports))


def client_mounts(recipes: Sequence[Recipe]) -> tuple[Mount, ...]:
    """What a phase is shown of these services' client programs: the links, and where they lead."""
    with_clients = [recipe for recipe in recipes if recipe.clients]
    folders = dict.fromkeys(folder for recipe in with_clients for folder in recipe.programs)
    return (
        *(Mount(source=folder, target=folder) for folder in folders),
        *(
            Mount(source=recipe.clients, target=clients_folder(recipe.name))
            for recipe in with_clients
        ),
    )


def _spec(context: RunContext, service: Service, data: Mount) -> EnvironmentSpec:
    recipe, plan = service.recipe, context.plan
    folder = service_folder(context, service)
    private = str(folder / "private")
    return EnvironmentSpec(
        id=service.environment_id,
        run_id=context.run_id,
        role="service",
        policy=msgspec.structs.replace(
            plan.policy, egress=(), private_egress=msgspec.UNSET, expected=()
        ),
        variables={**service.access.variables, **recipe.variables},
        working_directory=recipe.working_directory,
        mounts=(
            *(Mount(source=program, target=program) for program in recipe.programs),
            data,
            Mount(source=private, target=PRIVATE, writable=True, names_paths=True),
            Mount(source=str(folder / "run"), target=run_folder(recipe.name), writable=True),
            *service.access.mounts,
        ),
        port_forwards=service.access.port_forwards,
        image=recipe.image,
        seed=plan.seed,
    )
