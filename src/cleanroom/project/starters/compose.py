"""From a compose file's services to ours: built-in ones where we have them, generic ones with
their image, and the names of variables that its applications read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from cleanroom.project.services import BUILT_IN, NAME
from cleanroom.project.starters.base import Starter, StarterService
from cleanroom.project.starters.compose_file import ComposeFile, ComposeService

# The last part of an image's name -> the built-in service that it is.
_KINDS = {
    **dict.fromkeys(("postgres", "postgresql", "postgis", "pgvector", "timescaledb"), "postgres"),
    **dict.fromkeys(("redis", "valkey"), "redis"),
}
_EXTENDED = ("postgis", "pgvector", "timescaledb")
_PORTS = {
    "postgres": 5432,
    "redis": 6379,
    "mysql": 3306,
    "mariadb": 3306,
    "mongo": 27017,
    "rabbitmq": 5672,
    "memcached": 11211,
    "elasticsearch": 9200,
    "opensearch": 9200,
    "nats": 4222,
    "minio": 9000,
    "mailpit": 1025,
    "mailhog": 1025,
    "kafka": 9092,
    "localstack": 4566,
}


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOCATIONS = re.compile(r"HOST|SERVER|ADDR|ENDPOINT|BROKER|URL|URI|NODE", re.IGNORECASE)


class Taken(NamedTuple):
    """What is taken over from a compose file."""

    services: tuple[StarterService, ...]
    backend: str  # "docker" where a phase needs a service that is known by its image only
    phases: Mapping[str, tuple[str, ...]]  # folder of an application -> services of its tests
    variables: Mapping[str, Mapping[str, str]]  # the same -> variables of its phases
    comments: tuple[str, ...]


class _Backing(NamedTuple):
    """A service that applications use."""

    service: ComposeService
    kind: str  # "" for a generic one
    port: int


def taken_over(file: ComposeFile) -> Taken:
    """What the file's services are here. One that is built from a folder is an application."""
    applications = [each for each in file.services.values() if each.folder is not None]
    backings = {name: _backing(each) for name, each in file.services.items() if each.folder is None}
    usable = {name: each for name, each in backings.items() if not _obstacle(each)}
    comments = [f"{name}: {_obstacle(each)}" for name, each in backings.items() if _obstacle(each)]
    comments += [
        f"{name}: its `command` is not taken over, {each.kind} is started in its own way"
        for name, each in usable.items()
        if each.kind and each.service.command
    ]
    comments += [f"{key}: not followed" for key in file.unread]
    env: dict[str, dict[str, str]] = {name: {} for name in usable}
    phases: dict[str, tuple[str, ...]] = {}
    variables: dict[str, dict[str, str]] = {}
    for application in applications:
        folder = application.folder or ""
        sorted_variables = _sort_variables(application, usable)
        for service, named in sorted_variables.env.items():
            env[service].update(named)
        variables.setdefault(folder, {}).update(sorted_variables.plain)
        used = {*application.needs, *sorted_variables.env}
        own = (name for name in usable if name in used)
        phases[folder] = tuple(dict.fromkeys((*phases.get(folder, ()), *own)))
        comments += [
            f"{application.name}: {name} is not taken over, its value is of the container"
            for name in sorted_variables.unclear
        ]
        comments += [
            f"{service}: it asks for a password, other than the file's: {name} and REDIS_URL have "
            "it, and an application that reads neither is refused"
            for name, service in sorted_variables.added.items()
        ]
    if not applications:
        phases[""] = tuple(name for name, each in usable.items() if not each.service.optional)
    services = tuple(
        _service(each, env[name], alone=not applications) for name, each in usable.items()
    )
    named_services = {name for names in phases.values() for name in names}
    needs_image = any(each.image_only and each.name in named_services for each in services)
    return Taken(
        services, "docker" if needs_image else "", phases, variables, tuple(dict.fromkeys(comments))
    )


def applied(starters: Mapping[str, Starter], taken: Taken) -> dict[str, Starter]:
    """The starters, whose tests name the services of the applications in their folders."""
    found = dict(starters)
    for application, services in taken.phases.items():
        for folder in _folders_of(application, starters):
            found[folder] = _with_services(
                found[folder], services, taken.variables.get(application, {})
            )
    return found


def _folders_of(application: str, starters: Mapping[str, Starter]) -> list[str]:
    """The folders that an application is in: its own, else the one around it, else all."""
    around = [
        folder
        for folder in starters
        if folder == application or not folder or application.startswith(f"{folder}/")
    ]
    return [max(around, key=len)] if around else list(starters)


def _with_services(
    starter: Starter, services: tuple[str, ...], variables: Mapping[str, str]
) -> Starter:
    phases = tuple(
        msgspec.structs.replace(
            phase, containers=tuple(dict.fromkeys((*phase.containers, *services)))
        )
        if phase.name == "test" and phase.commands
        else phase
        for phase in starter.phases
    )
    merged = {**variables, **starter.variables}
    return msgspec.structs.replace(starter, phases=phases, variables=merged)


def _backing(service: ComposeService) -> _Backing:
    image = re.split(r"[:@]", service.image.rpartition("/")[2])[0]
    kind = _KINDS.get(image, "")
    inside = service.ports[0].inside if service.ports else 0
    usual = _PORTS.get(kind or image, 0)
    return _Backing(service, kind, usual if kind else inside or usual)


def _obstacle(backing: _Backing) -> str:
    """Why a service is not taken over; empty where it is."""
    if not NAME.fullmatch(backing.service.name):
        return "not taken over, a service of ours has no such name"
    return "" if backing.kind or _ready(backing) else "not taken over, it has no port"


