"""uv: `uv.lock`, and uv's own cache, filled by uv itself from files that were verified before.

uv's cache has a layout of its own that changes from version to version, so uv writes it: it syncs a
copy of the lock, in which every address leads to a server on the loopback, into an environment that
is thrown away. No package is built: that would run its code.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.digests import STRONG, algorithm, is_digest
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.git_requirements import of_uv
from cleanroom.dependencies.model import (
    Access,
    Artifact,
    Complete,
    Found,
    Lock,
    Overlay,
    Problem,
    Stored,
)
from cleanroom.dependencies.python_projects import uv_members
from cleanroom.dependencies.python_tags import PROGRAM as TAGS_PROGRAM
from cleanroom.dependencies.python_tags import Interpreter, best_wheel, read_interpreter
from cleanroom.dependencies.session import SERVED as MARK
from cleanroom.dependencies.session import WORK, Manager, Session, ToolRun
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.store import take_folder
from cleanroom.dependencies.toml_reader import read_toml
from cleanroom.dependencies.uv_config import authorization, indexes
from cleanroom.model.errors import DependencyUnavailable, ProjectError

LOCK, PROJECT = "uv.lock", "pyproject.toml"
TAGS = "cleanroom-tags.py"
CACHE = "cache"  # in the folder that uv starts in
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,198}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9.!+_-]{0,200}")
_SIZE_MAX = 1 << 40
SYNC = (
    *("uv", "sync", "--frozen", "--all-groups", "--all-extras", "--all-packages", "--no-build"),
    *("--no-install-workspace", "--no-install-local", "--no-progress"),
)
_VARIABLES = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1"}


class Uv(Manager):
    """uv and the registries that its lock names."""

    name = "uv"
    layout = 2

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
        problems = [problem for package in packages if (problem := _problem(package))]
        registered = [package for package in packages if _registry(package)]
        names = {_entry(package) for package in registered if _problem(package) is None}
        return Lock(unresolved=tuple(sorted(names)), problems=tuple(problems))

    async def resolve(self, session: Session, found: Found, lock: Lock) -> tuple[Artifact, ...]:
        """For each package the wheel that fits the interpreter which uv takes.

        Raises:
            DependencyUnavailable: uv is not there, or finds no interpreter.
        """
        interpreter = await self._interpreter(session, found)
        packages = [package for package in _packages(found) if _registry(package)]
        artifacts = (_wheel(package, interpreter) for package in packages)
        return tuple(artifact for artifact in artifacts if artifact is not None)

    async def _interpreter(self, session: Session, found: Found) -> Interpreter:
        # They lie as in the project: a lock may name members in folders above it.
        folder = shlex.quote(os.path.join("project", found.folder))
        script = f'cd {folder}; python=$(uv python find) && exec "$python" "$0"'
        result = await session.run(
            ToolRun(
                ["sh", "-ec", script, f"{WORK}/{TAGS}"],
                files={
                    **{f"project/{path}": content for path, content in found.files.items()},
                    TAGS: TAGS_PROGRAM.encode(),
                },
                variables={**_VARIABLES, "UV_CACHE_DIR": "/tmp/uv"},  # noqa: S108
            )
        )
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
            written[found.name] = _led_to_server(written[found.name], fetched.files)
            files |= {f"{number}/{path}": content for path, content in written.items()}
            without = _without_wheel(_packages(found), fetched.files)
            words = [*SYNC, *(f"--no-install-package={name}" for name in without)]
            place = shlex.quote(os.path.join(str(number), found.folder))
            commands.append(f"(cd {place} && {shlex.join(words)})")
        result = await session.run(
            ToolRun(
                ["sh", "-ec", " && ".join(commands)],
                files=files,
                variables={
                    **_VARIABLES,
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

    def access(self, view: str) -> Access:
        """uv writes to its cache, so phases have it copy-on-write."""
        cache = f"{view}/{CACHE}"
        variables = {
            "UV_CACHE_DIR": cache,
            "UV_LINK_MODE": "copy",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        return Access(variables, overlays=(Overlay(cache, cache),))


# --- the lock


def _packages(found: Found) -> list[dict[str, Any]]:
    path = found.name
    try:
        document = read_toml(found.files[path])
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    packages: list[dict[str, Any]] = document.get("package", [])
    valid = isinstance(packages, list) and all(
        isinstance(one, dict)
        and _matches(_NAME, one.get("name"))
        and _matches(_VERSION, one.get("version", ""))
        and isinstance(one.get("source"), dict)
        and isinstance(one.get("wheels", []), list)
        for one in packages
    )
    if not valid:
        raise _unreadable(path, "it has packages whose name, version or source is none that uv has")
    return packages


def _matches(form: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def _registry(package: Mapping[str, Any]) -> bool:
    return "registry" in package["source"]


def _entry(package: Mapping[str, Any]) -> str:
    return f"{package['name']} {package.get('version', '')}".strip()


def _problem(package: Mapping[str, Any]) -> Problem | None:
    """Why a package cannot be had without running its code; None if it can."""
    entry = _entry(package)
    kind = next(iter(package["source"]), "")
    if kind == "git" and of_uv(package["name"], package["source"]["git"]) is not None:
        # pip's manager has it, with what it needs to be built
        return None
    if kind in ("git", "url"):
        return Problem(entry=entry, why=f"this {kind} source is not fetched")
    if kind == "registry" and not package.get("wheels"):
        return Problem(
            entry=entry,
            why="it has no wheel, and to build one runs its code",
            hint="build it in a phase with egress",
        )
    if kind == "registry" and not _wheels(package):
        return Problem(
            entry=entry,
            why="its wheels have no SHA-256, or no address on the web",
            hint="`uv lock` writes both",
        )
    return None


def _wheels(package: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The wheels that can be fetched and checked, by their file names."""
    return {
        unquote(urlsplit(one["url"]).path).rpartition("/")[2]: one
        for one in package.get("wheels", [])
        if isinstance(one, dict)
        and is_web_address(one.get("url"))
        and isinstance(one.get("hash"), str)
        and algorithm(one["hash"]) in STRONG
        and is_digest(one["hash"])
    }


