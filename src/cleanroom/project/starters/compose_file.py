"""A compose file as values: each service's image or folder, variables, ports and needs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

from cleanroom.core.files import is_folder
from cleanroom.project.manifests import read_text
from cleanroom.project.source import Node, Source

_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?:(:?[-?+])([^{}]*))?\}|([A-Za-z_]\w*))")
_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*?)\s*")
_INIT_FOLDER = "/docker-entrypoint-initdb.d"


class Port(NamedTuple):
    """A port inside, and where the host has it (0: nowhere)."""

    inside: int
    published: int = 0


class ComposeService(msgspec.Struct, frozen=True, kw_only=True):
    """One service of a compose file."""

    name: str
    image: str = ""
    folder: str | None = None  # what it is built from, relative to the project; None: an image
    environment: Mapping[str, str] = {}
    ports: tuple[Port, ...] = ()
    command: str | tuple[str, ...] = ""
    health: str | tuple[str, ...] = ""
    needs: tuple[str, ...] = ()
    optional: bool = False  # it has profiles
    init: tuple[str, ...] = ()  # SQL files of a database's first start, relative to the project


class ComposeFile(NamedTuple):
    """What a compose file says, and what of it is not followed."""

    services: dict[str, ComposeService]
    unread: tuple[str, ...]


def read_compose(source: Source, folder: Path, root: Path) -> ComposeFile:
    """The services of a compose file in `folder`, of the project at `root`.

    Raises:
        ProjectError: a key that has a meaning here has a value of another form.
    """
    top = source.node
    named = top.get("services")
    if named is None:
        raise top.error(
            "CR-PROJECT-005",
            "expected the key 'services', found none",
            hint="name a compose file, or a make.toml of any dialect",
        )
    reader = _Reader(folder, root)
    services = {
        name: reader.service(name, child)
        for name, child in _table(named).items()
        if isinstance(child.value, dict)
    }
    unread = ["include"] if "include" in top.value else []
    unread += [
        f"services.{name}.extends"
        for name, child in named.children().items()
        if child.get("extends")
    ]
    return ComposeFile(services, tuple(unread))


class _Reader:
    def __init__(self, folder: Path, root: Path) -> None:
        self._folder = folder
        self._root = root
        self._known = _assignments(read_text(folder / ".env"))

    def service(self, name: str, node: Node) -> ComposeService:
        build = node.get("build")
        context = build.get("context") if build and isinstance(build.value, dict) else build
        text = self._text(context) if context else ("." if build else "")
        return ComposeService(
            name=name,
            image=self._text(node.get("image")),
            folder=self._relative(text) if build else None,
            environment=self._environment(node),
            ports=tuple(self._ports(node)),
            command=self._words(node.get("command")),
            health=_health(self._words(_below(node, "healthcheck", "test"))),
            needs=tuple(_names(node.get("depends_on"))),
            optional=bool(node.get("profiles")),
            init=tuple(self._init(node)),
        )

    def _environment(self, node: Node) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in self._files(node.get("env_file")):
            if self._relative(path):
                found.update(_assignments(read_text(self._folder / path)))
        environment = node.get("environment")
        if environment is None:
            return found
        if isinstance(environment.value, dict):
            found.update(
                {name: self._text(child) for name, child in environment.children().items()}
            )
        for item in environment.items() if isinstance(environment.value, list) else ():
            name, _, value = self._text(item).partition("=")
            found[name] = value
        return {name: value for name, value in found.items() if name and "\0" not in name + value}

    def _files(self, node: Node | None) -> Iterable[str]:
        if node is None:
            return
        for item in node.items() if isinstance(node.value, list) else [node]:
            yield self._text(item.get("path") if isinstance(item.value, dict) else item)

    def _ports(self, node: Node) -> Iterable[Port]:
        for key in ("ports", "expose"):
            listed = node.get(key)
            for item in listed.items() if listed and isinstance(listed.value, list) else ():
                if isinstance(item.value, dict):
                    inside, outside = (
                        self._text(item.get("target")),
                        self._text(item.get("published")),
                    )
                else:
                    outside, _, inside = self._text(item).partition("/")[0].rpartition(":")
                    outside = outside.rpartition(":")[2]
                if _is_port(inside):
                    yield Port(int(inside), int(outside) if _is_port(outside) else 0)

    def _init(self, node: Node) -> Iterable[str]:
        """SQL files that are mounted where a database runs them first."""
        volumes = node.get("volumes")
        for item in volumes.items() if volumes and isinstance(volumes.value, list) else ():
            if isinstance(item.value, dict):
                source, target = self._text(item.get("source")), self._text(item.get("target"))
            else:
                source, _, target = self._text(item).partition(":")
                target = target.partition(":")[0]
            relative = self._relative(source)
            if target.startswith(_INIT_FOLDER) and relative:
                yield from _sql_files(self._root, relative)

    def _relative(self, path: str) -> str:
        """A path of the compose file relative to the project; "" for the project, and outside."""
        found = os.path.relpath(os.path.normpath(self._folder / path), self._root)
        return "" if found == "." or found.startswith("..") else found

    def _words(self, node: Node | None) -> str | tuple[str, ...]:
        if node is not None and isinstance(node.value, list):
            return tuple(self._text(item) for item in node.items())
        return self._text(node)

    def _text(self, node: Node | None) -> str:
        """A value with its variables filled in, those of `.env` beside the file and defaults."""
        if node is None or not isinstance(node.value, str):
            return ""
        return _VARIABLE.sub(self._value, node.text())

    def _value(self, found: re.Match[str]) -> str:
        dollar, braced, operator, other, plain = found.groups()
        value = self._known.get(braced or plain or "")
        if dollar:
            return "$"
        if operator in ("-", ":-"):
            return other if value is None or (operator == ":-" and not value) else value
        if operator in ("+", ":+"):
            return other if value else ""
        return found[0] if value is None else value


def _table(node: Node) -> dict[str, Node]:
    return node.children("a table of services")


def _below(node: Node, *keys: str) -> Node | None:
    found: Node | None = node
    for key in keys:
        found = found.get(key) if found else None
    return found


def _names(node: Node | None) -> list[str]:
    if node is None or not isinstance(node.value, dict | list):
        return []
    return [str(name) for name in node.value if isinstance(name, str)]


def _health(test: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """A health check as a shell command or the words of one; empty where there is none."""
    if isinstance(test, str):
        return test
    if test[:1] == ("CMD-SHELL",):
        return " ".join(test[1:])
    return test[1:] if test[:1] == ("CMD",) else ""


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text) <= 65535


def _assignments(text: str) -> dict[str, str]:
    """The variables of an `.env` file."""
    found = {}
    for line in text.splitlines():
        match = _ASSIGNMENT.fullmatch(line)
        if match and not line.lstrip().startswith("#"):
            found[match[1]] = match[2].strip("\"'")
    return found


def _sql_files(root: Path, path: str) -> list[str]:
    if not is_folder(root / path):
        return [path] if path.endswith(".sql") else []
    try:
        names = sorted(each.name for each in (root / path).iterdir() if each.suffix == ".sql")
    except OSError:
        return []
    return [str(PurePosixPath(path) / name) for name in names]
