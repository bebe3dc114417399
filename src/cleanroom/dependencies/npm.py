"""npm: `package-lock.json` of versions 2 and 3, and npm's own cache, by content.

npm looks a package up in `_cacache/content-v2` by the digest that the lock names, before it asks
a registry (pacote, `FetcherBase.tarballStream`). So a cache needs no index of addresses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from cleanroom.dependencies.digests import from_integrity
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import Access, Artifact, Complete, Found, Lock, Problem
from cleanroom.dependencies.session import Manager, Session
from cleanroom.dependencies.store import hard_link
from cleanroom.model.errors import ProjectError

LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
REGISTRY = "https://registry.npmjs.org"
_NAME = re.compile(r"(@[\w.~-]+/)?[\w.~-]+")
_VERSION = re.compile(r"[\w.+-]+")


class Npm(Manager):
    """npm and its registry."""

    name = "npm"

    def find(self, folder: ProjectFolder) -> Found | None:
        """The lock that npm would use in this folder."""
        files = folder.files(name for name in LOCKS if name in folder.names)
        if not files:
            return None
        first = next(iter(files))
        return Found(self.name, folder.path, {first: files[first]})

    def read(self, found: Found) -> Lock:
        """The packages of the lock that are for this platform.

        Raises:
            ProjectError: it is no lock of version 2 or 3.
        """
        return read_lock(found.name, found.files[found.name], self._registry())

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """npm's cache: content by its digest."""
        for stored in (one for _, fetched in sets for one in fetched.files):
            hard_link(session.file(stored), view / _content_path(stored.artifact.digest))

    def access(self, view: str) -> Access:
        """npm reads the cache where it lies and logs elsewhere."""
        variables = {"npm_config_cache": view, "npm_config_logs_dir": "/tmp/npm-logs"}  # noqa: S108
        return Access(variables, folders=(view,))

    def local_copies(self, artifact: Artifact) -> Sequence[Path]:
        """npm's own cache has files under their digest."""
        cache = self.settings.variables.get("npm_config_cache") or self.settings.home / ".npm"
        return (Path(cache) / _content_path(artifact.digest),)

    def _registry(self) -> str:
        return REGISTRY


def read_lock(path: str, content: bytes, registry: str = REGISTRY) -> Lock:
    """The packages that a lock names for this platform, with their addresses.

    Raises:
        ProjectError: it is no lock of version 2 or 3.
    """
    try:
        document: Any = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise _unreadable(path, str(error)) from error
    packages = document.get("packages") if isinstance(document, dict) else None
    if not isinstance(packages, dict):
        raise _unreadable(path, "it has no 'packages'; `npm install` writes version 3")
    artifacts: dict[str, Artifact] = {}
    problems = []
    for place, entry in packages.items():
        if not isinstance(entry, dict) or not _is_fetched(place, entry):
            continue
        found = _artifact(place, entry, registry)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            artifacts[found.digest] = found
    return Lock(artifacts=tuple(artifacts.values()), problems=tuple(problems))


def _content_path(digest: str) -> str:
    """Where npm's cache has the content with this digest."""
    name, _, value = digest.partition(":")
    return f"_cacache/content-v2/{name}/{value[:2]}/{value[2:4]}/{value[4:]}"


def _is_fetched(place: str, entry: Mapping[str, Any]) -> bool:
    """Whether npm would take it from a registry on this platform."""
    if "node_modules/" not in place or entry.get("link") or entry.get("inBundle"):
        return False
    if not entry.get("optional"):
        return True
    return _fits(entry.get("os"), "linux") and _fits(entry.get("cpu"), _processor())


def _fits(wanted: object, have: str) -> bool:
    if not isinstance(wanted, list):
        return True
    refused = [name[1:] for name in wanted if str(name).startswith("!")]
    named = [name for name in wanted if not str(name).startswith("!")]
    return have not in refused and (not named or have in named)


def _processor() -> str:
    """This machine, as Node.js names it."""
    machine = os.uname().machine
    return {"x86_64": "x64", "aarch64": "arm64", "i686": "ia32"}.get(machine, machine)


def _artifact(place: str, entry: Mapping[str, Any], registry: str) -> Artifact | Problem:
    name = str(entry.get("name") or place.rpartition("node_modules/")[2])
    version = str(entry.get("version", ""))
    digest = from_integrity(str(entry.get("integrity", "")))
    address = str(entry.get("resolved") or "")
    if address and urlsplit(address).scheme not in ("https", "http"):
        return Problem(
            entry=place, why=f"{address.partition('+')[0]} dependencies are not fetched yet"
        )
    if not _VERSION.fullmatch(version) or not _NAME.fullmatch(name):
        return Problem(entry=place, why="its name or version is none that npm has")
    if not digest:
        return Problem(
            entry=place, why="it has no digest", hint="`npm install` writes one into the lock"
        )
    short = name.rpartition("/")[2]
    return Artifact(
        name=name,
        version=version,
        file=f"{short}-{version}.tgz",
        url=address or f"{registry}/{name}/-/{short}-{version}.tgz",
        digest=digest,
        purl=f"pkg:npm/{quote(name, safe='/')}@{version}",
    )


def _unreadable(path: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006", f"expected npm's lock of version 2 or 3: {why}", where=f"{path}:1:1"
    )
