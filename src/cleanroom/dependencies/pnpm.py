"""pnpm: `pnpm-lock.yaml` of versions 6 and 9, and pnpm's own store, filled by pnpm itself.

The store has a layout of its own in each major version, so pnpm writes it: it fetches a lock that
is made here and names the verified files alone, each at a server on the loopback.
It sees no file of the project, and runs no script.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
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
    Found,
    Lock,
    Overlay,
    Problem,
    Stored,
)
from cleanroom.dependencies.node_packages import (
    COREPACK_VARIABLES,
    MANIFEST,
    SETTINGS,
    NodeManager,
    ToolVersion,
    corepack_document,
    default_address,
    fits_platform,
    is_package,
    manifest_text,
    program_state,
    project_settings,
    purl,
    tarball_name,
    tool_message,
    tool_version,
)
from cleanroom.dependencies.npmrc import Npmrc
from cleanroom.dependencies.session import SERVED, WORK, Session, ToolRun
from cleanroom.dependencies.store import take_folder
from cleanroom.dependencies.yaml_reader import read_yaml
from cleanroom.model.errors import DependencyUnavailable, ProjectError

LOCK, WORKSPACE = "pnpm-lock.yaml", "pnpm-workspace.yaml"
VERSIONS = ("6", "9")  # of locks, by their first number
STORE, COREPACK = "store", "corepack"  # folders of a view
# Phases see the store at one place whatever is in it: node_modules names it, and outlives it.
SHOWN_STORE = "/var/lib/cleanroom-pnpm"
# A setting of the project by which pnpm installs what is for other platforms too.
_ALL_PLATFORMS = b"supportedArchitectures"
_CONFIGURING = b"configDependencies"
# As the project was resolved; another version of pnpm than it names does as well.
_SETTINGS = {
    "manage_package_manager_versions": "false",
    "package_manager_strict": "false",
    "pm_on_fail": "ignore",
    # It asks the registry when each version was published.
    "trust_lockfile": "true",
    "update_notifier": "false",
}


class Pnpm(NodeManager):
    """pnpm and its registry."""

    name = "pnpm"

    def find(self, folder: ProjectFolder) -> Found | None:
        """The lock of this folder, and what of the project's settings matters to it."""
        lock = folder.read(LOCK) if LOCK in folder.names else None
        if lock is None:
            return None
        files = {folder.inside(LOCK): lock, **folder.files((SETTINGS,))}
        manifest = folder.read(MANIFEST)
        # The rest of it changes often, and says nothing that the lock does not.
        files[folder.inside(MANIFEST)] = _used(manifest, folder.read(WORKSPACE))
        return Found(self.name, folder.path, files)

    def context(self) -> str:
        """The store is of a version of pnpm."""
        return program_state("pnpm", self.settings.variables.get("PATH", ""))

    def read(self, found: Found) -> Lock:
        """The packages of the lock that are for this platform, and pnpm itself if it is named.

        Raises:
            ProjectError: it is no lock of version 6 or 9.
        """
        project = project_settings(found)
        artifacts: dict[str, Artifact] = {}
        problems = []
        for one in self._entries(found, project):
            if isinstance(one, Problem):
                problems.append(one)
            else:
                artifacts[one.digest] = one
        tool = _tool(found)
        unpinned: tuple[str, ...] = ()
        if tool is not None:
            itself = self._tool_file(project, tool)
            artifacts.setdefault(itself.digest, itself)
            unpinned = () if itself.digest else (f"pnpm {tool.version} (packageManager)",)
        return Lock(
            artifacts=tuple(artifacts.values()), problems=tuple(problems), unpinned=unpinned
        )

    def _entries(self, found: Found, project: Npmrc) -> Iterator[Artifact | Problem]:
        document = _document(found.name, found.files[found.name])
        every = _ALL_PLATFORMS in _manifest(found)
        if _CONFIGURING in _manifest(found):
            yield Problem(
                entry=_CONFIGURING.decode(),
                why="packages that configure pnpm are not fetched yet",
            )
        for key, entry in _packages(found.name, document):
            if not every and _is_optional(document, key, entry) and not fits_platform(entry):
                continue
            one = _artifact(key, entry)
            if isinstance(one, Artifact):
                one = msgspec.structs.replace(one, url=self.address(project, one.name, one.url))
            yield one

    def _tool_file(self, project: Npmrc, tool: ToolVersion) -> Artifact:
        return Artifact(
            name=tool.name,
            version=tool.version,
            file=tarball_name(tool.name, tool.version),
            url=self.address(project, tool.name, default_address(tool.name, tool.version)),
            digest=tool.digest,
            purl=purl(tool.name, tool.version),
        )

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """pnpm's store, as pnpm writes it.

        Raises:
            DependencyUnavailable: pnpm is not there, or fails.
        """
        files: dict[str, bytes] = {}
        served: dict[str, Path] = {}
        for number, (found, fetched) in enumerate(sets):
            lock, manifest = offered(found, fetched.files, f"{SERVED}/{number}")
            files |= {f"{number}/{LOCK}": lock, f"{number}/{MANIFEST}": manifest}
            served |= {
                f"/{number}/{at}/{one.artifact.file}": session.file(one)
                for at, one in enumerate(fetched.files)
            }
            for one in fetched.files:
                if one.artifact.name == "pnpm":
                    # Where corepack looks for the version that the project names.
                    about = f"pnpm-{one.artifact.version}.json"
                    files[about] = corepack_document(one.artifact)
                    served[f"/pnpm/{one.artifact.version}"] = Path(WORK, about)
                    served[f"/pnpm/-/{one.artifact.file}"] = session.file(one)
        commands = [
            # pnpm makes none where there is nothing to put into it.
            f"mkdir -p {STORE}",
            *(f"(cd {number} && pnpm fetch)" for number in range(len(sets))),
        ]
        result = await session.run(
            ToolRun(
                ["sh", "-ec", " && ".join(commands)],
                files=files,
                variables=_preparing(),
                served=served,
            )
        )
        if result.exit_code:
            raise DependencyUnavailable(
                "CR-FETCH-009",
                f"{sets[0].found.name}: pnpm cannot prepare its packages: "
                f"{tool_message(result.output)}",
                hint="install pnpm where PATH leads to it, and see that `pnpm fetch` works",
            )
        take_folder(result.folder / STORE, view / STORE)
        if (result.folder / COREPACK).exists():
            take_folder(result.folder / COREPACK, view / COREPACK)

    def access(self, view: str) -> Access:
        """pnpm writes to its store, so phases have it copy-on-write."""
        settings = {**_SETTINGS, "store_dir": SHOWN_STORE, "offline": "true"}
        # What the caller's own pnpm installed names another store: pnpm 10 asks unless in CI.
        settings |= {"ci": "true", "confirm_modules_purge": "false"}
        variables = _variables(settings, _prefixes(Path(view) / STORE))
        folders: tuple[str, ...] = ()
        if os.path.isdir(f"{view}/{COREPACK}"):  # noqa: PTH112
            folders = (f"{view}/{COREPACK}",)
            variables |= {
                **COREPACK_VARIABLES,
                "COREPACK_HOME": folders[0],
                "COREPACK_ENABLE_NETWORK": "0",
            }
        return Access(variables, folders, (Overlay(f"{view}/{STORE}", SHOWN_STORE),))


