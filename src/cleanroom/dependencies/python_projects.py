"""What Python projects' own files say of dependencies: pyproject.toml, setup.cfg, and locks. Pure.

Nothing here runs a build back end: what only its code knows (`dynamic`, what a setup.py computes)
stays unknown.
"""

from __future__ import annotations

import ast
import configparser
import posixpath
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.git_requirements import GitRequest, of_lock, requested
from cleanroom.dependencies.model import Problem
from cleanroom.dependencies.requirements import Entry, Pinned, names_variable
from cleanroom.dependencies.simple_index import IndexFile, is_file_name, normalized
from cleanroom.dependencies.toml_reader import read_toml
from cleanroom.dependencies.wheel_addresses import wheel_address
from cleanroom.model.errors import ProjectError

DEFAULT_BUILD = ("setuptools>=40.8.0", "wheel")
# Asked for by back ends when they make an editable wheel; no file says so.
_EDITABLE = {"hatchling": "editables", "pdm": "editables", "setuptools": "wheel"}
_PROGRAM_MAX = 1 << 20
_PACKAGE_WORDS = ("install_requires", "setup_requires", "extras_require")
# Those that ask for nothing but what `build-system.requires` and the table above name.
_KNOWN_BACKENDS = (*_EDITABLE, "flit_core", "flit", "poetry", "uv_build")
_MEMBER = re.compile(r'source = \{ (?:editable|virtual) = "([^"]+)" \}')
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?(?:\s*\[[^\]]*\])?\s*[<>=!~;(].*|[\w.\[\],-]+"
)


class ProjectNeeds(NamedTuple):
    """What a project's files ask for."""

    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()
    optional: tuple[tuple[str, ...], ...] = ()  # extras and groups, each by itself
    problems: tuple[Problem, ...] = ()
    git: tuple[GitRequest, ...] = ()
    names_build: bool = False  # a build system is named; without one a default is meant


class LockedPackage(NamedTuple):
    """A package of a lock, with the files that the lock names."""

    pinned: Pinned
    files: tuple[IndexFile, ...] = ()  # with addresses; none: the index has them
    direct: bool = False  # phases ask for the address itself


class PythonLock(NamedTuple):
    """What a lock names."""

    packages: tuple[LockedPackage, ...] = ()
    problems: tuple[Problem, ...] = ()
    git: tuple[GitRequest, ...] = ()


def project_needs(path: str, content: bytes, *, addresses: bool = False) -> ProjectNeeds | None:
    """What a pyproject.toml asks for; None where it only configures tools.

    With `addresses` wheels that are named by theirs are among it, else they are problems.

    Raises:
        ProjectError: it is no TOML.
    """
    document = _document(path, content)
    project, build = _table(document, "project"), _table(document, "build-system")
    groups = _table(document, "dependency-groups")
    poetry = _table(_table(document, "tool"), "poetry")
    if not project and not build and not groups:
        return None
    own = normalized(str(project.get("name", "")))
    backend = str(build.get("build-backend", "setuptools"))
    further = [text for name, text in _EDITABLE.items() if backend.startswith(name)]
    named = _texts(build.get("requires")) if "requires" in build else DEFAULT_BUILD
    requires = [*named, *further]
    optional = [
        *_table(project, "optional-dependencies").values(),
        *groups.values(),
    ]
    listed = [
        requires if project or build else [],
        _texts(project.get("dependencies")),
        *([text for text in _texts(one) if _name(text) != own] for one in optional),
    ]
    kept, git, unusable = _told_apart(listed, addresses=addresses)
    problems = list(unusable)
    problems += _unknown_backend(build)
    if poetry.get("dependencies") and not project.get("dependencies"):
        problems.append(
            Problem(
                entry="tool.poetry.dependencies",
                why="no lock says what they are",
                hint="`poetry lock` writes one",
            )
        )
    return ProjectNeeds(kept[0], kept[1], kept[2:], tuple(problems), git, names_build=bool(build))


def build_needs(files: Mapping[str, bytes]) -> ProjectNeeds:
    """What a package's source asks for to be built: pyproject.toml, and setup.py as it is written.

    Raises:
        ProjectError: pyproject.toml is no TOML.
    """
    document = _document("pyproject.toml", files.get("pyproject.toml", b""))
    build = _table(document, "build-system")
    backend = str(build.get("build-backend", "setuptools"))
    requires = _texts(build.get("requires")) if "requires" in build else [*DEFAULT_BUILD]
    literal = ProjectNeeds()
    if backend.startswith("setuptools"):
        # setuptools before 70 asks for wheel, which older packages do not name.
        literal = _setup_call(files.get("setup.py", b""))
        requires.append("wheel")
    (kept,), git, unusable = _told_apart([list(dict.fromkeys(requires))])
    computed = [one for one in literal.problems if one.entry == "setup_requires"]
    problems = (*unusable, *_unknown_backend(build), *computed)
    return ProjectNeeds((*kept, *literal.build), problems=problems, git=git)


