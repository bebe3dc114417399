"""Requirement files of pip, and what a project names in pyproject.toml. Pure.

Only as much of them is read as the fetch step needs: other files that they name, hosts, digests,
and lines that lead to the project itself or to a repository. pip reads the rest.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

_NESTED = re.compile(r"^(?:-r|--requirement|-c|--constraint)(?:\s+|=)(\S+)")
_INDEX = re.compile(r"^(?:-i|--index-url|--extra-index-url|-f|--find-links)(?:\s+|=)(\S+)")
_EDITABLE = re.compile(r"^(?:-e|--editable)(?:\s+|=)(.+)$")
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?\s*(.*)$")
_HASH = re.compile(r"--hash[=\s]+(sha256|sha384|sha512):([0-9a-f]+)")
_REPOSITORY = re.compile(r"(?:^|@\s*)(?:git|hg|svn|bzr)\+")
_LOCAL = re.compile(r"^(?:\.|/|file:|~)")
# What back ends ask for beside what the project names, when they build or install (PEP 517, 660):
# only their code knows, which does not run in a fetch.
ASKED_BY_BACKENDS = {
    "hatchling": ("editables",),
    "pdm-backend": ("editables",),
    "setuptools": ("wheel",),
    "scikit-build-core": ("cmake", "ninja"),
    "meson-python": ("ninja", "meson"),
}
DEFAULT_BACKEND = ("setuptools>=40.8.0", "wheel")


class RequirementsFile(NamedTuple):
    """One requirement file."""

    nested: tuple[str, ...]  # as they are written, relative to its folder
    indexes: tuple[str, ...]
    names: tuple[str, ...]  # of packages, normalised
    unpinned: tuple[str, ...]  # names that no digest pins
    repositories: tuple[str, ...]  # lines that lead to one
    digests: Mapping[str, frozenset[str]]  # name -> those that the file allows
    kept: str  # the file without lines that lead to the project or a repository


def normalised(name: str) -> str:
    """A package's name as indexes have it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_requirements(text: str) -> RequirementsFile:
    """What one file says."""
    nested, indexes, names, unpinned, repositories, kept = [], [], [], [], [], []
    digests: dict[str, frozenset[str]] = {}
    for line in logical_lines(text):
        if found := _NESTED.match(line):
            nested.append(found[1])
        elif found := _INDEX.match(line):
            indexes.append(found[1])
        elif _EDITABLE.match(line) or _LOCAL.match(line):
            if _REPOSITORY.search(line):
                repositories.append(line)
            continue
        elif _REPOSITORY.search(line):
            repositories.append(line)
            continue
        elif (found := _NAME.match(line)) and not line.startswith("-"):
            name = normalised(found[1])
            names.append(name)
            allowed = frozenset(f"{kind}:{value}" for kind, value in _HASH.findall(line))
            if allowed:
                digests[name] = digests.get(name, frozenset()) | allowed
            else:
                unpinned.append(name)
        kept.append(line)
    return RequirementsFile(
        tuple(nested),
        tuple(indexes),
        tuple(dict.fromkeys(names)),
        tuple(dict.fromkeys(unpinned)),
        tuple(repositories),
        digests,
        "\n".join(kept) + "\n",
    )


def logical_lines(text: str) -> Iterator[str]:
    """Lines without comments, continued ones joined."""
    joined = re.sub(r"\\\r?\n", " ", text.removeprefix("\ufeff"))
    for line in joined.splitlines():
        plain = re.sub(r"(^|\s)#.*$", "", line).strip()
        if plain:
            yield plain


class ProjectNeeds(NamedTuple):
    """What a pyproject.toml names."""

    build: tuple[str, ...]
    dependencies: tuple[str, ...]
    # extras and dependency groups, by name
    optional: Mapping[str, tuple[str, ...]]


def read_project(text: str) -> ProjectNeeds | None:
    """What a pyproject.toml names for an installer; None where it is none or names nothing.

    Raises:
        tomllib.TOMLDecodeError: it is no TOML.
    """
    document = tomllib.loads(text)
    project = _table(document, "project")
    groups = _table(document, "dependency-groups")
    if not project and "build-system" not in document and not groups:
        return None
    build = _texts(_table(document, "build-system").get("requires"))
    extras = {
        name: _texts(value) for name, value in _table(project, "optional-dependencies").items()
    }
    own = normalised(str(project.get("name", "")))
    optional = {name: _outside(texts, own) for name, texts in extras.items()}
    optional |= {f"group {name}": _group(groups, name, ()) for name in groups}
    if not build and (project or "build-system" in document):
        build = DEFAULT_BACKEND
    return ProjectNeeds(
        _with_asked(build),
        _texts(project.get("dependencies")),
        {name: texts for name, texts in optional.items() if texts},
    )


def _with_asked(build: tuple[str, ...]) -> tuple[str, ...]:
    named = (found for text in build if (found := _NAME.match(text)))
    asked = (one for name in named for one in ASKED_BY_BACKENDS.get(normalised(name[1]), ()))
    return tuple(dict.fromkeys((*build, *asked)))


def _outside(texts: Iterable[str], own: str) -> tuple[str, ...]:
    """Those that do not name the project itself, as `all = ["p[a,b]"]` does."""
    named = ((text, _NAME.match(text)) for text in texts)
    return tuple(text for text, found in named if not found or normalised(found[1]) != own)


def _group(groups: Mapping[str, Any], name: str, around: tuple[str, ...]) -> tuple[str, ...]:
    """A dependency group with those that it includes (PEP 735)."""
    found: list[str] = []
    entries = groups.get(name)
    if name in around or not isinstance(entries, list):
        return ()
    for entry in entries:
        if isinstance(entry, str):
            found.append(entry)
        elif isinstance(entry, dict) and isinstance(entry.get("include-group"), str):
            found += _group(groups, entry["include-group"], (*around, name))
    return tuple(found)


def _table(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()
