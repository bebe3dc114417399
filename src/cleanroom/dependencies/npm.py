"""npm: `package-lock.json` of versions 2 and 3, and npm's own cache, by content.

npm looks a package up in `_cacache/content-v2` by the digest that the lock names, before it asks
a registry (pacote, `FetcherBase.tarballStream`). So the cache needs no index of files' addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.digests import from_integrity, to_integrity
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
)
from cleanroom.dependencies.node_packages import (
    SETTINGS,
    NodeManager,
    content_path,
    default_address,
    fits_platform,
    is_package,
    project_settings,
    purl,
    tarball_name,
)
from cleanroom.dependencies.npmrc import Npmrc
from cleanroom.dependencies.session import Session
from cleanroom.dependencies.store import hard_link
from cleanroom.model.errors import ProjectError

LOCKS = ("npm-shrinkwrap.json", "package-lock.json")
# npm takes a cached answer to the same question only: it asks for either form of a document.
ACCEPTED = (
    "application/json",
    "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8, */*",
)
AddressOf = Callable[[str, str], str]


class Npm(NodeManager):
    """npm and its registry."""

    name = "npm"
    layout = 4

    def find(self, folder: ProjectFolder) -> Found | None:
        """The lock that npm would use in this folder, and the project's own settings."""
        files = folder.files(name for name in LOCKS if name in folder.names)
        if not files:
            return None
        first = next(iter(files))
        settings = folder.files((SETTINGS,)) if SETTINGS in folder.names else {}
        return Found(self.name, folder.path, {first: files[first], **settings})

    def read(self, found: Found) -> Lock:
        """The packages of the lock that are for this platform.

        Raises:
            ProjectError: it is no lock of version 2 or 3.
        """
        project = project_settings(found)

        def address(name: str, resolved: str) -> str:
            return self.address(project, name, resolved)

        return read_lock(found.name, found.files[found.name], address)

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """npm's cache: content by its digest, and what a registry says of each package."""
        for found, fetched in sets:
            project = project_settings(found)
            for stored in fetched.files:
                one = stored.artifact
                hard_link(session.file(stored), view / content_path(one.digest))
                _add_answer(view, _tarball(project, one), one.digest, stored.size, {})
            for url, document in _packuments(project, fetched):
                _add_document(view, url, document)

    def access(self, view: str) -> Access:
        """npm writes its index anew where it reads it, so phases have it copy-on-write."""
        variables = {"npm_config_cache": view, "npm_config_logs_dir": "/tmp/npm-logs"}  # noqa: S108
        return Access(variables, overlays=(Overlay(view, view),))


def _tarball(project: Npmrc, one: Artifact) -> str:
    """The address of a file, as phases see the registry."""
    return f"{project.registry(one.name)}/{one.name}/-/{one.file}"


def _packuments(project: Npmrc, fetched: Fetched) -> Iterator[tuple[str, bytes]]:
    """Address and content of each package's document, as far as the lock knows it.

    npm asks for it where a lock leaves addresses out, which `omit-lockfile-registry-resolved` does.
    """
    versions: dict[str, dict[str, object]] = {}
    for stored in fetched.files:
        one = stored.artifact
        dist = {"tarball": _tarball(project, one), "integrity": to_integrity(one.digest)}
        version = {"name": one.name, "version": one.version, "dist": dist}
        versions.setdefault(one.name, {})[one.version] = version
    for name, known in sorted(versions.items()):
        newest = next(reversed(known))
        document = {"name": name, "dist-tags": {"latest": newest}, "versions": known}
        url = f"{project.registry(name)}/{name.replace('/', '%2f')}"
        yield url, msgspec.json.encode(document)


def _add_document(view: Path, url: str, content: bytes) -> None:
    """Add what a registry says of a package to npm's cache."""
    digest = f"sha512:{hashlib.sha512(content).hexdigest()}"
    place = view / content_path(digest)
    place.parent.mkdir(parents=True, exist_ok=True)
    # A lock may name a package that is this very text: then it is the store's file.
    if not place.exists():
        place.write_bytes(content)
    for accept in ACCEPTED:
        _add_answer(view, url, digest, len(content), {"accept": accept})


def _add_answer(view: Path, url: str, digest: str, size: int, asked: Mapping[str, str]) -> None:
    """Add an answer, whose content is there, to the index of npm's cache (cacache, `index-v5`)."""
    key = f"make-fetch-happen:request-cache:{url}"
    entry = msgspec.json.encode(
        {
            "key": key,
            "integrity": to_integrity(digest),
            "time": 0,
            "size": size,
            "metadata": {
                "time": 0,
                "url": url,
                "reqHeaders": asked,
                "resHeaders": {"content-type": "application/octet-stream"},
                "options": {"compress": True},
            },
        }
    )
    bucket = hashlib.sha256(key.encode()).hexdigest()
    index = view / "_cacache/index-v5" / bucket[:2] / bucket[2:4] / bucket[4:]
    index.parent.mkdir(parents=True, exist_ok=True)
    checksum = hashlib.sha1(entry, usedforsecurity=False).hexdigest()
    with index.open("ab") as stream:
        stream.write(f"\n{checksum}\t".encode() + entry)


def read_lock(path: str, content: bytes, address: AddressOf) -> Lock:
    """The packages that a lock names for this platform.

    `address` gives the address of a file: of a name, and what the lock says.

    Raises:
        ProjectError: it is no lock of version 2 or 3.
    """
    try:
        document: Any = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    packages = document.get("packages") if isinstance(document, dict) else None
    if not isinstance(packages, dict):
        raise _unreadable(path, "it has no 'packages'; `npm install` writes version 3")
    artifacts: dict[str, Artifact] = {}
    problems = []
    for place, entry in packages.items():
        if not isinstance(entry, dict) or not _is_fetched(place, entry):
            continue
        found = _artifact(place, entry, address)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            artifacts[found.digest] = found
    return Lock(artifacts=tuple(artifacts.values()), problems=tuple(problems))


def _is_fetched(place: str, entry: Mapping[str, Any]) -> bool:
    """Whether npm would take it from a registry on this platform."""
    if "node_modules/" not in place or entry.get("link") or entry.get("inBundle"):
        return False
    return not entry.get("optional") or fits_platform(entry)


def _artifact(place: str, entry: Mapping[str, Any], address_of: AddressOf) -> Artifact | Problem:
    name = str(entry.get("name") or place.rpartition("node_modules/")[2])
    version = str(entry.get("version", ""))
    digest = from_integrity(str(entry.get("integrity", "")))
    address = str(entry.get("resolved") or "")
    if address and not address.startswith(("https:", "http:")):
        return Problem(
            entry=place, why=f"{address.partition('+')[0][:100]} dependencies are not fetched yet"
        )
    if not is_package(name, version):
        return Problem(entry=place, why="its name or version is none that npm has")
    if not digest:
        return Problem(
            entry=place, why="it has no digest", hint="`npm install` writes one into the lock"
        )
    url = address_of(name, address or default_address(name, version))
    if not is_web_address(url):
        return Problem(entry=place, why="its address is no plain one of a file on the web")
    return Artifact(
        name=name,
        version=version,
        file=tarball_name(name, version),
        url=url,
        digest=digest,
        purl=purl(name, version),
    )


def _unreadable(path: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006", f"expected npm's lock of version 2 or 3: {why}", where=f"{path}:1:1"
    )