def _unknown_backend(build: Mapping[str, Any]) -> Iterator[Problem]:
    backend = str(build.get("build-backend", "setuptools"))
    if build and not backend.startswith(_KNOWN_BACKENDS):
        yield Problem(
            entry=f"build-backend {ascii(backend)[1:101].rstrip(chr(39))}",
            why="only its code knows whether it needs more than build-system.requires names",
            hint="name in build-system.requires what it asks for",
        )


def uv_members(path: str, content: bytes) -> list[str]:
    """The folders of a uv workspace's members, as its lock has them, from the project's root."""
    # The form is uv's own: this is asked once for each folder below, and locks are large.
    named = _MEMBER.findall(content.decode(errors="replace"))
    around = posixpath.dirname(path)
    return [posixpath.normpath(posixpath.join(around, one)) for one in named]


def setup_needs(settings: bytes, program: bytes = b"") -> ProjectNeeds:
    """What a setup.cfg and a setup.py ask for, as far as the latter has it written out."""
    literal = _setup_call(program)
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(settings.decode(errors="replace"))
    except configparser.Error:
        return literal._replace(build=DEFAULT_BUILD)
    run = parser.get("options", "install_requires", fallback="")
    extras: list[str] = []
    if parser.has_section("options.extras_require"):
        extras = [value for _, value in parser.items("options.extras_require")]
    listed = [[line.strip() for line in text.splitlines()] for text in (run, *extras)]
    kept, git, unusable = _told_apart([[line for line in one if line] for one in listed])
    return ProjectNeeds(
        (*DEFAULT_BUILD, *literal.build),
        (*kept[0], *literal.run),
        (*kept[1:], *literal.optional),
        (*literal.problems, *unusable),
        (*literal.git, *git),
    )


def _setup_call(program: bytes) -> ProjectNeeds:
    """What the call of `setup` in a setup.py has as literals. Nothing of it runs."""
    found: dict[str, object] = {}
    problems = []
    for name, value in _setup_words(program):
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            why = "setup.py computes it, and its code does not run here"
            hint = "name the packages in pyproject.toml, or in a requirements file"
            problems.append(Problem(entry=name, why=why, hint=hint))
    extras = found.get("extras_require")
    optional = extras.values() if isinstance(extras, dict) else ()
    named = (found.get("install_requires"), found.get("setup_requires"), *optional)
    (run, build, *further), git, unusable = _told_apart([_texts(one) for one in named])
    return ProjectNeeds(build, run, tuple(further), (*problems, *unusable), git)


def _setup_words(program: bytes) -> Iterator[tuple[str, ast.expr]]:
    """The keywords of calls of `setup` that name packages."""
    if len(program) > _PROGRAM_MAX:
        return
    try:
        # about escapes in its strings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        called = call.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name == "setup":
            words = (one for one in call.keywords if one.arg in _PACKAGE_WORDS)
            yield from ((str(one.arg), one.value) for one in words)


def read_pylock(path: str, content: bytes) -> PythonLock:
    """The packages of a pylock.toml (PEP 751).

    Raises:
        ProjectError: it is none.
    """
    packages, problems, git = [], [], []
    for one in _packages(path, content, "packages"):
        name, version = _named(path, one)
        if "directory" in one:
            continue
        if "vcs" in one or "archive" in one:
            vcs = _table(one, "vcs")
            place = str(vcs.get("url", "")), vcs.get("commit-id"), vcs.get("subdirectory")
            request = of_lock(name, *place) if vcs.get("type") == "git" else None
            if request is None:
                problems.append(_elsewhere(name, version))
            else:
                git.append(request)
            continue
        files = tuple(_pylock_files(one))
        marker = one.get("marker", "")
        pinned = Pinned(name, version, marker if isinstance(marker, str) else "")
        if files:
            packages.append(LockedPackage(pinned, files))
        else:
            problems.append(Problem(entry=f"{name} {version}", why="the lock names no file of it"))
    return PythonLock(tuple(packages), tuple(problems), tuple(git))


