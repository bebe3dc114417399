"""From what a project asks for to what will be run: one recipe per service,
with this run's credentials.
"""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable, Mapping, Sequence

import msgspec

from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import ServiceKind, ServiceSpec
from cleanroom.services import generic, images, postgres, redis
from cleanroom.services.base import Recipe
from cleanroom.services.images import ImageFacts, ImageInspector
from cleanroom.services.programs import Programs, find_postgres, find_redis
from cleanroom.services.templates import TemplateCache

USUAL_PORTS: dict[ServiceKind, int] = {"postgres": postgres.PORT, "redis": redis.PORT}


def new_secret() -> str:
    """A password for one run: 192 random bits, safe in URLs, shells,
    SQL and configuration files.
    """
    return randomness.token_hex(24)


def resolve(
    specs: Sequence[ServiceSpec],
    *,
    caller: Mapping[str, str],
    root: str,
    cache: TemplateCache,
    tools: Sequence[str] = (),
    secrets: Callable[[], str] = new_secret,
    image: ImageInspector | None = None,
) -> tuple[Recipe, ...]:
    """One recipe per service, in order.

    Blocks (looks for programs, reads init files): call it in a worker thread.

    `caller` is the environment of whoever runs us: its PATH,
    and CLEANROOM_POSTGRES_BIN (a folder) and CLEANROOM_REDIS_BIN (a program or its folder),
    which go before anything that is found.
    `tools` are folders that generic services see read-only.
    With `image`, which tells what an image says of itself,
    servers are those of images and nothing of the host is looked at.

    Raises:
        BackendUnavailable: a server's programs are not there.
        ProjectError: what the project asks for is not what is there, or makes no sense.
    """
    found = _found({spec.kind for spec in specs}, caller, root) if image is None else {}
    ports = _ports(specs)
    return tuple(
        _recipe(
            spec,
            ports[spec.name],
            found,
            caller=caller,
            root=root,
            cache=cache,
            tools=tools,
            secrets=secrets,
            image=image,
        )
        for spec in specs
    )


def phase_variables(recipes: Sequence[Recipe]) -> dict[str, str]:
    """What a phase that names these services gets.

    Where two give the same variable (DATABASE_URL), the first named wins.
    """
    merged: dict[str, str] = {}
    for recipe in reversed(recipes):
        merged.update(recipe.phase_variables)
    return merged


def _recipe(
    spec: ServiceSpec,
    port: int,
    found: Mapping[ServiceKind, Callable[[], Programs]],
    *,
    caller: Mapping[str, str],
    root: str,
    cache: TemplateCache,
    tools: Sequence[str],
    secrets: Callable[[], str],
    image: ImageInspector | None,
) -> Recipe:
    if image is not None:
        return _in_image(
            spec, port, image(_named_image(spec)), root=root, cache=cache, secrets=secrets
        )
    if spec.kind == "generic":
        return generic.recipe(spec, caller=caller, root=root, tools=tools, port=port)
    programs = found[spec.kind]()
    _check_version(spec, programs)
    if spec.kind == "redis":
        return redis.recipe(spec, programs, secrets=secrets, port=port)
    return postgres.recipe(
        spec, programs, init=postgres.read_init(spec), cache=cache, secrets=secrets, port=port
    )


def _found(
    kinds: set[ServiceKind], caller: Mapping[str, str], root: str
) -> dict[ServiceKind, Callable[[], Programs]]:
    """The servers' programs, all looked for at once; what was found, or why not,
    is told when each is asked for.
    """
    from concurrent.futures import ThreadPoolExecutor

    finders: dict[ServiceKind, Callable[[str, str, str], Programs]] = {
        "postgres": find_postgres,
        "redis": find_redis,
    }
    with ThreadPoolExecutor(len(finders)) as threads:
        return {
            kind: threads.submit(
                find, caller.get("PATH", ""), caller.get(f"CLEANROOM_{kind.upper()}_BIN", ""), root
            ).result
            for kind, find in finders.items()
            if kind in kinds
        }


def _in_image(
    spec: ServiceSpec,
    port: int,
    facts: ImageFacts,
    *,
    root: str,
    cache: TemplateCache,
    secrets: Callable[[], str],
) -> Recipe:
    """The same service as its image has it; the image's own PATH stands for ours."""
    if spec.kind == "generic":
        return generic.in_image(spec, facts, root=root, port=port)
    programs = images.programs(spec, facts)
    _check_version(spec, programs)
    if spec.kind == "redis":
        made = redis.recipe(spec, programs, secrets=secrets, port=port)
    else:
        made = postgres.recipe(
            spec, programs, init=postgres.read_init(spec), cache=cache, secrets=secrets, port=port
        )
    return msgspec.structs.replace(
        made,
        image=facts.name,
        variables={name: value for name, value in made.variables.items() if name != "PATH"},
    )


def _named_image(spec: ServiceSpec) -> str:
    if name := images.image_of(spec):
        return name
    raise ProjectError(
        "CR-SERVICE-009",
        (
            f"cleanroom.services.{spec.name}: this backend runs services in images, and this one "
            "names none"
        ),
        hint='add image = "NAME", or use backend = "embedded"',
        where=str(spec.origin or ""),
    )


def _check_version(spec: ServiceSpec, programs: Programs) -> None:
    wanted = spec.version.split(".") if spec.version else []
    if programs.version.split(".")[: len(wanted)] != wanted:
        raise ProjectError(
            "CR-SERVICE-003",
            (
                f"cleanroom.services.{spec.name}.version: expected {spec.version}, found "
                f"{programs.version} ({programs.source}: {programs.server})"
            ),
            hint=(
                f"correct the version, or let CLEANROOM_{spec.kind.upper()}_BIN name a "
                f"{spec.version}"
            ),
            where=str(spec.origin or ""),
        )


def _ports(specs: Sequence[ServiceSpec]) -> dict[str, int]:
    """Where phases find each: as asked for, else its usual port, else the next free one."""
    taken: dict[int, str] = {}
    for spec in specs:
        if spec.port in taken:
            raise ProjectError(
                "CR-SERVICE-007",
                (
                    f"cleanroom.services.{spec.name}.port: expected a port of its own, "
                    f"{spec.port} is that of {taken[spec.port]!r}"
                ),
                hint="give one of them another port",
                where=str(spec.origin or ""),
            )
        if spec.port:
            taken[spec.port] = spec.name
    ports = {name: port for port, name in taken.items()}
    for spec in specs:
        port = ports.get(spec.name) or USUAL_PORTS.get(spec.kind) or generic.inside_port(spec.ready)
        while port and taken.setdefault(port, spec.name) != spec.name:
            port += 1
        ports[spec.name] = port
    return ports
