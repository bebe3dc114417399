"""cargo's configuration: the caller's own (registries, mirrors, tokens), and what a project's says
about where its packages come from. Pure, but for reading the caller's files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from cleanroom.dependencies.settings import Settings, read_text
from cleanroom.dependencies.toml_reader import read_toml

CRATES_IO = "crates-io"
CRATES_IO_INDEXES = frozenset(
    (
        "registry+https://github.com/rust-lang/crates.io-index",
        "sparse+https://index.crates.io/",
    )
)
FILES = (".cargo/config.toml", ".cargo/config")
_REPLACED_MAX = 8
_INDEX = re.compile(r"(?:sparse\+)?https?://[^\s\"\\@]{1,1000}")


class Registry(NamedTuple):
    """A registry that the caller's configuration names."""

    name: str
    index_url: str  # as cargo writes it: "sparse+https://..." or that of a Git repository
    token: str = ""

    @property
    def address(self) -> str:
        """Where it is."""
        return self.index_url.removeprefix("sparse+")


class CargoSettings(NamedTuple):
    """What the caller's own configuration says."""

    registries: tuple[Registry, ...] = ()
    mirror: str = ""  # the index that stands for crates.io's; "" for its own

    @classmethod
    def of(cls, settings: Settings) -> CargoSettings:
        """Read `config.toml` and `credentials.toml` of the caller's CARGO_HOME, and variables."""
        home = cargo_home(settings)
        config = _first(home, "config.toml", "config")
        tokens = _tables(_first(home, "credentials.toml", "credentials"), "registries")
        variables = settings.variables
        registries = []
        for name, table in _tables(config, "registries").items():
            index = _variable(variables, name, "INDEX") or _text(table, "index")
            token = _variable(variables, name, "TOKEN") or _text(tokens.get(name, {}), "token")
            if _INDEX.fullmatch(index):
                registries.append(Registry(name, index, token))
        return cls(tuple(registries), _mirror(_tables(config, "source")))


def cargo_home(settings: Settings) -> Path:
    """The caller's CARGO_HOME."""
    return Path(settings.variables.get("CARGO_HOME") or settings.home / ".cargo")


def sources(content: bytes) -> dict[str, Mapping[str, Any]]:
    """The tables `[source.NAME]` of a configuration file; none where it cannot be read."""
    return _tables(_document(content.decode(errors="replace")), "source")


def vendored(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """The folder, relative to the project's, that crates.io's packages come from; "" for none."""
    end = _followed(tables)
    folder = _text(end, "directory") or _text(end, "local-registry")
    return "" if folder.startswith("/") else folder


def replacements(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The sources that a project has crates.io's packages come from, each with the index of its
    registry; "" for a folder that is not there.
    """
    found = {}
    for name, table in tables.items():
        index = _text(table, "registry")
        folder = _text(table, "directory") or _text(table, "local-registry")
        own = name == CRATES_IO or name.startswith("cleanroom-")
        if not own and (folder or _INDEX.fullmatch(index)):
            found[name] = "" if folder else index
    return found


def offline_config(
    folders: Mapping[str, str], registries: Mapping[str, str], replaced: Mapping[str, str]
) -> bytes:
    """The configuration of a home whose packages come from folders.

    `folders`: `CRATES_IO`, or an index as locks write it -> folder of its unpacked crates.
    `registries`: names that a project may use for its dependencies -> index.
    `replaced`: as `replacements` has them; a project's configuration counts more than a home's, so
    its sources are replaced in turn.
    """
    lines = ["[net]", "offline = true"]
    for number, (origin, folder) in enumerate(folders.items()):
        lines += [f"[source.cleanroom-{number}]", f"directory = {_quoted(folder)}"]
        lines += [f"[source.{_quoted(origin)}]", f'replace-with = "cleanroom-{number}"']
        if origin != CRATES_IO:
            lines += [f"registry = {_quoted(origin)}"]
            continue
        for name, index in replaced.items():
            # cargo wants one of these even where nothing is taken from there
            place = f"registry = {_quoted(index)}" if index else f"directory = {_quoted(folder)}"
            lines += [f"[source.{_quoted(name)}]", place, f'replace-with = "cleanroom-{number}"']
    for name, index in registries.items():
        lines += [f"[registries.{_quoted(name)}]", f"index = {_quoted(index)}"]
    return ("\n".join(lines) + "\n").encode()


def _mirror(tables: Mapping[str, Mapping[str, Any]]) -> str:
    index = _text(_followed(tables), "registry")
    return index if _INDEX.fullmatch(index) else ""


def _followed(tables: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """The source at the end of crates.io's replacements."""
    table = tables.get(CRATES_IO, {})
    for _ in range(_REPLACED_MAX):
        name = _text(table, "replace-with")
        if not name:
            break
        table = tables.get(name, {})
    return table


def _variable(variables: Mapping[str, str], name: str, what: str) -> str:
    return variables.get(f"CARGO_REGISTRIES_{name.upper().replace('-', '_')}_{what}", "")


def _first(home: Path, *names: str) -> dict[str, Any]:
    return next((found for name in names if (found := _document(read_text(home / name)))), {})


def _document(text: str) -> dict[str, Any]:
    try:
        return read_toml(text.encode())
    except ValueError:
        return {}


def _tables(document: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    found = document.get(key)
    if not isinstance(found, dict):
        return {}
    return {name: table for name, table in found.items() if isinstance(table, dict)}


def _text(table: Mapping[str, Any], key: str) -> str:
    found = table.get(key)
    return found if isinstance(found, str) else ""


def _quoted(text: str) -> str:
    """A TOML string: JSON's, but for one character."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")
