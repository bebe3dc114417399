"""Servers of images: program and version, read from the image's labels and variables.

Programs are given by name, and found on the image's own PATH. Nothing is started.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import ServiceKind, ServiceSpec
from cleanroom.services.programs import POSTGRES_PROGRAMS, Programs

DEFAULTS: dict[ServiceKind, str] = {"postgres": "cleanroom/postgres", "redis": "cleanroom/redis"}
VERSION_LABEL, SERVER_LABEL = "cleanroom.version", "cleanroom.server"
# Variables in which the usual images give their version, each with the server's program.
_VERSION_VARIABLES: dict[ServiceKind, Mapping[str, str]] = {
    "postgres": {"PG_VERSION": "postgres", "PG_MAJOR": "postgres"},
    "redis": {"VALKEY_VERSION": "valkey-server", "REDIS_VERSION": "redis-server"},
}


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of an image, as its engine reports it."""

    name: str
    identity: str
    variables: dict[str, str] = {}
    labels: dict[str, str] = {}
    command: tuple[str, ...] = ()  # entry point and its arguments
    working_directory: str = "/"


ImageInspector = Callable[[str], ImageFacts]


def image_of(spec: ServiceSpec) -> str:
    """The image that a service runs in; "" where the project names none and its kind has none."""
    return spec.image or DEFAULTS.get(spec.kind, "")


def programs(spec: ServiceSpec, facts: ImageFacts) -> Programs:
    """The server of a built-in service.

    Raises:
        ProjectError: neither the image nor the project tells the version.
    """
    known = {
        variable: program
        for variable, program in _VERSION_VARIABLES[spec.kind].items()
        if variable in facts.variables
    }
    version = (
        facts.labels.get(VERSION_LABEL)
        or next((facts.variables[variable] for variable in known), "")
        or spec.version
    )
    match = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    if match is None:
        raise ProjectError(
            "CR-SERVICE-008",
            (
                f"cleanroom.services.{spec.name}.image: image {facts.name!r} does not tell the "
                "version of its server"
            ),
            hint=f'add version = "..." to [cleanroom.services.{spec.name}]',
            where=str(spec.origin or ""),
        )
    server = facts.labels.get(SERVER_LABEL) or next(
        iter(known.values()), "postgres" if spec.kind == "postgres" else "redis-server"
    )
    helpers = {name: name for name in POSTGRES_PROGRAMS[1:]} if spec.kind == "postgres" else {}
    return Programs(
        server=server,
        folders=(),
        version=match.group(1),
        sha256=facts.identity.removeprefix("sha256:"),
        source="image",
        helpers=helpers,
    )
