"""From a `cleanroom` table to settings: every key checked against `keys.py`,
every value against its form.

A `Layer` has the settings of one table, with the node of each key; `overlaid` lays one over
another. Nothing is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeVar, get_args

import msgspec

from cleanroom.model.plan import BackendName, ServiceKind
from cleanroom.model.policy import CONTROLS, Level, Reaction
from cleanroom.project.keys import (
    CacheKeys,
    EgressKeys,
    ExpectedKeys,
    LimitKeys,
    Place,
    ReadyKeys,
    RetentionKeys,
    ServiceKeys,
    SettingKeys,
    keys_of,
)
from cleanroom.project.source import Node, nearest

Struct = TypeVar("Struct", bound=msgspec.Struct)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A name, `*.` before one, or an address in brackets; a colon; the port.
_EGRESS = re.compile(
    r"((?:\*\.)?[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", re.ASCII
)
_RULES = (*(control.rule for control in CONTROLS), "policy")


class Layer(msgspec.Struct, frozen=True):
    """Settings, and the node of each one that is set."""

    settings: SettingKeys = SettingKeys()
    nodes: Mapping[str, Node] = {}  # field name -> its key's node


def read_layer(node: Node | None, place: Place, environment: str = "") -> Layer:
    """A `cleanroom` table with its overlay for `environment` over it.

    Raises:
        ProjectError: a key is unknown, stands in the wrong table, or has a wrong value.
    """
    base, overlay = read_layers(node, place, environment)
    return overlaid(base, overlay)


def read_layers(node: Node | None, place: Place, environment: str) -> tuple[Layer, Layer]:
    """A `cleanroom` table, and its overlay for `environment`. Every overlay is checked.

    Raises:
        ProjectError: a key is unknown, stands in the wrong table, or has a wrong value.
    """
    if node is None:
        return Layer(), Layer()
    base = _layer(node, place, overlay=False)
    overlays = {
        name: _layer(child, place, overlay=True) for name, child in _named(node.get("env")).items()
    }
    chosen = [overlays[name] for name in spellings(environment) if name in overlays]
    return base, chosen[0] if chosen else Layer()


def spellings(environment: str) -> tuple[str, ...]:
    """The names that an environment's overlay may have: `production` is `prod`."""
    if environment in ("prod", "production"):
        return environment, "production" if environment == "prod" else "prod"
    return (environment,) if environment else ()


def overlaid(base: Layer, top: Layer) -> Layer:
    """`top` over `base`, key by key; limits, services, variables and commands entry by entry."""
    given = {name: getattr(top.settings, name) for name in top.nodes}
    for name in ("services", "variables", "commands"):
        below = getattr(base.settings, name)
        if name in given and below:
            given[name] = {**below, **given[name]}
    if "limits" in given and base.settings.limits:
        given["limits"] = overlaid_struct(base.settings.limits, given["limits"])
    return Layer(msgspec.structs.replace(base.settings, **given), {**base.nodes, **top.nodes})


def overlaid_struct(base: Struct, top: Struct) -> Struct:
    """The fields of `top` that are not None, else those of `base`."""
    given = {
        name: value for name in top.__struct_fields__ if (value := getattr(top, name)) is not None
    }
    return msgspec.structs.replace(base, **given)


def _layer(node: Node, place: Place, *, overlay: bool) -> Layer:
    fields = _fields(node, SettingKeys)
    known = keys_of(SettingKeys)
    for name, (child, _) in fields.items():
        written = str(child.path[-1])
        if place not in known[written][1].at:
            stands = "under [cleanroom]" if place == "phase" else "in a phase"
            raise child.error(
                "CR-PROJECT-006",
                f"expected this key {stands}, found it here",
                hint=f"move it: it means something {stands} only",
                at_key=True,
            )
        if (overlay and name == "env") or (not overlay and name == "commands"):
            where = (
                "cleanroom.env.NAME" if name == "commands" else "[cleanroom] or a phase's cleanroom"
            )
            raise child.error(
                "CR-PROJECT-006",
                f"expected this key in {where}, found it here",
                hint="move it there",
                at_key=True,
            )
    return Layer(
        SettingKeys(**{name: value for name, (_, value) in fields.items()}),
        {name: child for name, (child, _) in fields.items()},
    )


def _fields(node: Node, struct: type[msgspec.Struct]) -> dict[str, tuple[Node, Any]]:
    """Field -> its node and value, of a table that may hold the keys of `struct` only."""
    known = keys_of(struct)
    found = {}
    for key, child in node.children().items():
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {close!r}?" if close else f"known here: {', '.join(known)}"
            raise child.error(
                "CR-PROJECT-006",
                f"expected a key of docs/make-toml.md, found {key[:80]!r}",
                hint=hint,
                at_key=True,
            )
        name, info = known[key]
        found[name] = (child, READERS[info.form](child))
    return found


def _struct(struct: type[Struct]) -> Callable[[Node], Struct]:
    def read(node: Node) -> Struct:
        fields = _fields(node, struct)
        for field in msgspec.structs.fields(struct):
            if field.required and field.name not in fields:
                node.fail(f"the key {field.encode_name!r} in it")
        return struct(**{name: value for name, (_, value) in fields.items()})

    return read


def _named(node: Node | None) -> dict[str, Node]:
    return node.children("a table of tables") if node else {}


