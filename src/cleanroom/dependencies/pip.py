"""pip: requirement files, and what pyproject.toml names; a folder of wheels for `--find-links`.

pip resolves, in an environment that reaches the indexes and without running code of a package
(wheels only). Its report names address and digest of each file; a digest that the requirement
files do not allow is refused. What no file pins is pinned by the store from the first time on.
"""

from __future__ import annotations

import configparser
import hashlib
import posixpath
import shlex
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import msgspec

from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import Access, Artifact, Complete, Found, Lock, Problem
from cleanroom.dependencies.requirements import (
    RequirementsFile,
    normalised,
    read_project,
    read_requirements,
)
from cleanroom.dependencies.session import Manager, Session, ToolRun
from cleanroom.dependencies.settings import basic, host_of
from cleanroom.dependencies.store import hard_link
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable, ProjectError

INDEX = "https://pypi.org/simple"
FILES_OF_INDEX = "https://files.pythonhosted.org"
PROJECT, SETUP, UV_LOCK = "pyproject.toml", "setup.py", "uv.lock"
NESTED_MAX = 64
_CONFIGURATION = (".config/pip/pip.conf", ".pip/pip.conf")
_RESOLVE = (
    *("install", "--dry-run", "--ignore-installed", "--only-binary", ":all:", "--quiet"),
    *("--no-input", "--disable-pip-version-check"),
)
# The interpreter itself: pyenv's shim rehashes after an install, which fails where it is read-only.
# Debian's python3 has no pip of its own; one that ensurepip brings serves as well.
_SCRIPT = """
python=$(python3 -c 'import sys; print(sys.executable)') || exit 127
"$python" -m pip --version >/dev/null 2>&1 ||
  { "$python" -m venv /tmp/pip && python=/tmp/pip/bin/python; } || exit 127
"""