def read_poetry(path: str, content: bytes) -> PythonLock:
    """The packages of a poetry.lock, whose addresses an index knows.

    Raises:
        ProjectError: it is none.
    """
    packages, problems, git = [], [], []
    for one in _packages(path, content, "package"):
        name, version = _named(path, one)
        source = _table(one, "source")
        kind = source.get("type", "legacy")
        if kind == "directory":
            continue
        place = str(source.get("url", "")), source.get("resolved_reference")
        request = of_lock(name, *place, source.get("subdirectory"))
        if kind == "git" and request is not None:
            git.append(request)
            continue
        if kind not in ("legacy", "pypi"):
            problems.append(_elsewhere(name, version))
            continue
        tables = [file for file in _list(one.get("files")) if isinstance(file, dict)]
        hashes = tuple(
            str(file["hash"]) for file in tables if str(file.get("hash", "")).startswith("sha256:")
        )
        if hashes:
            packages.append(LockedPackage(Pinned(name, version, "", hashes)))
        else:
            problems.append(
                Problem(
                    entry=f"{name} {version}",
                    why="the lock names no SHA-256 of it",
                    hint="`poetry lock` of Poetry 1.5 or newer writes them",
                )
            )
    return PythonLock(tuple(packages), tuple(problems), tuple(git))


def entries(texts: Sequence[str]) -> tuple[Entry, ...]:
    """Requirements without digests."""
    return tuple(Entry(text) for text in texts)


def _pylock_files(package: Mapping[str, Any]) -> Iterator[IndexFile]:
    for one in [*_list(package.get("wheels")), package.get("sdist")]:
        if not isinstance(one, dict) or not isinstance(one.get("url"), str):
            continue
        digest = _table(one, "hashes").get("sha256")
        try:
            parts = urlsplit(one["url"])
        except ValueError:
            continue
        name = one.get("name") or unquote(parts.path).rpartition("/")[2]
        size = one.get("size", 0)
        if (
            parts.scheme == "https"
            and is_web_address(one["url"])
            and isinstance(name, str)
            and is_file_name(name)
            and isinstance(digest, str)
            and re.fullmatch(r"[0-9a-fA-F]{64}", digest)
        ):
            size = size if isinstance(size, int) and 0 < size < 1 << 40 else 0
            yield IndexFile(name, one["url"], f"sha256:{digest.lower()}", size)


def _packages(path: str, content: bytes, key: str) -> list[dict[str, Any]]:
    document = _document(path, content)
    packages = document.get(key, [])
    if not isinstance(packages, list) or not all(isinstance(one, dict) for one in packages):
        raise _unreadable(path, f"expected tables of {key}, found something else")
    return list(packages)


def _named(path: str, package: Mapping[str, Any]) -> tuple[str, str]:
    name, version = package.get("name"), package.get("version", "")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,200}", name, re.ASCII):
        raise _unreadable(path, f"expected a package's name, found {str(name)[:100]!r}")
    if not isinstance(version, str) or not re.fullmatch(r"[\w.!+-]{0,200}", version, re.ASCII):
        raise _unreadable(path, f"{name}: expected a version, found {str(version)[:100]!r}")
    return name, version


def _document(path: str, content: bytes) -> dict[str, Any]:
    try:
        return read_toml(content)
    except ValueError as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006",
        f"the file cannot be read: {why}",
        hint="write it again with the tool that it belongs to",
        where=f"{path}:1:1",
    )


def _elsewhere(name: str, version: str) -> Problem:
    return Problem(
        entry=f"{name} {version}".strip(), why="it comes from an address that is not fetched"
    )


def _table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _name(text: str) -> str:
    return normalized(re.split(r"[^\w.-]", text.strip(), maxsplit=1)[0])


class _ToldApart(NamedTuple):
    """Requirements by what is to be done about them."""

    kept: tuple[tuple[str, ...], ...]  # lists of packages of an index
    git: tuple[GitRequest, ...]
    problems: tuple[Problem, ...]


def _told_apart(listed: Sequence[Sequence[str]], *, addresses: bool = False) -> _ToldApart:
    def kept(text: str) -> bool:
        return _is_requirement(text) or (addresses and wheel_address(text) is not None)

    others = [text for one in listed for text in one if not kept(text)]
    asked = [(text, requested(text)) for text in others]
    why = "only packages of an index, wheels over https and git addresses over https are fetched"
    return _ToldApart(
        tuple(tuple(text for text in one if kept(text)) for one in listed),
        tuple(request for _, request in asked if request is not None),
        tuple(Problem(entry=text[:100], why=why) for text, request in asked if request is None),
    )


def _is_requirement(text: str) -> bool:
    """Whether it is a package of an index, in one line that holds no option and no address."""
    return (
        text.isprintable()
        and _REQUIREMENT.fullmatch(text.strip()) is not None
        and "://" not in text
        and not names_variable(text)
        and " -" not in text.partition(";")[0]
    )
