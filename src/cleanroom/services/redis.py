"""Valkey or Redis: one server per run, with a password of its own, on a unix socket.

It writes nothing to disk, unless the project says `appendonly`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import ServiceSpec
from cleanroom.services.base import DATA, PRIVATE, Probe, Recipe, run_folder
from cleanroom.services.common import (
    base_variables,
    fact_names,
    further_variables,
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
        "user",
    ]
)
MODULES = frozenset(["enable-module-command", "loadmodule", "loadmodule-ex"])
USER_NAME = re.compile(r"[A-Za-z_][\w.-]{0,62}")
# Rules that say what a user may do; those that say who it is, and with which password, are ours.
ACL_RULE = re.compile(r"[~%&@+-][\x21-\x7e]+|(all|reset)(keys|channels)|(all|no)commands")


def recipe(
    spec: ServiceSpec, programs: Programs, *, secrets: Callable[[], str], port: int
) -> Recipe:
    """How to run this server once. Phases find it at 127.0.0.1:`port`.

    Raises:
        ProjectError: the project sets an option that it may not set.
    """
    refuse_reserved(spec, RESERVED, r"[a-z][a-z0-9-]*")
    _check_modules(spec)
    _check_users(spec)
    password = secrets()
    users = {user: secrets() for user in spec.users}
    to = f"unix:{run_folder(spec.name)}/redis.sock"
    return Recipe(
        **server_fields(spec, programs),
        variables={**base_variables(), **spec.variables},
        files={"redis.conf": _configuration(spec, password, users)},
        main=(programs.server, f"{PRIVATE}/redis.conf"),
        probe=Probe(kind="resp", to=to, password=password),
        stop_signal=9,  # there is nothing to save, and TERM is looked at ten times a second only
        port=port,
        to=to,
        phase_variables=_phase_variables(spec, port, password, users),
        secrets=(password, *users.values()),
    )


def _phase_variables(
    spec: ServiceSpec, port: int, password: str, users: Mapping[str, str]
) -> dict[str, str]:
    url = f"redis://:{password}@127.0.0.1:{port}/{DATABASE}"
    facts = {
        "host": "127.0.0.1",
        "port": str(port),
        "user": USER,
        "password": password,
        "database": DATABASE,
        "url": url,
    }
    further = {
        f"user_{user}_url": f"redis://{user}:{word}@127.0.0.1:{port}/{DATABASE}"
        for user, word in users.items()
    }
    further |= {f"user_{user}_password": word for user, word in users.items()}
    return {
        **further_variables(spec.name, further),
        "REDIS_URL": url,
        **location_variables(spec.name, port, url),
        **named_variables(spec.env, {**fact_names(further), **facts}),
    }


def _check_modules(spec: ServiceSpec) -> None:
    for name in spec.options:
        if name.lower() in MODULES:
            raise ProjectError(
                "CR-SERVICE-005",
                f"cleanroom.services.{spec.name}.options.{name}: this server loads no modules",
                hint="a server that brings them can be a service of your own, with its command",
                where=str(spec.origin or ""),
            )


def _check_users(spec: ServiceSpec) -> None:
    for user, rules in spec.users.items():
        key = f"cleanroom.services.{spec.name}.users.{user[:80]}"
        if user == USER or not USER_NAME.fullmatch(user):
            raise ProjectError(
                "CR-SERVICE-005",
                f"{key}: expected a name of letters, digits, '_', '-' and '.', and not {USER!r}",
                hint="choose another name",
                where=str(spec.origin or ""),
            )
        wrong = [rule for rule in rules.split() if not ACL_RULE.fullmatch(rule)]
        if wrong or not rules.isprintable():
            raise ProjectError(
                "CR-SERVICE-005",
                f"{key}: expected rules such as '~app:* +@read', found {' '.join(wrong)[:80]!r}",
                hint="the engine switches the user on and makes its password",
                where=str(spec.origin or ""),
            )


def _configuration(spec: ServiceSpec, password: str, users: Mapping[str, str]) -> str:
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
    lines = [f"{name} {_value(value)}\n" for name, value in settings.items()]
    lines += [f"user {user} on >{word} {spec.users[user]}\n" for user, word in users.items()]
    return "".join(lines)


def _value(value: str) -> str:
    """A value as redis.conf reads it.

    Plain words are not quoted, since some settings take several.
    """
    if re.fullmatch(r"[\w.:/ -]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
