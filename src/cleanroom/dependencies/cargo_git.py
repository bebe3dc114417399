"""Packages that a `Cargo.lock` has from Git repositories, as directory sources of cargo's.

Cargo reads a package of such a source from each folder in one folder, and looks for a workspace
above it. So the repository lies in a hidden folder, as it is; beside it are links to its packages
and to what else lies beside the manifest of their workspace.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from cleanroom.dependencies.crates import CHECKSUMS
from cleanroom.dependencies.git_packs import Unsafe
from cleanroom.dependencies.git_sources import (
    GitSource,
    artifact,
    checked_url,
    checkout_whole,
    is_commit,
    refused,
)
from cleanroom.dependencies.model import Artifact
from cleanroom.dependencies.toml_reader import read_toml
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable

MANIFEST = "Cargo.toml"
REPOSITORY = ".repository"
PACKAGE = "cleanroom-"  # before the name of a package
_REFERENCES = ("branch", "tag", "rev")
_MANIFEST_MAX = 4 << 20


class GitCrate(NamedTuple):
    """One package of a lock that comes from a repository."""

    name: str
    version: str
    key: str  # the source as the lock has it, without the commit
    url: str  # of the repository, as cargo's configuration has it
    reference: tuple[str, str]  # ("branch", "main"); ("", "") for none
    commit: GitSource


class GitFolder(NamedTuple):
    """A source of cargo's that is laid out."""

    folder: str  # its name
    commit: GitSource
    crates: tuple[GitCrate, ...]

    @property
    def file(self) -> Artifact:
        """The file of the store that has the commit."""
        return artifact(self.commit, self.crates[0].name, self.crates[0].version)


def read_source(name: str, version: str, source: str) -> GitCrate | None:
    """The package of a lock's line `source = "git+https://..."`; None where it has no commit, or
    no address that may be fetched.
    """
    key, _, commit = source.partition("#")
    try:
        parts = urlsplit(key.removeprefix("git+"))
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return None
    url = parts._replace(query="").geturl()
    reference = next(((one, value) for one, value in query if one in _REFERENCES), ("", ""))
    plain = checked_url(url)
    if not plain or not is_commit(commit) or not key.isprintable() or len(key) > 2000:
        return None
    return GitCrate(name, version, key, url, reference, GitSource(plain, commit))


def artifacts(crates: Iterable[GitCrate]) -> list[Artifact]:
    """The commits of these packages, each once."""
    found: dict[GitSource, Artifact] = {}
    for one in crates:
        made = artifact(one.commit, one.name, quote(one.version), "cargo")
        found.setdefault(one.commit, made)
    return list(found.values())


def folders(crates: Iterable[GitCrate]) -> dict[str, GitFolder]:
    """The sources of all locks of a project, by their keys.

    Raises:
        DependencyRejected: two locks name different commits for one source.
    """
    found: dict[str, GitFolder] = {}
    for crate in crates:
        made = GitFolder(f"git-{len(found)}", crate.commit, ())
        folder = found.setdefault(crate.key, made)
        if folder.commit != crate.commit:
            raise DependencyRejected(
                "CR-FETCH-012",
                f"{crate.key}: two locks of the project name different commits of it",
                hint="`cargo update -p NAME` in one of them",
            )
        if crate not in folder.crates:
            found[crate.key] = folder._replace(crates=(*folder.crates, crate))
    return {key: one for key, one in found.items() if one.crates}


def config(sources: Mapping[str, tuple[GitCrate, str]]) -> bytes:
    """What cargo's configuration has of these sources: key -> package of it, and folder."""
    lines: list[str] = []
    for number, (key, (crate, folder)) in enumerate(sources.items()):
        lines += [f"[source.cleanroom-git-{number}]", f"directory = {_quoted(folder)}"]
        lines += [f"[source.{_quoted(key)}]", f"git = {_quoted(crate.url)}"]
        kind, reference = crate.reference
        if kind:
            lines.append(f"{kind} = {_quoted(reference)}")
        lines.append(f'replace-with = "cleanroom-git-{number}"')
    return ("\n".join(lines) + "\n").encode()


def lay_out(source: GitFolder, packs: Mapping[str, Path], folder: Path) -> None:
    """Write what cargo reads of one source into a new folder.

    Raises:
        DependencyRejected: the repository holds what is not unpacked.
        DependencyUnavailable: it does not hold a package that the lock names.
    """
    try:
        checkout_whole(packs, source.commit, folder / REPOSITORY)
    except Unsafe as error:
        raise refused(source.file, error) from error
    manifests = _manifests(folder / REPOSITORY)
    places = {crate.name: _place(source, crate, manifests) for crate in source.crates}
    roots = {root for place in places.values() if (root := _root(place, manifests)) is not None}
    if len(roots) > 1:
        raise _unusable(source.crates[0], "its packages belong to several workspaces")
    root = next(iter(roots), "")
    _show_beside(folder, root, manifests)
    for name, place in places.items():
        inside = folder / REPOSITORY / place
        checksums = inside / CHECKSUMS
        checksums.unlink(missing_ok=True)
        with checksums.open("xb") as stream:
            stream.write(b'{"files":{},"package":null}')
        (folder / f"{PACKAGE}{name}").symlink_to(posixpath.join(REPOSITORY, place))


def _show_beside(folder: Path, root: str, manifests: Mapping[str, object]) -> None:
    """Links to what lies beside the workspace's manifest, but for packages: cargo would take each
    of these for one that it should verify.
    """
    for name in sorted(os.listdir(folder / REPOSITORY / root)):  # noqa: PTH208
        hidden = name.startswith((".", PACKAGE))
        if not hidden and posixpath.join(root, name) not in manifests:
            (folder / name).symlink_to(posixpath.join(REPOSITORY, root, name))


def _manifests(repository: Path) -> dict[str, dict[str, Any]]:
    """The manifests of a repository, by their folders; no link is followed."""
    found: dict[str, dict[str, Any]] = {}
    for above, _, names in os.walk(repository):
        path = Path(above) / MANIFEST
        if MANIFEST not in names or path.is_symlink() or path.stat().st_size > _MANIFEST_MAX:
            continue
        inside = os.path.relpath(above, repository)
        try:
            found["" if inside == "." else inside] = read_toml(path.read_bytes())
        except ValueError:
            # cargo too goes on without one that it cannot read, such as a test's
            continue
    return found


def _place(source: GitFolder, crate: GitCrate, manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """The folder of a package in its repository."""
    packages = {path: _table(manifest, "package") for path, manifest in manifests.items()}
    named = [path for path, package in packages.items() if package.get("name") == crate.name]
    exact = [path for path in named if packages[path].get("version") == crate.version]
    found = exact or named
    if not found:
        raise _unusable(crate, f"the repository has no package {crate.name!r}")
    return min(found, key=lambda path: (path.count("/"), path))


def _root(place: str, manifests: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The folder of the workspace that a package belongs to; None for none."""
    path = place
    while True:
        if "workspace" in manifests.get(path, {}):
            return path
        if not path:
            return None
        path = posixpath.dirname(path)


def _unusable(crate: GitCrate, why: str) -> DependencyUnavailable:
    return DependencyUnavailable(
        "CR-FETCH-009",
        f"{crate.name} {crate.version} from {crate.commit.url}: {why}",
        hint="`cargo vendor` puts it into the project",
    )


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")