def _ready(backing: _Backing) -> dict[str, object]:
    """What tells that a generic service is ready; empty where nothing does."""
    if backing.port:
        return {"tcp": backing.port}
    health = backing.service.health
    if not health:
        return {}
    return {"command": health if isinstance(health, str) else list(health)}


def _service(backing: _Backing, env: Mapping[str, str], *, alone: bool) -> StarterService:
    service = backing.service
    keys: dict[str, object] = {}
    comment = ""
    if backing.kind:
        if BUILT_IN.get(service.name) != backing.kind:
            keys["kind"] = backing.kind
        if any(name in service.image for name in _EXTENDED):
            comment = f"{service.image}: only container backends have its extensions"
    keys["image"] = service.image
    if not backing.kind:
        if service.command:
            command = service.command
            keys["command"] = command if isinstance(command, str) else list(command)
        keys["ready"] = _ready(backing)
        if service.environment:
            keys["variables"] = dict(service.environment)
        comment = "An image only: the embedded backend needs its command and a program of the host"
    # Without an application in the file the project reaches it from the host.
    published = service.ports[0].published if service.ports and alone else 0
    if published and published != backing.port:
        keys["port"] = published
    if service.init and backing.kind == "postgres":
        keys["init"] = list(service.init)
    if env:
        keys["env"] = dict(env)
    return StarterService(
        name=service.name, keys=keys, comment=comment, image_only=not backing.kind
    )


class _Variables(NamedTuple):
    """An application's variables."""

    env: dict[str, dict[str, str]]  # service -> its facts by the application's names
    plain: dict[str, str]
    unclear: list[str]  # names of those that mean something in its container only
    added: Mapping[str, str]  # passwords that the file does not have, with the service of each


def _sort_variables(application: ComposeService, backings: Mapping[str, _Backing]) -> _Variables:
    env: dict[str, dict[str, str]] = {}
    hosts: dict[str, str] = {}  # prefix of a variable with a host -> the service
    others: dict[str, str] = {}
    for name, value in application.environment.items():
        if not _NAME.fullmatch(name):
            continue
        service = _service_of(name, value, backings)
        if service:
            env.setdefault(service, {})[name] = _templated(value, backings[service])
            hosts[_prefix(name)] = service
        else:
            others[name] = value
    plain: dict[str, str] = {}
    unclear = []
    for name, value in others.items():
        found = _service_of_part(name, value, backings, hosts)
        if found:
            env.setdefault(found[0], {})[name] = found[1]
        elif value.startswith("/") or "$" in value or not value:
            unclear.append(name)
        else:
            plain[name] = value
    return _Variables(env, plain, unclear, _add_passwords(backings, env, hosts))


def _service_of(name: str, value: str, backings: Mapping[str, _Backing]) -> str:
    """The service whose host this value is, or has in it; a bare word is one by its name only."""
    host = _host(value)
    located = ":" in value or _LOCATIONS.search(name)
    return host if host in backings and located else ""


def _host(value: str) -> str:
    if "://" in value:
        try:
            return urlsplit(value).hostname or ""
        except ValueError:
            return ""
    return value.partition(":")[0]


def _templated(value: str, backing: _Backing) -> str:
    """A URL, host or host:port with what a run fills in."""
    if "://" not in value:
        return "{host}:{port}" if ":" in value else "{host}"
    parts = urlsplit(value)
    user, at, _ = parts.netloc.rpartition("@")
    user += at
    if backing.kind:
        user = "{user}:{password}@" if backing.kind == "postgres" else ":{password}@"
    path = parts.path
    if backing.kind == "postgres" and path.strip("/"):
        path = "/{database}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{user}{{host}}:{{port}}{path}{query}"


def _prefix(name: str) -> str:
    return name.rpartition("_")[0]


def _service_of_part(
    name: str, value: str, backings: Mapping[str, _Backing], hosts: Mapping[str, str]
) -> tuple[str, str] | None:
    """The service that a variable with a port, user, password or database is about."""
    near = hosts.get(_prefix(name))
    for service in [near] if near else list(backings):
        backing = backings[service]
        for pattern, wanted, text in _parts(backing):
            if value and value == wanted and re.search(pattern, name, re.IGNORECASE):
                return service, text
    return None


def _parts(backing: _Backing) -> Iterable[tuple[str, str, str]]:
    """Pattern of a variable's name, its value in the compose file, and what stands for it."""
    yield r"PORT", str(backing.port), "{port}"
    if backing.kind == "postgres":
        own = backing.service.environment
        user = own.get("POSTGRES_USER") or "postgres"
        yield r"PASS|PWD", own.get("POSTGRES_PASSWORD", ""), "{password}"
        yield r"USER", user, "{user}"
        yield r"DB|DATABASE|NAME", own.get("POSTGRES_DB") or user, "{database}"


def _add_passwords(
    backings: Mapping[str, _Backing], env: dict[str, dict[str, str]], hosts: Mapping[str, str]
) -> dict[str, str]:
    """A Redis of ours has a password: where an application reads its host, one is added beside.

    Returns the names of the added variables, with the service of each.
    """
    added: dict[str, str] = {}
    for prefix, service in hosts.items():
        bare = any(
            text == "{host}" and _prefix(name) == prefix for name, text in env[service].items()
        )
        if backings[service].kind == "redis" and bare and prefix:
            name = f"{prefix}_PASSWORD"
            if name not in env[service]:
                added[name] = service
            env[service].setdefault(name, "{password}")
    return added
