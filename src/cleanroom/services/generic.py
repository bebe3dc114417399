"""Any other server: the project's command, and its own way to tell that it is ready.

It sees the project's folder and the caller's tools read-only, at their own paths,
and starts in the former.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence

import msgspec

from cleanroom.model.errors import BackendUnavailable, ProjectError
from cleanroom.model.plan import Ready, ServiceSpec
from cleanroom.services.base import Probe, Recipe
from cleanroom.services.common import (
    base_variables,
    fact_names,
    further_variables,
    location_variables,
    named_variables,
)
from cleanroom.services.images import ImageFacts


def recipe(
    spec: ServiceSpec, *, caller: Mapping[str, str], root: str, tools: Sequence[str], port: int
) -> Recipe:
    """How to run this service once.

    Phases find it at 127.0.0.1:`port`; inside it listens where its `ready` says, else there too.

    Raises:
        ProjectError: the command is missing or leads nowhere, or nothing tells when it is ready.
    """
    if not spec.command:
        raise _wrong(
            spec,
            "command",
            "expected the command that runs the service, found none",
            'add command = ["program", "argument"]',
        )
    made = _recipe(spec, port=port, root=root)
    variables = {
        **base_variables(),
        "PATH": _path(spec, caller, root),
        **spec.variables,
    }
    if spec.needs and shutil.which(spec.needs, path=variables["PATH"]) is None:
        raise BackendUnavailable(
            "CR-SERVICE-001",
            f"service {spec.name!r}: {spec.needs} was not found; looked on PATH, in .venv/bin and "
            "/usr/sbin",
            hint=spec.install,
            where=str(spec.origin or ""),
        )
    return msgspec.structs.replace(
        made,
        server=_program(spec, variables["PATH"], root),
        programs=tuple(dict.fromkeys((*tools, root))),
        variables=variables,
    )


def in_image(spec: ServiceSpec, facts: ImageFacts, *, root: str, port: int) -> Recipe:
    """The same from an image: the project's command or else the image's own,
    with the image's variables; it sees the project's folder too.

    Raises:
        ProjectError: neither has a command, or nothing tells when it is ready.
    """
    command = spec.command or facts.command
    if not command:
        raise _wrong(
            spec,
            "command",
            f"expected a command, since image {facts.name!r} has none",
            'add command = ["program", "argument"]',
        )
    made = _recipe(spec, port=port, root=root)
    variables = {**base_variables(), **facts.variables, **spec.variables}
    if "PATH" not in facts.variables and "PATH" not in spec.variables:
        del variables["PATH"]
    return msgspec.structs.replace(
        made,
        image=facts.name,
        server=command[0],
        server_sha256=facts.identity.removeprefix("sha256:"),
        programs=(root,),
        variables=variables,
        main=command,
        working_directory=root if spec.command else facts.working_directory or "/",
    )


def _recipe(spec: ServiceSpec, *, port: int, root: str) -> Recipe:
    """What does not depend on where the program is."""
    if spec.ready is None:
        raise _wrong(
            spec,
            "ready",
            "expected what tells that the service is ready, found none",
            f"add ready = {{ tcp = {port or 8080} }}",
        )
    if spec.ready.http and not _http(spec.ready)[0]:
        raise _wrong(
            spec,
            "ready.http",
            f"expected a port and a path, got {spec.ready.http!r}",
            'write it as ":8080/health"',
        )
    _check_pattern(spec, spec.ready.log)
    listens = inside_port(spec.ready) or port
    url = f"{'http' if spec.ready.http else 'tcp'}://127.0.0.1:{port}"
    return Recipe(
        name=spec.name,
        kind="generic",
        version=spec.version,
        image=spec.image,
        main=spec.command,
        probe=_probe(spec.ready, listens),
        working_directory=root,
        # A line written once says nothing about now, so it is asked for at the start only.
        health_seconds=0.0 if spec.ready.log else 1.0,
        start_timeout_seconds=spec.ready.timeout_seconds,
        port=port,
        ports=tuple(spec.ports.values()),
        to=f"tcp:{listens}" if listens else "",
        phase_variables=_phase_variables(spec, port, url),
        restarts_max=spec.restarts_max,
        restart_window_seconds=spec.restart_window_seconds,
    )


def inside_port(ready: Ready | None) -> int:
    """The port that `ready` names, 0 where it names none."""
    if ready is None:
        return 0
    return _http(ready)[0] if ready.http else ready.tcp


def _probe(ready: Ready, port: int) -> Probe:
    if ready.http:
        return Probe(kind="http", to=f"tcp:{port}", path=_http(ready)[1])
    if ready.log:
        return Probe(kind="log", pattern=ready.log)
    if ready.command:
        return Probe(kind="exec", argv=("sh", "-c", ready.command))
    return Probe(kind="tcp", to=f"tcp:{port}")


def _http(ready: Ready) -> tuple[int, str]:
    """Port and path of ":8080/health", "8080/health" or "http://127.0.0.1:8080/health";
    port 0 where there is none.
    """
    match = re.fullmatch(r"(?:http://)?(?:[^:/]*:)?(\d{1,5})(/.*)?", ready.http)
    return (int(match.group(1)), match.group(2) or "/") if match else (0, "")


def _check_pattern(spec: ServiceSpec, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise _wrong(
            spec,
            "ready.log",
            f"expected a regular expression, got {pattern!r}: {error}",
            "escape what is meant literally",
        ) from error


def _path(spec: ServiceSpec, caller: Mapping[str, str], root: str) -> str:
    """The caller's PATH. Servers of the distribution are in /usr/sbin, which users do not have on
    it, and Python's own may be in the project's virtual environment.
    """
    folders = [caller.get("PATH") or base_variables()["PATH"], "/usr/local/sbin", "/usr/sbin"]
    own = [os.path.join(root, ".venv/bin")] if spec.needs else []
    return os.pathsep.join((*own, *folders))


def _program(spec: ServiceSpec, path: str, root: str) -> str:
    name = spec.command[0]
    found = shutil.which(os.path.join(root, name) if "/" in name else name, path=path)
    if found is None and spec.after and "/" in name:
        return os.path.join(root, name)
    if found is None:
        where = f"relative to {root}" if "/" in name else "on PATH"
        raise _wrong(
            spec,
            "command",
            f"expected a program, found none called {name!r} {where}",
            "install it, or correct the name",
        )
    return found


def _phase_variables(spec: ServiceSpec, port: int, url: str) -> dict[str, str]:
    further = {f"port_{name}": str(number) for name, number in spec.ports.items()}
    facts = {**fact_names(further), "host": "127.0.0.1", "port": str(port), "url": url}
    filled = {**further_variables(spec.name, further), **named_variables(spec.env, facts)}
    return {**location_variables(spec.name, port, url), **filled} if port else filled


def _wrong(spec: ServiceSpec, key: str, message: str, hint: str) -> ProjectError:
    return ProjectError(
        "CR-SERVICE-006",
        f"cleanroom.services.{spec.name}.{key}: {message}",
        hint=hint,
        where=str(spec.origin or ""),
    )
