"""Parts of the recipes of all kinds: fields, variables, checks of a project's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import TypedDict

from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import ServiceKind, ServiceSpec
from cleanroom.services.base import DATA
from cleanroom.services.programs import Programs


class ServerFields(TypedDict):
    """Fields of the recipe of a built-in server that its kind does not change."""

    name: str
    kind: ServiceKind
    version: str
    image: str
    server: str
    server_sha256: str
    programs: tuple[str, ...]
    env: dict[str, str]
    restarts_max: int
    restart_window_seconds: float


def server_fields(spec: ServiceSpec, programs: Programs) -> ServerFields:
    """The fields of a recipe that follow from the specification and the server's programs."""
    return {
        "name": spec.name,
        "kind": spec.kind,
        "version": programs.version,
        "image": spec.image,
        "server": programs.server,
        "server_sha256": programs.sha256,
        "programs": programs.folders,
        "env": dict(spec.env),
        "restarts_max": spec.restarts_max,
        "restart_window_seconds": spec.restart_window_seconds,
    }


def base_variables() -> dict[str, str]:
    """The environment variables of a service's processes: the same on every machine."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": DATA,
        "TMPDIR": "/tmp",  # noqa: S108 - the environment's own
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
    }


def location_variables(name: str, port: int, url: str) -> dict[str, str]:
    """CLEANROOM_<NAME>_HOST, _PORT and _URL."""
    prefix = _prefix(name)
    return {f"{prefix}_HOST": "127.0.0.1", f"{prefix}_PORT": str(port), f"{prefix}_URL": url}


def further_variables(name: str, facts: Mapping[str, str]) -> dict[str, str]:
    """Variables for further databases and users: CLEANROOM_<NAME>_<FACT>."""
    prefix = _prefix(name)
    return {f"{prefix}_{fact.upper()}": value for fact, value in fact_names(facts).items()}


def fact_names(facts: Mapping[str, str]) -> dict[str, str]:
    """Facts under names that `{fact}` and variables can have."""
    return {re.sub(r"\W", "_", fact): value for fact, value in facts.items()}


def _prefix(name: str) -> str:
    return "CLEANROOM_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


def named_variables(env: Mapping[str, str], facts: Mapping[str, str]) -> dict[str, str]:
    """A service's `env` for phases: each `{fact}` of its values filled in.

    Other braces stay as they are, since a value may be JSON.
    """
    return {
        name: re.sub(r"\{(\w+)\}", lambda found: facts.get(found[1], found[0]), value)
        for name, value in env.items()
    }


def refuse_reserved(spec: ServiceSpec, reserved: Set[str], name_pattern: str) -> None:
    """Check the server settings of a project.

    `reserved` are settings that the engine decides, such as where the server listens and keeps
    its state; `name_pattern` is a regular expression for names of settings.

    Raises:
        ProjectError: the project sets a reserved one, one that is no name of a setting,
            or a value of several lines.
    """
    for name, value in spec.options.items():
        key = f"cleanroom.services.{spec.name}.options.{name}"
        where = str(spec.origin or "")
        if name.lower() in reserved:
            raise ProjectError(
                "CR-SERVICE-005",
                f"{key}: this setting is the engine's",
                hint="remove it",
                where=where,
            )
        if not re.fullmatch(name_pattern, name):
            raise ProjectError(
                "CR-SERVICE-005",
                f"{key}: expected the name of a server setting, got {name!r}",
                hint="correct it",
                where=where,
            )
        if not value.isprintable():
            raise ProjectError(
                "CR-SERVICE-005",
                f"{key}: expected one line of printable text, got {value!r}",
                hint="correct it",
                where=where,
            )
