"""What a `uv.lock` says of its packages, and which of their files an interpreter takes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard
from urllib.parse import quote, unquote, urlsplit

from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.digests import STRONG, algorithm, is_digest
from cleanroom.dependencies.git_requirements import of_uv
from cleanroom.dependencies.model import Artifact, Problem
from cleanroom.dependencies.python_tags import Interpreter, applies, best_wheel
from cleanroom.dependencies.simple_index import is_file_name
from cleanroom.dependencies.toml_reader import read_toml
from cleanroom.model.errors import ProjectError

SDISTS = (".tar.gz", ".zip", ".tar.bz2", ".tgz")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9.!+_-]{0,200}")
_SIZE_MAX = 1 << 40
# Sources of the project's own packages.
_OWN = ("editable", "virtual", "directory")
Package = Mapping[str, Any]


def packages(path: str, content: bytes) -> list[dict[str, Any]]:
    """The packages of a lock, whose names and versions are such.

    Raises:
        ProjectError: it is no lock of uv's.
    """
    try:
        document = read_toml(content)
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    found: list[dict[str, Any]] = document.get("package", [])
    valid = isinstance(found, list) and all(
        isinstance(one, dict)
        and _matches(_NAME, one.get("name"))
        and _matches(_VERSION, one.get("version", ""))
        and isinstance(one.get("source"), dict)
        and isinstance(one.get("wheels", []), list)
        for one in found
    )
    if not valid:
        raise _unreadable(path, "it has packages whose name, version or source is none that uv has")
    return found


def has_files(package: Package) -> bool:
    """Whether it is a package of an index, or of an address of its own (`name @ https://...`)."""
    return "registry" in package["source"] or has_own_address(package)


def has_own_address(package: Package) -> bool:
    """Whether an address stands in the place of an index."""
    return "url" in package["source"]


def entry(package: Package) -> str:
    """Name and version, as messages have them."""
    return f"{package['name']} {package.get('version', '')}".strip()


def problem(package: Package) -> Problem | None:
    """Why a package cannot be had; None if it can."""
    named = entry(package)
    kind = next(iter(package["source"]), "")
    if kind == "git" and of_uv(package["name"], package["source"]["git"]) is not None:
        # pip's manager has it, with what it needs to be built
        return None
    if kind == "git":
        return Problem(entry=named, why="this git source is not fetched")
    if has_files(package) and not wheels(package) and sdist(package) is None:
        return Problem(
            entry=named,
            why="its files have no SHA-256, or no address on the web",
            hint="`uv lock` writes both",
        )
    return None


def wheels(package: Package) -> dict[str, Package]:
    """The wheels that can be fetched and checked, by their file names."""
    located = (_located(package, one) for one in package.get("wheels", []))
    listed = [one for one in located if _is_checked(one)]
    return {_file_name(one["url"]): one for one in listed}


def wheel(package: Package, interpreter: Interpreter) -> Artifact | None:
    """The package's wheel for this interpreter."""
    found = wheels(package)
    name = best_wheel(found, interpreter)
    return None if name is None else _artifact(package, found[name])


def sdist(package: Package) -> Artifact | None:
    """The package's source archive, where it can be fetched and checked."""
    # What lies in a folder of the archive says elsewhere how it is built.
    if "subdirectory" in package["source"]:
        return None
    found = _located(package, package.get("sdist"))
    if not _is_checked(found):
        return None
    name = _file_name(found["url"])
    return _artifact(package, found) if name.endswith(SDISTS) and is_file_name(name) else None


def without_wheels(listed: Iterable[Package]) -> Iterator[Package]:
    """The packages that a source archive is all there is of."""
    return (one for one in listed if has_files(one) and not wheels(one) and sdist(one) is not None)


def may_be_built(listed: Iterable[Package]) -> bool:
    """Whether an interpreter may have to take a source archive."""
    return any(
        has_files(one)
        and sdist(one) is not None
        and not any(name.endswith("-none-any.whl") for name in wheels(one))
        for one in listed
    )


def built(listed: Sequence[Package], interpreter: Interpreter) -> list[Artifact]:
    """The source archives of packages that have no wheel for this interpreter, and are wanted."""
    wanted = _wanted(listed, interpreter)
    candidates = (
        sdist(one)
        for one in listed
        if has_files(one) and one["name"] in wanted and wheel(one, interpreter) is None
    )
    return [one for one in candidates if one is not None]


def unfit(listed: Sequence[Package], interpreter: Interpreter) -> list[Problem]:
    """The packages that are wanted, and of which there is no file for this interpreter."""
    wanted = _wanted(listed, interpreter)
    where = f"Python {interpreter.version} on {interpreter.machine}"
    return [
        Problem(
            entry=entry(one),
            why=f"no wheel of it fits {where}, which is what uv finds, and it has no source",
            hint="let .python-version name another Python, or lock a version that has one",
        )
        for one in listed
        if has_files(one) and one["name"] in wanted and problem(one) is None
        if wheel(one, interpreter) is None and sdist(one) is None
    ]


def _wanted(listed: Sequence[Package], interpreter: Interpreter) -> set[str]:
    """The names that the project's own packages lead to, by edges whose marker applies."""
    edges: dict[str, set[str]] = {}
    for one in listed:
        leads = {name for name, marker in _edges(one) if applies(marker, interpreter)}
        edges.setdefault(one["name"], set()).update(leads)
    found: set[str] = set()
    pending = [one["name"] for one in listed if any(kind in one["source"] for kind in _OWN)]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += edges.get(name, ())
    return found


def _edges(package: Package) -> Iterator[tuple[str, str]]:
    """Name and marker of each package that one depends on, with its extras and groups."""
    tables = [package.get("optional-dependencies"), package.get("dev-dependencies")]
    lists = [package.get("dependencies")]
    lists += [each for one in tables if isinstance(one, dict) for each in one.values()]
    for one in lists:
        for edge in one if isinstance(one, list) else ():
            if isinstance(edge, dict) and isinstance(edge.get("name"), str):
                marker = edge.get("marker", "")
                yield edge["name"], marker if isinstance(marker, str) else ""


def _artifact(package: Package, file: Package) -> Artifact:
    name, version, size = package["name"], str(package.get("version", "")), file.get("size", 0)
    return Artifact(
        name=name,
        version=version,
        file=_file_name(file["url"]),
        url=file["url"],
        digest=file["hash"],
        size=size if isinstance(size, int) and 0 < size < _SIZE_MAX else 0,
        purl=f"pkg:pypi/{quote(name)}@{quote(version)}",
    )


def _located(package: Package, file: object) -> object:
    """The file of a package with its address, which for one of its own the source alone has."""
    if has_own_address(package) and isinstance(file, dict):
        return {**file, "url": package["source"]["url"]}
    return file


def _is_checked(file: object) -> TypeGuard[Package]:
    """Whether it has an address, and a digest that pins it."""
    return (
        isinstance(file, dict)
        and is_web_address(file.get("url"))
        and isinstance(file.get("hash"), str)
        and algorithm(file["hash"]) in STRONG
        and is_digest(file["hash"])
    )


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _matches(form: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _unreadable(path: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006",
        f"expected a lock of uv's, found another file: {why}",
        hint="`uv lock` writes one",
        where=f"{path}:1:1",
    )