def _wheel(package: Mapping[str, Any], interpreter: Interpreter) -> Artifact | None:
    """The package's wheel for this interpreter."""
    wheels = _wheels(package)
    name = best_wheel(wheels, interpreter)
    if name is None:
        return None
    wheel, version = wheels[name], str(package.get("version", ""))
    size = wheel.get("size", 0)
    return Artifact(
        name=package["name"],
        version=version,
        file=name,
        url=wheel["url"],
        digest=wheel["hash"],
        size=size if isinstance(size, int) and 0 < size < _SIZE_MAX else 0,
        purl=f"pkg:pypi/{quote(package['name'])}@{quote(version)}",
    )


def _without_wheel(packages: Iterable[Mapping[str, Any]], files: Iterable[Stored]) -> list[str]:
    have = {one.artifact.name for one in files}
    fetched = ("registry", "git", "url")
    return sorted(
        {
            one["name"]
            for one in packages
            if one["name"] not in have and any(kind in one["source"] for kind in fetched)
        }
    )


def _path(url: str) -> str:
    """Where the server has the file of an address."""
    parts = urlsplit(url)
    return f"/{parts.netloc}{unquote(parts.path)}"


def _led_to_server(lock: bytes, files: Iterable[Stored]) -> bytes:
    for one in files:
        url = one.artifact.url
        lock = lock.replace(f'"{url}"'.encode(), f'"{MARK}{quote(_path(url))}"'.encode())
    return lock


def _unreadable(path: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006",
        f"expected a lock of uv's, found another file: {why}",
        hint="`uv lock` writes one",
        where=f"{path}:1:1",
    )


def _uv_failed(found: Found, output: bytes) -> DependencyUnavailable:
    lines = output.decode(errors="replace").strip().splitlines()[-3:]
    text = "; ".join(line.strip() for line in lines)[-400:] or "it said nothing"
    return DependencyUnavailable(
        "CR-FETCH-009",
        f"{found.name}: uv cannot prepare its packages: {text}",
        hint="install uv where PATH leads to it, and see that `uv sync` works",
    )