# --- how pnpm is told


def _preparing() -> dict[str, str]:
    settings = {
        **_SETTINGS,
        "store_dir": f"{WORK}/{STORE}",
        "registry": f"{SERVED}/",
        "ignore_scripts": "true",
        "minimum_release_age": "0",
    }
    return {
        **_variables(settings, ("npm_config", "pnpm_config")),
        **COREPACK_VARIABLES,
        "COREPACK_HOME": f"{WORK}/{COREPACK}",
        "COREPACK_NPM_REGISTRY": SERVED,
        # The file has the digest that the project names, or that was pinned.
        "COREPACK_INTEGRITY_KEYS": "0",
        "CI": "true",
    }


def _variables(settings: Mapping[str, str], prefixes: Sequence[str]) -> dict[str, str]:
    return {f"{prefix}_{name}": value for name, value in settings.items() for prefix in prefixes}


def _prefixes(store: Path) -> tuple[str, ...]:
    """What pnpm's variables begin with. npm warns of those that it does not know."""
    try:
        versions = {int(name.removeprefix("v")) for name in os.listdir(store)}  # noqa: PTH208
    except (OSError, ValueError):
        return ("npm_config", "pnpm_config")
    old, new = min(versions, default=0) < 11, max(versions, default=11) >= 11
    return ("npm_config",) * old + ("pnpm_config",) * new


