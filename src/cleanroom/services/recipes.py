"""From a project's service specifications to recipes, with this run's credentials."""

from __future__ import annotations

import os
import secrets as randomness
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import msgspec

from cleanroom.model.errors import BackendUnavailable, ProjectError
from cleanroom.model.plan import ServiceKind, ServiceSpec
from cleanroom.services import generic, images, postgres, redis
from cleanroom.services.base import Recipe
from cleanroom.services.extensions import created_extensions, missing_extensions
from cleanroom.services.images import ImageFacts, ImageInspector
from cleanroom.services.postgres_init import InitFile, read_init
from cleanroom.services.programs import (
    Programs,
    all_postgres,
    all_redis,
    find_postgres,
    find_redis,
    has_version,
)
from cleanroom.services.templates import TemplateCache

_FIND: dict[ServiceKind, Callable[[str, str, str, str], Programs]] = {
    "postgres": find_postgres,
    "redis": find_redis,
}
_ALL: dict[ServiceKind, Callable[[str, str, str], Iterator[Programs]]] = {
    "postgres": all_postgres,
    "redis": all_redis,
}
USUAL_PORTS: dict[ServiceKind, int] = {"postgres": postgres.PORT, "redis": redis.PORT}


class _Run(NamedTuple):
    """What the recipes of one run have in common; see `resolve`."""

    caller: Mapping[str, str]
    root: str
    cache: TemplateCache
    tools: Sequence[str]
    secrets: Callable[[], str]


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

    `caller` is the environment of the process that runs us: its PATH, and
    CLEANROOM_POSTGRES_BIN (a folder) and CLEANROOM_REDIS_BIN (a program or its folder), which go
    before every program that is found.
    `tools` are folders that generic services see read-only.
    `secrets` makes a new credential at each call.
    With `image`, which gives an image's facts by its name, servers are those of images, and no
    program of the host is looked for.

    Raises:
        BackendUnavailable: a server's programs are not there.
        ProjectError: what the project asks for is not what is there, or makes no sense.
    """
    run = _Run(caller, root, cache, tools, secrets)
    ports = _ports(specs)
    if image is not None:
        made = [
            _from_image(spec, ports[spec.name], image(_image_name(spec)), run) for spec in specs
        ]
    else:
        finders = _finders(specs, caller, root)
        made = [_from_host(spec, ports[spec.name], finders, run) for spec in specs]
    return tuple(
        msgspec.structs.replace(
            recipe, after=spec.after, depends_on=spec.depends_on, replica_of=spec.replica_of
        )
        for spec, recipe in zip(specs, made, strict=True)
    )


def phase_variables(recipes: Sequence[Recipe]) -> dict[str, str]:
    """The environment variables of a phase that names these services.

    Where two set the same variable (DATABASE_URL), the first named wins.
    """
    merged: dict[str, str] = {}
    for recipe in reversed(recipes):
        merged.update(recipe.phase_variables)
    return merged


def _from_host(
    spec: ServiceSpec,
    port: int,
    finders: Mapping[tuple[ServiceKind, str], Callable[[], Programs]],
    run: _Run,
) -> Recipe:
    """The service with programs of this machine."""
    if spec.kind == "generic":
        return generic.recipe(spec, caller=run.caller, root=run.root, tools=run.tools, port=port)
    return _built_in(spec, port, finders[spec.kind, spec.version](), run)


def _from_image(spec: ServiceSpec, port: int, facts: ImageFacts, run: _Run) -> Recipe:
    """The service with the programs of an image, found on the image's own PATH."""
    if spec.kind == "generic":
        return generic.in_image(spec, facts, root=run.root, port=port)
    made = _built_in(spec, port, images.programs(spec, facts), run)
    variables = {name: value for name, value in made.variables.items() if name != "PATH"}
    return msgspec.structs.replace(made, image=facts.name, variables=variables)


def _built_in(spec: ServiceSpec, port: int, programs: Programs, run: _Run) -> Recipe:
    _check_version(spec, programs, run)
    if spec.kind == "redis":
        return redis.recipe(spec, programs, secrets=run.secrets, port=port)
    init = read_init(spec)
    _check_extensions(spec, programs, init, run)
    return postgres.recipe(
        spec,
        programs,
        init=tuple(file for _, file in init),
        cache=run.cache,
        secrets=run.secrets,
        port=port,
    )