class Pip(Manager):
    """pip and the indexes that it is configured for."""

    name = "pip"
    layout = 2

    def find(self, folder: ProjectFolder) -> Found | None:
        """Requirement files, with those that they name, and the project's own file."""
        first = [name for name in sorted(folder.names) if _is_requirements(name)]
        files = _with_nested(folder, first)
        inner = "requirements"
        if inner in folder.names:
            files |= _with_nested(folder, [f"{inner}/{name}" for name in _texts_in(folder, inner)])
        further = [name for name in (PROJECT, SETUP) if name in folder.names]
        files |= folder.files(further)
        if UV_LOCK in folder.names:
            files |= {folder.inside(UV_LOCK): b""}  # that it is there
        named = [path for path in files if not path.endswith(UV_LOCK)]
        if not any(path.endswith(".txt") for path in named) and not _names_anything(files):
            return None
        return Found(self.name, folder.path, {path: files[path] for path in (*named, *files)})

    def context(self) -> str:
        """The interpreter that packages are for."""
        path = self.settings.variables.get("PATH", "")
        version = self.settings.variables.get("PYENV_VERSION", "")
        return f"{shutil.which('python3', path=path)} {version}"

    def read(self, found: Found) -> Lock:
        """Names; files and versions only an index and pip's resolver know.

        Raises:
            ProjectError: pyproject.toml is no TOML.
        """
        groups = list(_groups(found))
        files = [file for group in groups for file in group.read]
        pinned = {name for file in files for name in file.digests}
        unpinned = {name for file in files for name in file.unpinned} - pinned
        lines = (line for file in files for line in file.repositories)
        return Lock(
            unresolved=tuple(sorted({name for file in files for name in file.names})),
            unpinned=tuple(sorted(unpinned)),
            problems=tuple(
                Problem(entry=line[:200], why="repositories are not fetched yet") for line in lines
            ),
        )

    async def resolve(self, session: Session, found: Found, lock: Lock) -> tuple[Artifact, ...]:
        """All files that pip would install, for each group of requirements.

        Raises:
            DependencyUnavailable: pip finds no wheels that fit together.
            DependencyRejected: an index names a digest that the requirement files do not allow.
        """
        groups = list(_groups(found))
        indexes = self._indexes(groups)
        result = await session.run(
            ToolRun(
                ["sh", "-c", _script(groups)],
                files={name: text for group in groups for name, text in group.files.items()},
                variables={
                    "PIP_INDEX_URL": indexes[0],
                    "PIP_EXTRA_INDEX_URL": " ".join(self._callers_extra()),
                    "PIP_NO_CACHE_DIR": "1",
                },
                egress=sorted(_hosts(indexes)),
            )
        )
        artifacts: dict[str, Artifact] = {}
        for number, group in enumerate(groups):
            report = result.folder / f"report-{number}.json"
            if not report.is_file() or report.is_symlink():
                raise _not_resolved(group, result.output)
            for artifact in _reported(report.read_bytes(), group):
                artifacts.setdefault(artifact.digest, artifact)
        return tuple(artifacts.values())

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """One folder of wheels."""
        for _, fetched in sets:
            for stored in fetched.files:
                hard_link(session.file(stored), view / stored.artifact.file)

    def access(self, view: str) -> Access:
        """pip and uv look there before, and without a network instead of, an index."""
        return Access({"PIP_FIND_LINKS": view, "UV_FIND_LINKS": view}, folders=(view,))

    # --- the caller's configuration

    def credentials(self, url: str) -> Mapping[str, str]:
        """Of an index whose address has a login, for its host; else as `Manager` has it."""
        for index in (self._callers_index(), *self._callers_extra()):
            parts = urlsplit(index)
            if parts.username and host_of(index) == host_of(url):
                return basic(unquote(parts.username), unquote(parts.password or ""))
        return super().credentials(url)

    def named_hosts(self) -> frozenset[str]:
        """The caller's own indexes."""
        own = (self._callers_index(), *self._callers_extra())
        return frozenset(host_of(index) for index in own if index != INDEX)

    def _indexes(self, groups: Iterable[_Group]) -> list[str]:
        of_files = [index for group in groups for file in group.read for index in file.indexes]
        return [self._callers_index(), *self._callers_extra(), *of_files]

    def _callers_index(self) -> str:
        return self._configured("index-url") or INDEX

    def _callers_extra(self) -> list[str]:
        return self._configured("extra-index-url").split()

    def _configured(self, key: str) -> str:
        """A setting of pip's: the variable, else the caller's file, else the machine's."""
        variable = f"PIP_{key.upper().replace('-', '_')}"
        if self.settings.variables.get(variable):
            return self.settings.variables[variable]
        for path in _CONFIGURATION:
            parser = configparser.RawConfigParser(strict=False)
            try:
                parser.read_string(self.settings.text(path))
            except configparser.Error:
                continue
            for section in ("install", "global"):
                if parser.has_option(section, key):
                    return " ".join(parser.get(section, key).split())
        return ""


class _Group(NamedTuple):
    """Requirements that are installed together."""

    title: str
    arguments: tuple[str, ...]  # of pip
    files: Mapping[str, bytes]  # to lie where pip starts
    read: tuple[RequirementsFile, ...]


def _groups(found: Found) -> Iterator[_Group]:
    """Each requirement file that no other one names, and what the project's own file names."""
    texts = {
        path: content.decode(errors="replace")
        for path, content in found.files.items()
        if path.endswith(".txt")
    }
    read = {path: read_requirements(text) for path, text in texts.items()}
    nested = {
        posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        for path, file in read.items()
        for name in file.nested
    }
    files = {path: file.kept.encode() for path, file in read.items()}
    for path in read:
        if path not in nested:
            yield _Group(path, ("-r", path), files, tuple(read.values()))
    yield from _project_groups(found)


