"""yarn 1: `yarn.lock` of version 1, and a folder of packages (an offline mirror).

yarn looks a package up there by the file name in its address, before it asks a registry, and
verifies it against the lock.
The lock does not say for which platforms a package is, and yarn 1 wants all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.digests import from_integrity
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import Access, Artifact, Complete, Found, Lock, Problem
from cleanroom.dependencies.node_packages import (
    SETTINGS,
    NodeManager,
    is_package,
    project_settings,
    purl,
    tarball_name,
)
from cleanroom.dependencies.npmrc import REGISTRY
from cleanroom.dependencies.session import Session
from cleanroom.dependencies.store import hard_link
from cleanroom.model.errors import ProjectError

LOCK = "yarn.lock"
HEADER = b"# yarn lockfile v1"
MIRROR = "mirror"  # a folder of a view
DEFAULT_REGISTRY = "https://registry.yarnpkg.com"  # another name of npm's
_KEY = re.compile(r'"?((?:@[^@/"]+/)?[^@/"]+)@')
_FIELD = re.compile(r'  (version|resolved|integrity) "?([^"]*)"?')


class YarnClassic(NodeManager):
    """yarn 1 and the registries that its lock names."""

    name = "yarn-classic"

    def find(self, folder: ProjectFolder) -> Found | None:
        """The lock of this folder, and the project's registries."""
        lock = folder.read(LOCK) if LOCK in folder.names else None
        if lock is None or HEADER not in lock[:1024]:
            return None
        files = {folder.inside(LOCK): lock, **folder.files((SETTINGS,))}
        return Found(self.name, folder.path, files)

    def read(self, found: Found) -> Lock:
        """The packages of the lock.

        Raises:
            ProjectError: it is no lock of yarn 1.
        """
        project = project_settings(found)
        artifacts: dict[str, Artifact] = {}
        problems = []
        for key, fields in _entries(found):
            one = _artifact(key, fields)
            if isinstance(one, Problem):
                problems.append(one)
            elif one is not None:
                url = self.address(project, one.name, _named_as_npm(one.url))
                artifacts[one.digest] = msgspec.structs.replace(one, url=url)
        return Lock(artifacts=tuple(artifacts.values()), problems=tuple(problems))

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """The files by the names that yarn gives them."""
        folder = view / MIRROR
        folder.mkdir()
        for _, fetched in sets:
            for stored in fetched.files:
                hard_link(session.file(stored), folder / _mirror_name(stored.artifact))

    def access(self, view: str) -> Access:
        """yarn only reads it."""
        folder = f"{view}/{MIRROR}"
        return Access({"YARN_YARN_OFFLINE_MIRROR": folder}, folders=(folder,))


def _named_as_npm(url: str) -> str:
    if url.startswith(f"{DEFAULT_REGISTRY}/"):
        return f"{REGISTRY}{url.removeprefix(DEFAULT_REGISTRY)}"
    return url


def _mirror_name(one: Artifact) -> str:
    """As yarn names it: the scope goes before the name of the file."""
    scope = one.name.partition("/")[0] if one.name.startswith("@") else ""
    return f"{scope}-{one.file}" if scope else one.file


def _entries(found: Found) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Each entry's first line without its colon, and those of its fields that matter."""
    key, fields = "", dict[str, str]()
    for number, line in enumerate(_text(found).split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith(" "):
            if key:
                yield key, fields
            if not line.rstrip().endswith(":"):
                raise _unreadable(found.name, "an entry without a colon", number)
            key, fields = line.rstrip()[:-1], {}
        elif (matched := _FIELD.fullmatch(line.rstrip())) is not None:
            fields[matched[1]] = matched[2]
    if key:
        yield key, fields


def _text(found: Found) -> str:
    try:
        return found.files[found.name].decode()
    except UnicodeDecodeError as error:
        raise _unreadable(found.name, str(error), 1) from error


def _artifact(key: str, fields: Mapping[str, str]) -> Artifact | Problem | None:
    """What is to be fetched for an entry; None for nothing."""
    resolved, _, sha1 = fields.get("resolved", "").partition("#")
    if not resolved:
        return None  # a folder of the project
    if not is_web_address(resolved) or ".git" in resolved:
        return Problem(entry=key, why="git dependencies and local files are not fetched yet")
    name, version = _name(key, resolved), fields.get("version", "")
    if not is_package(name, version):
        return Problem(entry=key, why="its name or version is none that npm has")
    digest = from_integrity(fields.get("integrity", ""))
    if not digest and re.fullmatch(r"[0-9a-f]{40}", sha1):
        digest = f"sha1:{sha1}"
    if not digest:
        return Problem(entry=key, why="it has no digest", hint="`yarn install` writes one")
    file = unquote(urlsplit(resolved).path).rpartition("/")[2]
    if not is_package(file, version):
        file = tarball_name(name, version)
    return Artifact(
        name=name, version=version, file=file, url=resolved, digest=digest, purl=purl(name, version)
    )


def _name(key: str, resolved: str) -> str:
    """The package's own name: an alias is another one's."""
    matched = re.match(r"/((?:@[^/]+/)?[^/]+)/-/", unquote(urlsplit(resolved).path))
    if matched is not None:
        return matched[1]
    first = _KEY.match(key)
    return first[1] if first else ""


def _unreadable(path: str, why: str, line: int) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006",
        f"expected a lock of yarn 1: {why}",
        hint="`yarn install` writes one",
        where=f"{path}:{line}:1",
    )
