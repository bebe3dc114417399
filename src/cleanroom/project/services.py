"""The services that a project declares, and those that its phases name.

Checks files, reads none.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from cleanroom.model.errors import UsageError
from cleanroom.model.plan import Ready, ServiceKind, ServiceSpec
from cleanroom.project.everyday_services import completed, everyday_services
from cleanroom.project.keys import ReadyKeys, ServiceKeys
from cleanroom.project.settings import Layer
from cleanroom.project.source import Node, nearest

# Name as people write it -> the built-in service.
BUILT_IN: dict[str, ServiceKind] = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "redis": "redis",
    "valkey": "redis",
}

# It is a host name inside, part of variables' names, and the name of a folder.
NAME_MAX = 63
NAME = re.compile(rf"\w[\w.-]{{0,{NAME_MAX - 1}}}")


def canonical(name: str) -> str:
    """A built-in service has one name, whatever it is called."""
    return BUILT_IN.get(name, name)


def named(layer: Layer) -> tuple[str, ...]:
    """The services of a phase, each once.

    Raises:
        ProjectError: a name is neither built in nor declared.
    """
    known = {*BUILT_IN, *(layer.settings.services or {})}
    if not known >= set(layer.settings.containers or ()):
        known.update(everyday_services())
    for index, name in enumerate(layer.settings.containers or ()):
        if name not in known:
            close = nearest(name, known)
            node = layer.nodes["containers"].child(index)
            hint = (
                f"did you mean {close!r}?"
                if close
                else "declare it under [cleanroom.services.NAME]"
            )
            raise node.error(
                "CR-PROJECT-008",
                f"expected {', '.join(sorted(known))}, found {name[:80]!r}",
                hint=hint,
            )
    names = [canonical(name) for name in layer.settings.containers or ()]
    return _with_dependencies(names, layer)


def for_host(layer: Layer, used: Iterable[str], names: Sequence[str]) -> tuple[str, ...]:
    """The services that `up` starts, with those that they depend on: these names, or all that are
    declared or `used` where none is given.

    Raises:
        UsageError: there is no service of a name.
        ProjectError: one depends on itself, or on what is no service.
    """
    declared = [canonical(name) for name in layer.settings.services or {}]
    own = dict.fromkeys((*used, *declared))
    known = {*own, *BUILT_IN, *everyday_services()}
    for name in names:
        if name not in known:
            close = nearest(name, known)
            raise UsageError(
                "CR-SESSION-008",
                f"expected a service of the project, found {name[:80]!r}",
                hint=f"did you mean {close!r}?" if close else f"services: {', '.join(own)}",
            )
    return _with_dependencies([canonical(name) for name in names] or list(own), layer)


def _with_dependencies(names: Iterable[str], layer: Layer) -> tuple[str, ...]:
    """These services with their replicas, and those that they depend on; each once.

    Raises:
        ProjectError: one depends on itself, or on what is no service.
    """
    declared = {canonical(name): keys for name, keys in (layer.settings.services or {}).items()}
    found: dict[str, None] = {}
    explored: set[str] = set()
    for name in names:
        found.update(dict.fromkeys(_replica_names(name, declared.get(name))))
    for name in names:
        _add_dependencies(name, declared, layer, (found, explored), ())
    return tuple(found)


def _add_dependencies(
    name: str,
    declared: Mapping[str, ServiceKeys],
    layer: Layer,
    collected: tuple[dict[str, None], set[str]],
    above: tuple[str, ...],
) -> None:
    """Collect what the service depends on; `above` are those that depend on it.

    `collected` has what was found, and those whose dependencies are all in it.
    """
    found, explored = collected
    keys = declared.get(name)
    for needed in map(canonical, (keys.depends_on if keys else None) or ()):
        chain = (*above, name)
        node = layer.nodes["services"]
        if needed in chain:
            raise node.error(
                "CR-PROJECT-018",
                "expected services that do not wait for each other, found "
                f"{' -> '.join((*chain, needed))}",
                hint="take one depends_on away",
                at_key=True,
            )
        if needed not in {*declared, *BUILT_IN, *everyday_services()}:
            close = nearest(needed, {*declared, *BUILT_IN, *everyday_services()})
            raise node.error(
                "CR-PROJECT-008",
                f"{name}.depends_on: expected a service, found {needed[:80]!r}",
                hint=f"did you mean {close!r}?" if close else "declare it",
                at_key=True,
            )
        found.update(dict.fromkeys(_replica_names(needed, declared.get(needed))))
        if needed not in explored:
            _add_dependencies(needed, declared, layer, (found, explored), chain)
    explored.add(name)


def _replica_names(name: str, keys: ServiceKeys | None) -> tuple[str, ...]:
    count = (keys.replicas if keys else None) or 1
    return (name, *(f"{name}-{number}" for number in range(2, count + 1)))


def check_after(
    layer: Layer, order: Sequence[str], uses: Mapping[str, Sequence[str]], phases: Collection[str]
) -> None:
    """See that each service that a phase builds is built before a phase needs it.

    `order` are the names of the phases that run, `uses` the services of each, `phases` all of the
    project.

    Raises:
        ProjectError: the phase comes later, needs the service itself, or does not exist.
    """
    for name, keys in (layer.settings.services or {}).items():
        if not keys.after:
            continue
        node = _places(layer)[name]
        if keys.after not in phases:
            close = nearest(keys.after, phases)
            raise node.error(
                "CR-PROJECT-018",
                f"after: expected a phase, found {keys.after[:80]!r}",
                hint=f"did you mean {close!r}?" if close else "name the phase that builds it",
                at_key=True,
            )
        if keys.after not in order:
            continue
        until = order.index(keys.after)
        early = [phase for phase in order[: until + 1] if canonical(name) in uses[phase]]
        if early:
            raise node.error(
                "CR-PROJECT-018",
                f"it starts after phase {keys.after!r}, and phase {early[0]!r} needs it before",
                hint=f"run {keys.after!r} first",
                at_key=True,
            )


def specs(layer: Layer, wanted: Iterable[str], root: Path) -> tuple[ServiceSpec, ...]:
    """What each wanted service is: declared ones in file order,
    then built-in ones nobody has settings for.

    Raises:
        ProjectError: a declared service is incomplete, twice there,
            or names a file that does not exist.
    """
    wanted = tuple(wanted)
    places = _places(layer)
    declared: dict[str, ServiceSpec] = {}
    for written, keys in (layer.settings.services or {}).items():
        name = canonical(written)
        if name in declared:
            raise places[written].error(
                "CR-PROJECT-018",
                f"expected one table for {name}, found two",
                hint="join them",
                at_key=True,
            )
        if not NAME.fullmatch(name):
            raise places[written].error(
                "CR-PROJECT-020",
                "expected a name of letters, digits, '_', '-' and '.', "
                f"{NAME_MAX} characters at most, found {written[:80]!r}",
                at_key=True,
            )
        spec = _spec(name, keys, places[written], root)
        declared[name] = spec
        for replica in _replica_names(name, keys)[1:]:
            declared[replica] = msgspec.structs.replace(
                spec, name=replica, replica_of=name, port=0, ports={}, env={}
            )
    built_in = {name: _undeclared(name) for name in wanted if name not in declared}
    return tuple(spec for name, spec in {**declared, **built_in}.items() if name in wanted)


def _places(layer: Layer) -> Mapping[str, Node]:
    """Where each service's table stands.

    One that a lower layer declared stands at the lower one's `services` key.
    """
    node = layer.nodes.get("services")
    found = node.children() if node else {}
    return {
        name: found.get(name, node) for name in layer.settings.services or {} if node is not None
    }


def _undeclared(name: str) -> ServiceSpec:
    """A built-in service, or an everyday one, that nobody has settings for."""
    if kind := BUILT_IN.get(name):
        return ServiceSpec(name=name, kind=kind)
    service = everyday_services()[name]
    keys, ready = service.keys, service.keys.ready
    assert ready is not None, "each of them has one"
    return ServiceSpec(
        name=name,
        kind="generic",
        command=keys.command or (),
        ready=_made_ready(ready),
        ports=keys.ports or {},
        env=keys.env or {},
        needs=service.needs,
        install=service.install,
    )


def _made_ready(keys: ReadyKeys, command: str = "") -> Ready:
    return Ready(
        tcp=keys.tcp or 0,
        http=keys.http or "",
        log=keys.log or "",
        command=command,
        timeout_seconds=keys.timeout or 30.0,
    )


def _spec(name: str, keys: ServiceKeys, node: Node, root: Path) -> ServiceSpec:
    kind = keys.kind or BUILT_IN.get(name, "generic")
    needs = install = ""
    if kind == "generic" and not keys.command and not keys.image:
        everyday = everyday_services().get(name)
        if everyday is not None:
            needs, install = everyday.needs, everyday.install
            keys = completed(keys, everyday)
    if kind == "generic" and not keys.command and not keys.image:
        raise node.error(
            "CR-PROJECT-018",
            "expected a command or an image, found neither",
            hint='add command = ["PROGRAM", "ARGUMENT"]',
            at_key=True,
        )
    if kind == "generic" and keys.ready is None:
        raise node.error(
            "CR-PROJECT-018",
            "expected what tells that it is ready, found nothing",
            hint="add ready = { tcp = PORT }",
            at_key=True,
        )
    return ServiceSpec(
        name=name,
        kind=kind,
        version=keys.version or "",
        image=keys.image or "",
        command=keys.command or (),
        ready=_ready(keys.ready, node) if keys.ready else None,
        port=keys.port or 0,
        ports=keys.ports or {},
        after=keys.after or "",
        depends_on=tuple(map(canonical, keys.depends_on or ())),
        needs=needs,
        install=install,
        env=keys.env or {},
        variables=keys.variables or {},
        init=tuple(
            _existing(path, index, node, root) for index, path in enumerate(keys.init or ())
        ),
        options=keys.options or {},
        initdb=keys.initdb or (),
        databases=keys.databases or (),
        users=keys.users or {},
        createdb=True if keys.createdb is None else keys.createdb,
        superuser=bool(keys.superuser),
        tls=bool(keys.tls),
        restarts_max=3 if keys.restarts_max is None else keys.restarts_max,
        restart_window_seconds=keys.restart_window or 60.0,
        origin=node.origin,
    )


def _ready(keys: ReadyKeys, service: Node) -> Ready:
    node = service.get("ready") or service
    given = [name for name in ("tcp", "http", "log", "command") if getattr(keys, name) is not None]
    if len(given) != 1:
        raise node.error(
            "CR-PROJECT-018",
            f"expected one of tcp, http, log and command, found {' and '.join(given) or 'none'}",
        )
    if keys.log is not None:
        _pattern(keys.log, node.child("log"))
    return _made_ready(keys, _shell(node) if keys.command else "")


def _shell(node: Node) -> str:
    """The readiness command as it was written: a string is shell text already."""
    value = node.child("command").value
    return value if isinstance(value, str) else shlex.join(value)


def _pattern(pattern: str, node: Node) -> None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        node.fail(f"a regular expression ({error})")


def _existing(path: str, index: int, service: Node, root: Path) -> str:
    init = service.get("init")
    node = init.child(index) if init else service
    found = root / path
    try:
        good = (found.is_file() or found.is_dir()) and found.resolve().is_relative_to(
            root.resolve()
        )
    except OSError:
        good = False
    if not good:
        raise node.error(
            "CR-PROJECT-019",
            f"expected a file or folder in the project, found none at {path!r}",
            hint="correct the name, relative to the project's folder",
        )
    return str(found)