def _project_groups(found: Found) -> Iterator[_Group]:
    project = next((path for path in found.files if path.endswith(PROJECT)), None)
    setup = any(path.endswith(SETUP) for path in found.files)
    if project is None:
        if setup:
            yield _inline("setup.py's back end", ("setuptools>=40.8.0", "wheel"))
        return
    try:
        needs = read_project(found.files[project].decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProjectError(
            "CR-FETCH-006", f"expected TOML: {error}", where=f"{project}:1:1"
        ) from error
    if needs is None:
        return
    if needs.build:
        yield _inline(f"{project}: build-system.requires", needs.build)
    # With a lock of uv's the project's own dependencies are that lock's.
    if any(path.endswith(UV_LOCK) for path in found.files):
        return
    if needs.dependencies:
        yield _inline(f"{project}: dependencies", needs.dependencies)
    for name, texts in needs.optional.items():
        yield _inline(f"{project}: {name}", (*needs.dependencies, *texts))


def _inline(title: str, requirements: Iterable[str]) -> _Group:
    """Requirements that stand in no file of their own."""
    text = "\n".join(requirements) + "\n"
    read = read_requirements(text)
    name = f"group-{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
    return _Group(title, ("-r", name), {name: read.kept.encode()}, (read,))


def _script(groups: Sequence[_Group]) -> str:
    words = (
        (*_RESOLVE, "--report", f"report-{number}.json", *group.arguments)
        for number, group in enumerate(groups)
    )
    return _SCRIPT + "\n".join(f'"$python" -m pip {shlex.join(line)} || exit 1' for line in words)


def _hosts(indexes: Iterable[str]) -> set[str]:
    hosts = {host_of(index) for index in indexes}
    return hosts | {host_of(FILES_OF_INDEX)} if host_of(INDEX) in hosts else hosts


# --- files


def _is_requirements(name: str) -> bool:
    return name.endswith(".txt") and "requirements" in name.lower()


def _texts_in(folder: ProjectFolder, inner: str) -> list[str]:
    return sorted(name for name in folder.names_in(inner) if name.endswith(".txt"))


def _with_nested(folder: ProjectFolder, names: Iterable[str]) -> dict[str, bytes]:
    """These files and those that they name, by their paths relative to the project."""
    found: dict[str, bytes] = {}
    pending = list(names)
    while pending and len(found) < NESTED_MAX:
        name = pending.pop(0)
        path = folder.inside(name)
        content = None if path in found else folder.read(name)
        if content is None:
            continue
        found[path] = content
        around = posixpath.dirname(name)
        nested = read_requirements(content.decode(errors="replace")).nested
        pending += [posixpath.join(around, inner) for inner in nested]
    return found


def _names_anything(files: Mapping[str, bytes]) -> bool:
    for path, content in files.items():
        if path.endswith(SETUP):
            return True
        if path.endswith(PROJECT):
            try:
                return read_project(content.decode()) is not None
            except (UnicodeDecodeError, tomllib.TOMLDecodeError):
                return False
    return False


# --- pip's report


def _reported(content: bytes, group: _Group) -> Iterator[Artifact]:
    """The files of one report.

    Raises:
        DependencyRejected: a digest is none that the requirement files allow.
    """
    allowed: dict[str, frozenset[str]] = {}
    for file in group.read:
        for name, digests in file.digests.items():
            allowed[name] = allowed.get(name, frozenset()) | digests
    report: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    for entry in report.get("install", []):
        metadata, download = entry["metadata"], entry["download_info"]
        name, version = str(metadata["name"]), str(metadata["version"])
        hashes = download.get("archive_info", {}).get("hashes", {})
        digest = f"sha256:{hashes['sha256']}" if "sha256" in hashes else ""
        wanted = allowed.get(normalised(name))
        if wanted and digest not in wanted:
            raise _not_allowed(name, version, digest)
        parts = urlsplit(str(download["url"]))
        plain = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")
        called = posixpath.basename(unquote(parts.path))
        if not called.endswith((".whl", ".tar.gz", ".zip")):
            raise _not_allowed(name, version, f"a file called {called!r}")
        yield Artifact(
            name=name,
            version=version,
            file=called,
            url=urlunsplit(plain),
            digest=digest,
            purl=f"pkg:pypi/{quote(normalised(name))}@{quote(version)}",
        )


def _not_allowed(name: str, version: str, found: str) -> DependencyRejected:
    return DependencyRejected(
        "CR-FETCH-001",
        f"{name} {version}: the requirement files do not allow {found or 'a file without digest'}",
        hint="do not use it: find out who changed the index or the requirement files",
    )


def _not_resolved(group: _Group, output: bytes) -> DependencyUnavailable:
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    text = "; ".join(line.strip() for line in lines[-3:])[-500:] or "it said nothing"
    return DependencyUnavailable(
        "CR-FETCH-009",
        f"{group.title}: pip cannot resolve it from wheels alone: {text}",
        hint="a package without a wheel is built by its own code: build it in a phase with egress",
    )
