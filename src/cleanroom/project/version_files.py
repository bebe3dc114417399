"""The caller's own choice of versions, which version managers read from the home folder.

A phase has a home of its own, so what says which version `node` is would be missing there.
Of each file only names of tools and versions are taken: mise's configuration, for one, also holds
variables, which may be secrets.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cleanroom.core.files import is_file
from cleanroom.core.paths import is_within
from cleanroom.model.plan import MISE_FILE, ToolFile

_BYTES_MAX = 65536  # of a file that lists versions; real ones have a few hundred
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]*")
_ASDF_SETTINGS = ("legacy_version_file",)


class _Known(NamedTuple):
    """A file of one version manager."""

    variable: str  # which names the manager's folder
    folder: str  # it is usually at, in the home
    variable_of_file: str  # which names the file; empty where nothing does
    source: str  # the file in the caller's home
    name: str  # in the home inside
    reduce: Callable[[str], str]


def version_files(caller: Mapping[str, str], tools: Iterable[str]) -> tuple[ToolFile, ...]:
    """The files for the homes of phases; those of managers that `tools` show."""
    home, shown = caller.get("HOME", ""), tuple(tools)
    if not home.startswith("/"):
        return ()
    found = {}
    for known in _FILES:
        manager = os.path.normpath(caller.get(known.variable) or os.path.join(home, known.folder))
        source = caller.get(known.variable_of_file) or os.path.join(home, known.source)
        if known.name in found or not any(is_within(manager, tool) for tool in shown):
            continue
        if text := known.reduce(_read(Path(source))):
            found[known.name] = ToolFile(name=known.name, text=text, of=manager)
    return tuple(found.values())


def _read(path: Path) -> str:
    """The text of a file; empty where there is none to read."""
    if not is_file(path):
        return ""
    try:
        with path.open("rb") as file:
            return file.read(_BYTES_MAX).decode(errors="replace")
    except OSError:
        return ""


def _tool_versions(text: str) -> str:
    """The lines of a `.tool-versions`: a tool and its versions, without comments."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    kept = [words for words in lines if len(words) > 1 and all(map(_WORD.fullmatch, words))]
    return "".join(f"{' '.join(words)}\n" for words in kept)


def _asdfrc(text: str) -> str:
    """The settings that decide which files name versions: no hooks."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name.strip() in _ASDF_SETTINGS and value.strip() in ("yes", "no"):
            found[name.strip()] = value.strip()
    return "".join(f"{name} = {value}\n" for name, value in found.items())


def _mise(text: str) -> str:
    """The tools of mise's configuration with their versions, and whose version files are read."""
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return ""
    tools, settings = document.get("tools"), document.get("settings")
    lines = []
    for name, value in tools.items() if isinstance(tools, dict) else ():
        if versions := _versions(value):
            lines.append(f"{json.dumps(name)} = {json.dumps(versions)}")
    kept = ["[tools]", *lines] if lines else []
    key = "idiomatic_version_file_enable_tools"
    named = _versions(settings.get(key)) if isinstance(settings, dict) else []
    if named:
        kept += ["[settings]", f"{key} = {json.dumps(named)}"]
    return "".join(f"{line}\n" for line in kept)


def _versions(value: object) -> list[str]:
    """The versions in an entry: a string, a table with `version`, or a list of these."""
    if isinstance(value, list):
        return [version for entry in value for version in _versions(entry)]
    if isinstance(value, dict):
        value = value.get("version")
    return [value] if isinstance(value, str) and _WORD.fullmatch(value) else []


_ASDF, _MISE = ("ASDF_DATA_DIR", ".asdf"), ("MISE_DATA_DIR", ".local/share/mise")
_FILES = (
    _Known(*_ASDF, "", ".tool-versions", ".tool-versions", _tool_versions),
    _Known(*_ASDF, "ASDF_CONFIG_FILE", ".asdfrc", ".asdfrc", _asdfrc),
    _Known(*_MISE, "", ".tool-versions", ".tool-versions", _tool_versions),
    _Known(*_MISE, "MISE_GLOBAL_CONFIG_FILE", ".config/mise/config.toml", MISE_FILE, _mise),
)