def _finders(
    specs: Sequence[ServiceSpec], caller: Mapping[str, str], root: str
) -> dict[tuple[ServiceKind, str], Callable[[], Programs]]:
    """Look for the programs of all servers at once, by kind and version.

    Each function gives what was found, or raises why nothing was.
    """
    from concurrent.futures import ThreadPoolExecutor

    wanted = {(spec.kind, spec.version) for spec in specs if spec.kind in _FIND}
    with ThreadPoolExecutor(max(len(wanted), 1)) as threads:
        return {
            (kind, version): threads.submit(
                _FIND[kind], *_where(kind, caller, root), version
            ).result
            for kind, version in wanted
        }


def _image_name(spec: ServiceSpec) -> str:
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


def _check_version(spec: ServiceSpec, programs: Programs, run: _Run) -> None:
    if has_version(programs, spec.version):
        return
    known = [programs]
    if programs.source != "image":
        with suppress(BackendUnavailable):
            known = list(_ALL[spec.kind](*_where(spec.kind, run.caller, run.root)))
    found = ", ".join(f"{each.version} ({each.source}: {each.server})" for each in known)
    raise ProjectError(
        "CR-SERVICE-003",
        f"cleanroom.services.{spec.name}.version: expected {spec.version}, found {found}",
        hint=_version_hint(spec, programs),
        where=str(spec.origin or ""),
    )


def _check_extensions(
    spec: ServiceSpec, programs: Programs, init: Sequence[tuple[str, InitFile]], run: _Run
) -> None:
    """See that the server has the extensions that the init files create, before it is started."""
    asked = [
        extension
        for path, file in init
        for extension in created_extensions(os.path.relpath(path, run.root), file.text)
    ]
    if not asked or set(programs.extensions or ()) >= {extension.name for extension in asked}:
        return
    others: list[Programs] = []
    with suppress(BackendUnavailable):
        found = all_postgres(run.caller.get("PATH", ""), root=run.root)
        others += (other for other in found if other.server != programs.server)
    if error := missing_extensions(spec.name, asked, programs, others):
        raise error


def _version_hint(spec: ServiceSpec, programs: Programs) -> str:
    if programs.source == "image":
        return "correct the version, or name an image that has it"
    major = spec.version.partition(".")[0]
    hint = f"correct the version, or let CLEANROOM_{spec.kind.upper()}_BIN name a {spec.version}"
    if spec.kind == "postgres":
        hint += f"; Debian's and PostgreSQL's own packages call it postgresql-{major}"
    return hint


def _where(kind: ServiceKind, caller: Mapping[str, str], root: str) -> tuple[str, str, str]:
    """What the finders take: the caller's PATH, the server that it names, the project."""
    return caller.get("PATH", ""), caller.get(f"CLEANROOM_{kind.upper()}_BIN", ""), root


def _ports(specs: Sequence[ServiceSpec]) -> dict[str, int]:
    """The port of each service on 127.0.0.1 of phases: the one that the project names,
    else its usual one, else the next free one.
    """
    taken: dict[int, str] = {}
    for spec in specs:
        for port in filter(None, (spec.port, *spec.ports.values())):
            if port in taken:
                raise ProjectError(
                    "CR-SERVICE-007",
                    (
                        f"cleanroom.services.{spec.name}.port: expected a port of its own, "
                        f"{port} is that of {taken[port]!r}"
                    ),
                    hint="give one of them another port",
                    where=str(spec.origin or ""),
                )
            taken[port] = spec.name
    ports = {spec.name: spec.port for spec in specs if spec.port}
    further = {port for spec in specs for port in spec.ports.values()}
    for spec in specs:
        port = ports.get(spec.name) or USUAL_PORTS.get(spec.kind) or generic.inside_port(spec.ready)
        while port and (taken.setdefault(port, spec.name) != spec.name or port in further):
            port += 1
        ports[spec.name] = port
    return ports