def offered(found: Found, files: Sequence[Stored], served: str) -> tuple[bytes, bytes]:
    """A lock and a package.json that name these files, the numbered ones at an address."""
    document = _document(found.name, found.files[found.name])
    old = _version(document) == "6"
    keys = {from_entry.digest: key for key, from_entry in _valid(found.name, document)}
    packages: dict[str, Any] = {}
    named: dict[str, Any] = {}
    for number, stored in enumerate(files):
        one = stored.artifact
        key = keys.get(one.digest)
        if key is None:
            continue  # pnpm itself
        tarball = f"{served}/{number}/{one.file}"
        resolution = {"integrity": to_integrity(one.digest), "tarball": tarball}
        packages[key] = {"resolution": resolution, **({"dev": False} if old else {})}
        named[f"p{number}"] = {"specifier": f"npm:{one.name}@{one.version}", "version": key}
    # Other than pnpm's own default is another project than it was told of.
    settings = {"autoInstallPeers": True, "excludeLinksFromLockfile": False}
    lock: dict[str, Any] = {"lockfileVersion": document["lockfileVersion"], "settings": settings}
    if old:
        lock |= {"dependencies": named, "packages": packages}
    else:
        snapshots: dict[str, Any] = {key: {} for key in packages}
        lock |= {
            "importers": {".": {"dependencies": named}},
            "packages": packages,
            "snapshots": snapshots,
        }
    manifest: dict[str, Any] = {
        "name": "fetched",
        "dependencies": {name: entry["specifier"] for name, entry in named.items()},
    }
    manifest |= manifest_text(_tool(found), "pnpm")
    # JSON is YAML.
    return msgspec.json.encode(lock), msgspec.json.encode(manifest)


# --- the project's files


def _used(manifest: bytes | None, workspace: bytes | None) -> bytes:
    """What of the project's other files matters, as a package.json."""
    used = manifest_text(tool_version(manifest), "pnpm")
    if any(_ALL_PLATFORMS in (text or b"") for text in (manifest, workspace)):
        used[_ALL_PLATFORMS.decode()] = True
    if any(_CONFIGURING in (text or b"") for text in (manifest, workspace)):
        used[_CONFIGURING.decode()] = True
    return msgspec.json.encode(used)


def _manifest(found: Found) -> bytes:
    return next((text for path, text in found.files.items() if path.endswith(MANIFEST)), b"")


def _tool(found: Found) -> ToolVersion | None:
    """The version of pnpm that the project names."""
    tool = tool_version(_manifest(found))
    return tool if tool is not None and tool.name == "pnpm" else None


def _document(path: str, content: bytes) -> dict[str, Any]:
    """The lock. pnpm writes what it needs for itself into a document before it."""
    try:
        documents = read_yaml(content)
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    document = documents[-1] if documents else None
    if not isinstance(document, dict):
        raise _unreadable(path, "it has no mapping")
    if _version(document) not in VERSIONS:
        raise _unreadable(path, f"its version is {document.get('lockfileVersion')!s:.20}")
    return document


def _version(document: Mapping[str, Any]) -> str:
    return str(document.get("lockfileVersion", "")).partition(".")[0]


def _packages(path: str, document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    packages = document.get("packages") or {}
    if not isinstance(packages, dict):
        raise _unreadable(path, "its 'packages' is no mapping")
    for key, entry in packages.items():
        yield key, entry if isinstance(entry, dict) else {}


def _valid(path: str, document: Mapping[str, Any]) -> Iterator[tuple[str, Artifact]]:
    for key, entry in _packages(path, document):
        one = _artifact(key, entry)
        if isinstance(one, Artifact):
            yield key.partition("(")[0], one


def _is_optional(document: Mapping[str, Any], key: str, entry: Mapping[str, Any]) -> bool:
    """Whether pnpm leaves it out where it does not fit; in version 9 another part says so."""
    if _version(document) == "6":
        return entry.get("optional") == "true"
    snapshots = document.get("snapshots")
    snapshot = snapshots.get(key) if isinstance(snapshots, dict) else None
    return isinstance(snapshot, dict) and snapshot.get("optional") == "true"


def _artifact(key: str, entry: Mapping[str, Any]) -> Artifact | Problem:
    plain = key.lstrip("/").partition("(")[0]
    resolution = entry.get("resolution")
    if not isinstance(resolution, dict):
        return Problem(entry=key, why="it has no resolution")
    at = plain.find("@", 1)
    name, version = (plain[:at], plain[at + 1 :]) if at > 0 else (plain, "")
    if is_web_address(version):
        version = str(entry.get("version", ""))
    kind = str(resolution.get("type", ""))
    if kind:
        return Problem(entry=key, why=f"{kind:.40} dependencies are not fetched yet")
    if not is_package(name, version):
        return Problem(entry=key, why="its name or version is none that npm has")
    digest = from_integrity(str(resolution.get("integrity", "")))
    if not digest:
        return Problem(
            entry=key, why="it has no digest", hint="`pnpm install` writes one into the lock"
        )
    address = str(resolution.get("tarball") or default_address(name, version))
    if not is_web_address(address):
        return Problem(entry=key, why="its address is none of the web")
    return Artifact(
        name=name,
        version=version,
        file=tarball_name(name, version),
        url=address,
        digest=digest,
        purl=purl(name, version),
    )


def _unreadable(path: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006",
        f"expected pnpm's lock of version 6 or 9: {why}",
        hint="`pnpm install` of pnpm 9 or later writes one",
        where=f"{path}:1:1",
    )
