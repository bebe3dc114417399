"""uv: `uv.lock`, and uv's own cache, filled by uv itself from files that were verified before.

uv's cache has a layout of its own that changes from version to version, so uv writes it: it syncs a
copy of the lock, in which every address leads to a server on the loopback, into an environment that
is thrown away.

No package is built: that would run its code. uv unpacks a source archive only to build it, so it is
left to begin: it reaches no package that the build needs, and no Python can start. A phase builds
what the cache has then. uv uses an archive of its cache for its own address only, so it gets these
under theirs, by a proxy on the loopback.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from cleanroom.dependencies import direct_files, uv_lock
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import (
    Access,
    Artifact,
    Complete,
    Fetched,
    Found,
    Lock,
    Overlay,
    Problem,
    Stored,
)
from cleanroom.dependencies.python_interpreter import UV_VARIABLES, uv_question
from cleanroom.dependencies.python_projects import uv_members
from cleanroom.dependencies.python_tags import Interpreter, read_interpreter
from cleanroom.dependencies.session import SERVED as MARK
from cleanroom.dependencies.session import WORK, Manager, Session, ToolRun
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.store import take_folder
from cleanroom.dependencies.uv_config import authorization, indexes
from cleanroom.dependencies.uv_lock import Package
from cleanroom.model.errors import DependencyUnavailable

LOCK, PROJECT = "uv.lock", "pyproject.toml"
NO_PYTHON = "/nonexistent"
CACHE = "cache"  # in the folder that uv starts in
SYNC = (
    *("uv", "sync", "--frozen", "--all-groups", "--all-extras", "--all-packages"),
    *("--no-install-workspace", "--no-install-local", "--no-progress"),
)


class Uv(Manager):
    """uv and the registries that its lock names."""

    name = "uv"
    layout = 3

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._indexes = indexes(settings)

    def credentials(self, url: str) -> Mapping[str, str]:
        """Those of the caller's index for its own host, else those of netrc."""
        return authorization(self._indexes, url) or super().credentials(url)

    def named_hosts(self) -> frozenset[str]:
        """Those of the caller's indexes."""
        return frozenset(one.host for one in self._indexes)

    def find(self, folder: ProjectFolder) -> Found | None:
        """The lock of this folder, and the project files of the members that it names."""
        content = folder.read(LOCK) if LOCK in folder.names else None
        if content is None:
            return None
        members = [f"{member}/{PROJECT}" for member in uv_members(LOCK, content) if member != "."]
        further = folder.files((PROJECT, ".python-version", *members))
        return Found(self.name, folder.path, {folder.inside(LOCK): content, **further})

    def read(self, found: Found) -> Lock:
        """The packages of registries; which of their wheels is fetched `resolve` decides.

        Raises:
            ProjectError: it is no lock of uv's.
        """
        packages = _packages(found)
        problems = [problem for package in packages if (problem := uv_lock.problem(package))]
        registered = [package for package in packages if uv_lock.has_files(package)]
        fetched = [package for package in registered if uv_lock.problem(package) is None]
        names = {uv_lock.entry(package) for package in fetched}
        return Lock(unresolved=tuple(sorted(names)), problems=tuple(problems))

    async def resolve(self, session: Session, found: Found, lock: Lock) -> tuple[Artifact, ...]:
        """For each package the wheel that fits the interpreter which uv takes, or its source.

        Raises:
            DependencyUnavailable: uv is not there, or finds no interpreter.
        """
        interpreter = await self._interpreter(session, found)
        packages = _packages(found)
        registered = (package for package in packages if uv_lock.has_files(package))
        wheels = (uv_lock.wheel(package, interpreter) for package in registered)
        sources = uv_lock.built(packages, interpreter)
        if interpreter.implementation != "cpython":
            # What keeps a build from running is a variable that CPython obeys.
            for one in sources:
                session.note(_not_unpacked(one, f"{interpreter.implementation} has no wheel of it"))
            sources = []
        for problem in uv_lock.unfit(packages, interpreter):
            session.note(problem)
        artifacts = [*(wheel for wheel in wheels if wheel is not None), *sources]
        direct = {one["name"] for one in packages if uv_lock.has_own_address(one)}
        came = await direct_files.had(session, [one for one in artifacts if one.name in direct])
        return (*(one for one in artifacts if one.name not in direct), *came)

    async def _interpreter(self, session: Session, found: Found) -> Interpreter:
        result = await session.run(uv_question(found))
        if result.exit_code:
            raise _uv_failed(found, result.output)
        return read_interpreter(result.output)

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """uv's cache, as uv writes it.

        Raises:
            DependencyUnavailable: uv fails.
        """
        files: dict[str, bytes] = {}
        served: dict[str, Path] = {}
        commands = []
        for number, (found, fetched) in enumerate(sets):
            served |= {_path(one.artifact.url): session.file(one) for one in fetched.files}
            written = dict(found.files)
            packages = _packages(found)
            proxied, led = _told_apart(packages, fetched.files)
            written[found.name] = _led_to_server(written[found.name], led)
            files |= {f"{number}/{path}": content for path, content in written.items()}
            words = [*SYNC, "--no-build", *_without(packages, led)]
            place = shlex.quote(os.path.join(str(number), found.folder))
            commands.append(f"(cd {place} && {shlex.join(words)})")
            for one in proxied:
                proxied_words = shlex.join(_proxied(packages, one))
                may_fail = " || true" if _is_source(one) else ""
                commands.append(f"(cd {place} && {{ {proxied_words}{may_fail}; }})")
        result = await session.run(
            ToolRun(
                ["sh", "-ec", " && ".join(commands)],
                files=files,
                variables={
                    **UV_VARIABLES,
                    "UV_CACHE_DIR": f"{WORK}/{CACHE}",
                    # Beside the cache: on another file system its files would be copies.
                    "UV_PROJECT_ENVIRONMENT": f"{WORK}/environment",
                    "UV_LINK_MODE": "hardlink",
                },
                served=served,
            )
        )
        if result.exit_code:
            raise _uv_failed(sets[0].found, result.output)
        take_folder(result.folder / CACHE, view / CACHE)
        for source in (one for _, fetched in sets for one in _sources(fetched)):
            if not _is_unpacked(view / CACHE, source.artifact):
                session.note(_not_unpacked(source.artifact, "uv does not take its source archive"))

    def access(self, view: str) -> Access:
        """uv writes to its cache, so phases have it copy-on-write."""
        cache = f"{view}/{CACHE}"
        variables = {
            "UV_CACHE_DIR": cache,
            "UV_LINK_MODE": "copy",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        return Access(variables, overlays=(Overlay(cache, cache),))


def _packages(found: Found) -> list[dict[str, Any]]:
    return uv_lock.packages(found.name, found.files[found.name])


def _without(packages: Iterable[Package], files: Iterable[Stored]) -> list[str]:
    """The words by which uv leaves out what is not among these files."""
    have = {one.artifact.name for one in files}
    fetched = ("registry", "git", "url")
    names = {
        one["name"]
        for one in packages
        if one["name"] not in have and any(kind in one["source"] for kind in fetched)
    }
    return [f"--no-install-package={name}" for name in sorted(names)]


# --- what is kept under its own address


def _told_apart(
    packages: Sequence[Package], files: Iterable[Stored]
) -> tuple[list[Stored], list[Stored]]:
    """Those that uv finds again by their address alone, and those that it finds by their name."""
    direct = {one["name"] for one in packages if uv_lock.has_own_address(one)}
    told: tuple[list[Stored], list[Stored]] = ([], [])
    for one in files:
        told[0 if _is_source(one) or one.artifact.name in direct else 1].append(one)
    return told


def _is_source(one: Stored) -> bool:
    return one.artifact.file.endswith(uv_lock.SDISTS)


def _sources(fetched: Fetched) -> Iterator[Stored]:
    return (one for one in fetched.files if _is_source(one))


def _proxied(packages: Iterable[Package], one: Stored) -> list[str]:
    """The words by which uv keeps a file under its own address; a source it fails to build."""
    variables = {
        "HTTPS_PROXY": MARK,
        "HTTP_PROXY": MARK,
        "UV_INSECURE_HOST": urlsplit(one.artifact.url).netloc,
        "UV_HTTP_RETRIES": "0",
        # The Python of a build does not start. That which uv asks what it is, with -I, does.
        "PYTHONHOME": NO_PYTHON,
    }
    words = [f"{name}={value}" for name, value in variables.items()]
    building = [] if _is_source(one) else ["--no-build"]
    return ["env", *words, *SYNC, *building, *_without(packages, [one])]


def _is_unpacked(cache: Path, source: Artifact) -> bool:
    inside = f"{source.name}/{source.version}/revision.http"
    places = (f"pypi/{inside}", f"index/*/{inside}", "url/*/revision.http")
    return any(any(cache.glob(f"sdists-v*/{place}")) for place in places)


def _not_unpacked(source: Artifact, why: str) -> Problem:
    return Problem(
        entry=f"{source.name} {source.version}",
        why=f"{why}, and to build one here would run its code",
        hint="build it in a phase with egress",
    )


# --- the copy of the lock


def _path(url: str) -> str:
    """Where the server has the file of an address."""
    parts = urlsplit(url)
    return f"/{parts.netloc}{unquote(parts.path)}"


def _led_to_server(lock: bytes, files: Iterable[Stored]) -> bytes:
    for one in files:
        url = one.artifact.url
        lock = lock.replace(f'"{url}"'.encode(), f'"{MARK}{quote(_path(url))}"'.encode())
    return lock


def _uv_failed(found: Found, output: bytes) -> DependencyUnavailable:
    lines = output.decode(errors="replace").strip().splitlines()[-3:]
    text = "; ".join(line.strip() for line in lines)[-400:] or "it said nothing"
    return DependencyUnavailable(
        "CR-FETCH-009",
        f"{found.name}: uv cannot prepare its packages: {text}",
        hint="install uv where PATH leads to it, and see that `uv sync` works",
    )