def variable_value(node: Node) -> str:
    """A variable's value as text; booleans and numbers are written out, as cargo-make does.

    Raises:
        ProjectError: it is something else.
    """
    if isinstance(node.value, bool):
        return str(node.value).lower()
    if isinstance(node.value, int | float):
        return str(node.value)
    return node.text("a string, a number or a boolean")


def variable_table(node: Node) -> dict[str, str]:
    """A table of variables.

    Raises:
        ProjectError: a name or a value is none of a variable.
    """
    for name, child in node.children().items():
        if not name or "=" in name or "\0" in name:
            raise child.error(
                "CR-PROJECT-005",
                f"expected a variable's name, found {name!r}",
                hint="use letters, digits and _",
                at_key=True,
            )
    return {name: variable_value(child) for name, child in node.children().items()}


def commands(node: Node) -> tuple[str, ...]:
    """One command, or several that run in order.

    Raises:
        ProjectError: it is something else.
    """
    expected = "a string or a list of strings"
    return (node.text(expected),) if isinstance(node.value, str) else node.texts(expected)


def relative_path(node: Node) -> str:
    """A path inside the project, relative to its folder.

    Raises:
        ProjectError: it is empty, absolute, or has `..` in it.
    """
    text = node.text("a path")
    path = PurePosixPath(text)
    if not text.strip() or path.is_absolute() or text.startswith("~") or ".." in path.parts:
        raise node.error(
            "CR-PROJECT-010",
            f"expected a path inside the project, found {text!r}",
            hint="name it relative to the project's folder, without ..",
        )
    return text


def _argv(node: Node) -> tuple[str, ...]:
    import shlex

    if not isinstance(node.value, str):
        found = node.texts("a string or a list of strings")
        return found or node.fail("a program")
    try:
        return tuple(shlex.split(node.text())) or node.fail("a program")
    except ValueError as error:
        node.fail(f"words that a shell could split ({error})")


def _egress(node: Node) -> tuple[EgressKeys, ...]:
    return tuple(map(egress_entry, node.items("a list of strings or tables")))


def egress_entry(node: Node) -> EgressKeys:
    """A host to reach: "host:port", or a table.

    Raises:
        ProjectError: it is something else.
    """
    if isinstance(node.value, dict):
        table = _struct(EgressKeys)(node)
        host = table.host[1:-1] if table.host.startswith("[") else table.host
        found = msgspec.structs.replace(table, host=host)
        if not _EGRESS.fullmatch(found.name):
            node.child("host").fail('a name such as "index.example.org", "*.example.org", or ::1')
        return found
    expected = '"host:port" such as "index.example.org:443" or "*.example.org:443", or a table'
    parts = _EGRESS.fullmatch(node.text(expected))
    if not parts or not 1 <= int(parts[2]) <= 65535:
        node.fail(expected)
    return EgressKeys(host=parts[1].strip("[]"), port=int(parts[2]))


def _rules(node: Node) -> tuple[str, ...]:
    return tuple(item.choice(_RULES) for item in node.items("a list of rules"))


def _names(node: Node) -> tuple[str, ...]:
    for item in node.items("a list of names"):
        if not _NAME.fullmatch(item.text()):
            item.fail("a variable's name")
    return node.texts()


def _texts(node: Node) -> tuple[str, ...]:
    return node.texts()


def _ports(node: Node) -> tuple[int, ...]:
    return tuple(item.integer(1, 65535) for item in node.items("a list of ports"))


def _named_ports(node: Node) -> dict[str, int]:
    for name, child in node.children().items():
        if not name.isidentifier():
            raise child.error(
                "CR-PROJECT-005",
                f"expected a port's name, found {name!r}",
                hint="use letters, digits and _",
                at_key=True,
            )
    return {name: child.integer(1, 65535) for name, child in node.children().items()}


def _services(node: Node) -> dict[str, ServiceKeys]:
    return {name: _struct(ServiceKeys)(child) for name, child in node.children().items()}


READERS: dict[str, Callable[[Node], Any]] = {
    "flag": Node.flag,
    "text": Node.text,
    "texts": _texts,
    "command": commands,
    "argv": _argv,
    "words": variable_table,
    "commands": lambda node: {name: commands(child) for name, child in node.children().items()},
    "integer": lambda node: node.integer(0, 1000),
    "seed": lambda node: node.integer(-(2**63), 2**63 - 1),
    "count": lambda node: node.integer(1, 2**31 - 1),
    "number": lambda node: node.positive(1024),
    "port": lambda node: node.integer(1, 65535),
    "ports": _ports,
    "named_ports": _named_ports,
    "duration": Node.duration,
    "size": Node.size,
    "level": lambda node: Level(node.choice(Level)),
    "backend": lambda node: node.choice(get_args(BackendName)),
    "reaction": lambda node: node.choice(get_args(Reaction)),
    "kind": lambda node: node.choice(get_args(ServiceKind)),
    "rules": _rules,
    "names": _names,
    "egress": _egress,
    "paths": lambda node: tuple(relative_path(item) for item in node.items("a list of paths")),
    "folders": _texts,
    "cache": _struct(CacheKeys),
    "expected": lambda node: tuple(
        _struct(ExpectedKeys)(item) for item in node.items("a list of { target, reason }")
    ),
    "limits": _struct(LimitKeys),
    "ready": _struct(ReadyKeys),
    "retention": _struct(RetentionKeys),
    "services": _services,
    "env": Node.children,
    "telemetry": Node.flag,
    "boundary": lambda node: node.choice(("required", "preferred")),
}
