"""Valkey or Redis: one server per run, with a password of its own, on a unix socket.

It writes nothing to disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cleanroom.model.plan import ServiceSpec
from cleanroom.services.base import DATA, PRIVATE, Probe, Recipe, run_folder
from cleanroom.services.common import (
    base_variables,
    location_variables,
    named_variables,
    refuse_reserved,
    server_fields,
)
from cleanroom.services.programs import Programs

PORT = 6379
USER = "default"  # whom a password alone stands for
DATABASE = "0"
RESERVED = frozenset(
    [
        "aclfile",
        "bind",
        "daemonize",
        "dir",
        "include",
        "logfile",
        "pidfile",
        "port",
        "requirepass",
        "supervised",
        "tls-port",
        "unixsocket",
        "unixsocketperm",
    ]
)


def recipe(
    spec: ServiceSpec, programs: Programs, *, secrets: Callable[[], str], port: int
) -> Recipe:
    """How to run this server once. Phases find it at 127.0.0.1:`port`.

    Raises:
        ProjectError: the project sets an option that it may not set.
    """
    refuse_reserved(spec, RESERVED, r"[a-z][a-z0-9-]*")
    password = secrets()
    to = f"unix:{run_folder(spec.name)}/redis.sock"
    return Recipe(
        **server_fields(spec, programs),
        variables={**base_variables(), **spec.variables},
        files={"redis.conf": _configuration(spec, password)},
        main=(programs.server, f"{PRIVATE}/redis.conf"),
        probe=Probe(kind="resp", to=to, password=password),
        stop_signal=9,  # there is nothing to save, and TERM is looked at ten times a second only
        port=port,
        to=to,
        phase_variables=_phase_variables(spec, port, password),
        secrets=(password,),
    )


def _phase_variables(spec: ServiceSpec, port: int, password: str) -> dict[str, str]:
    url = f"redis://:{password}@127.0.0.1:{port}/{DATABASE}"
    facts = {
        "host": "127.0.0.1",
        "port": str(port),
        "user": USER,
        "password": password,
        "database": DATABASE,
        "url": url,
    }
    return {
        "REDIS_URL": url,
        **location_variables(spec.name, port, url),
        **named_variables(spec.env, facts),
    }


def _configuration(spec: ServiceSpec, password: str) -> str:
    ours = {
        "port": "0",
        "unixsocket": f"{run_folder(spec.name)}/redis.sock",
        "unixsocketperm": "777",  # whoever sees the folder may ask; the password decides
        "requirepass": password,
        "dir": DATA,
        "daemonize": "no",
        "loglevel": "notice",
    }
    settings = {"save": "", "appendonly": "no", **spec.options, **ours}
    return "".join(f"{name} {_value(value)}\n" for name, value in settings.items())


def _value(value: str) -> str:
    """A value as redis.conf reads it.

    Plain words are not quoted, since some settings take several.
    """
    if re.fullmatch(r"[\w.:/ -]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
