"""yarn 2 to 4: `yarn.lock` with `__metadata`, and yarn's own cache, filled by yarn itself.

The lock has checksums of the archives that yarn makes of packages, not of the registry's files.
So yarn verifies them: it makes its archives of the files that were fetched, without a network, and
compares them with a lock that is made here and has the project's checksums.
This happens before a set counts as fetched, and again where the cache is made.

yarn is the version that the project names, from the registry; what lies in `.yarn/releases` and
plugins are the project's code, and run in phases only.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio.to_thread
import msgspec

from cleanroom.dependencies.digests import from_integrity
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
    NodeManager,
    ToolVersion,
    default_address,
    manifest_text,
    program_state,
    purl,
    tarball_name,
    tool_message,
    tool_version,
)
from cleanroom.dependencies.session import SERVED, WORK, Page, Session, ToolRun
from cleanroom.dependencies.settings import Settings, host_of
from cleanroom.dependencies.store import take_folder
from cleanroom.dependencies.yarn_lock import (
    LOCK,
    METADATA,
    Package,
    offered,
    packages_of,
    patch_files,
    patches,
    read_document,
)
from cleanroom.dependencies.yarnrc import Yarnrc
from cleanroom.model.errors import (
    DependencyRejected,
    DependencyUnavailable,
    ProjectError,
)

SETTINGS = ".yarnrc.yml"
ITSELF = "@yarnpkg/cli-dist"  # yarn, in its registry
PROGRAM = "bin/yarn.js"
PROGRAM_MAX = 64 << 20  # yarn 4 has 3 MB
GLOBAL, COREPACK = "berry", "corepack"  # folders of a view
# Phases see the cache at one place whatever is in it: .pnp.cjs names it, and outlives it.
SHOWN = "/var/lib/cleanroom-yarn"
CHECKED_IN = ".yarn/cache"
_CACHE_KEY = re.compile(r"\d+(?:c(\d|mixed))?", re.ASCII)
_MISMATCH = re.compile(r"YN0018: \W*(\S+): (.*)")


class Yarn(NodeManager):
    """yarn and its registry."""

    name = "yarn"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        own = settings.text(SETTINGS).encode()
        self._callers = Yarnrc(own, settings.variables)

    def find(self, folder: ProjectFolder) -> Found | None:
        """The lock of this folder, and what of the project's settings matters to it.

        None where the project has its packages checked in, and yarn.
        """
        lock = folder.read(LOCK) if LOCK in folder.names else None
        if lock is None or METADATA.encode() not in lock:
            return None
        files = {folder.inside(LOCK): lock, **folder.files((SETTINGS, *patches(lock)))}
        # The rest of it changes often, and says nothing that the lock does not.
        used = manifest_text(tool_version(folder.read(MANIFEST)), "yarn")
        files[folder.inside(MANIFEST)] = msgspec.json.encode(used)
        found = Found(self.name, folder.path, files)
        if used and not _settings(found).release():
            # corepack looks for yarn itself, which no project checks in but as a release.
            return found
        have = folder.names_in(CHECKED_IN)
        return None if have and _has_all(have, found) else found

    def context(self) -> str:
        """Where the project names no version, the caller's own makes the cache."""
        return program_state("yarn", self.settings.variables.get("PATH", ""))

    def read(self, found: Found) -> Lock:
        """The packages of the lock that are for this platform, and yarn itself if it is named.

        Raises:
            ProjectError: it is no lock of yarn 2 or later.
        """
        project = _settings(found)
        artifacts = []
        problems = []
        unpinned = []
        for one in packages_of(found):
            if isinstance(one, Problem):
                problems.append(one)
                continue
            if one.patched:
                continue
            artifacts.append(self._artifact(project, one.name, one.version))
            if not one.checksum:
                unpinned.append(f"{one.name} {one.version}")
        tool = _tool(found)
        if tool is not None:
            artifacts.append(self._artifact(project, ITSELF, tool.version))
            if not tool.digest:
                unpinned.append(f"yarn {tool.version}")
        return Lock(artifacts=tuple(artifacts), problems=tuple(problems), unpinned=tuple(unpinned))

    def _artifact(self, project: Yarnrc, name: str, version: str) -> Artifact:
        address = default_address(name, version)
        registry = project.registry(name) or self._callers.registry(name)
        if registry:
            address = f"{registry}/{name}/-/{tarball_name(name, version)}"
        else:
            address = self.address(None, name, address)
        return Artifact(
            name=name,
            version=version,
            file=tarball_name(name, version),
            url=address,
            purl=purl(name, version),
        )

    def credentials(self, url: str) -> Mapping[str, str]:
        """From the caller's `.yarnrc.yml`, else as npm has it."""
        found = self._callers.authorization(url)
        return {"Authorization": found} if found else super().credentials(url)

    def named_hosts(self) -> frozenset[str]:
        """The registries of the caller's `.yarnrc.yml` and `.npmrc`."""
        own = frozenset(host_of(url) for url in self._callers.registries())
        return own | super().named_hosts()

    async def resolve(self, session: Session, found: Found, lock: Lock) -> tuple[Artifact, ...]:
        """The files with digests: those that the registry names, and that yarn has verified.

        Raises:
            DependencyRejected: a file is not what the lock names.
            DependencyUnavailable: a file is not there, or yarn fails.
        """
        named = await _with_integrity(session, lock.artifacts)
        files = await session.download(named)
        await self._run(session, [(found, files)])
        return tuple(
            msgspec.structs.replace(one.artifact, digest=f"sha256:{one.sha256}", size=one.size)
            for one in files
        )

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """yarn's cache, as yarn writes it, and the versions of yarn for corepack.

        Raises:
            DependencyRejected: a file is not what the lock names.
            DependencyUnavailable: yarn fails.
        """
        made = await self._run(session, [(one.found, one.fetched.files) for one in sets])
        take_folder(made / GLOBAL, view / GLOBAL)
        for found, fetched in sets:
            tool = _tool(found)
            if tool is not None:
                program = await _program(session, found, fetched.files)
                await anyio.to_thread.run_sync(_add_to_corepack, view, tool, program)

    async def _run(self, session: Session, sets: Sequence[tuple[Found, Sequence[Stored]]]) -> Path:
        """Have yarn make and verify its archives; returns the folder that they are in."""
        files: dict[str, bytes] = {}
        served: dict[str, Path] = {}
        variables = dict(_PREPARING)
        # yarn makes none where there is nothing to put into it.
        commands = [f"mkdir -p {GLOBAL}"]
        for number, (found, stored) in enumerate(sets):
            lock, manifest = offered(found)
            files |= {f"{number}/{LOCK}": lock, f"{number}/{MANIFEST}": manifest}
            files |= {f"{number}/{path}": text for path, text in patch_files(found).items()}
            yarn = "yarn"
            if _tool(found) is not None:
                files[f"{number}.js"] = await _program(session, found, stored)
                yarn = f"node ../{number}.js"
            level = f"YARN_COMPRESSION_LEVEL={_compression(found)}"
            commands.append(f"(cd {number} && {level} {yarn} install)")
            served |= {
                f"/{one.artifact.name}/-/{one.artifact.file}": session.file(one) for one in stored
            }
        result = await session.run(
            ToolRun(
                ["sh", "-ec", " && ".join(commands)],
                files=files,
                variables=variables,
                served=served,
            )
        )
        if result.exit_code:
            raise _failed(sets[0][0], result.output)
        return result.folder

    def access(self, view: str) -> Access:
        """yarn writes to its cache, so phases have it copy-on-write."""
        variables = {
            "YARN_GLOBAL_FOLDER": SHOWN,
            "YARN_ENABLE_MIRROR": "1",
            "YARN_ENABLE_NETWORK": "0",
            "YARN_ENABLE_TELEMETRY": "0",
        }
        folders: tuple[str, ...] = ()
        if os.path.isdir(f"{view}/{COREPACK}"):  # noqa: PTH112
            folders = (f"{view}/{COREPACK}",)
            variables |= {**COREPACK_VARIABLES, "COREPACK_HOME": folders[0]}
        return Access(variables, folders, (Overlay(f"{view}/{GLOBAL}", SHOWN),))


# Settings that every version of yarn knows: it refuses others.
_PREPARING = {
    "YARN_RC_FILENAME": ".none.yml",
    "YARN_IGNORE_PATH": "1",
    "YARN_GLOBAL_FOLDER": f"{WORK}/{GLOBAL}",
    "YARN_ENABLE_GLOBAL_CACHE": "1",
    "YARN_CHECKSUM_BEHAVIOR": "throw",
    "YARN_ENABLE_IMMUTABLE_INSTALLS": "0",
    "YARN_ENABLE_SCRIPTS": "0",
    "YARN_ENABLE_TELEMETRY": "0",
    "YARN_NODE_LINKER": "pnp",
    "YARN_NPM_REGISTRY_SERVER": SERVED,
    "YARN_UNSAFE_HTTP_WHITELIST": "127.0.0.1",
}


async def _with_integrity(session: Session, artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """With the digest that the registry names, so that what is in the store is not fetched anew.

    A registry that does not tell leaves them without one.
    """
    tail = len("/-/")
    pages = [
        Page(f"{one.url[: -len(one.file) - tail]}/{one.version}", "application/json")
        for one in artifacts
    ]
    try:
        answers = await session.read(pages)
    except DependencyUnavailable:
        return tuple(artifacts)
    pairs = zip(artifacts, answers, strict=True)
    return tuple(msgspec.structs.replace(one, digest=_integrity(text)) for one, text in pairs)


def _integrity(text: bytes) -> str:
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return ""
    dist = document.get("dist") if isinstance(document, dict) else None
    return from_integrity(str(dist.get("integrity", ""))) if isinstance(dist, dict) else ""


# --- yarn itself


async def _program(session: Session, found: Found, files: Sequence[Stored]) -> bytes:
    """yarn, from its package.

    Raises:
        DependencyRejected: it is not what the project names.
    """
    tool = _tool(found)
    assert tool is not None, "it is among the files only where the project names it"
    stored = next(
        one for one in files if (one.artifact.name, one.artifact.version) == (ITSELF, tool.version)
    )
    program = await anyio.to_thread.run_sync(_unpacked, session.file(stored))
    algorithm, _, expected = tool.digest.partition(":")
    if algorithm and hashlib.new(algorithm, program).hexdigest() != expected:
        raise DependencyRejected(
            "CR-FETCH-001",
            f"yarn {tool.version} from {stored.host or 'the store'}: package.json names "
            f"{tool.digest}, the registry gave another file",
            hint="do not use it: find out who changed the registry or package.json",
        )
    return program


def _unpacked(package: Path) -> bytes:
    """The one file of yarn's package that matters; empty where it has none."""
    try:
        with tarfile.open(package, "r:gz") as archive:
            for member in archive:
                if member.name == f"package/{PROGRAM}" and member.isreg():
                    stream = archive.extractfile(member) or io.BytesIO()
                    return stream.read(PROGRAM_MAX)
    except (tarfile.TarError, OSError, EOFError):
        return b""
    return b""


def _add_to_corepack(view: Path, tool: ToolVersion, program: bytes) -> None:
    """Lay yarn out as corepack has it in its home."""
    folder = view / COREPACK / "v1/yarn" / tool.version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "yarn.js").write_bytes(program)
    about = {
        "locator": {"name": "yarn", "reference": tool.version},
        "bin": ["yarn", "yarnpkg"],
        "hash": f"sha512.{hashlib.sha512(program).hexdigest()}",
    }
    (folder / ".corepack").write_bytes(msgspec.json.encode(about))


# --- the project's files


def _compression(found: Found) -> str:
    """The level that the checksums are for, as the key of the cache names it."""
    matched = _CACHE_KEY.fullmatch(str(read_document(found)[METADATA].get("cacheKey", "")))
    return (matched[1] if matched else None) or "mixed"


def _has_all(have: Sequence[str], found: Found) -> bool:
    """Whether a project's own cache has every package of its lock."""
    try:
        wanted = [one for one in packages_of(found) if isinstance(one, Package) and one.checksum]
    except ProjectError:
        return False
    prefixes = {
        f"{one.name.replace('/', '-')}-npm-{one.version}-" for one in wanted if not one.patched
    }
    # The rest of a name is two digests of ten digits.
    names = {name[: -len("0123456789-0123456789.zip")] for name in have if name.endswith(".zip")}
    return prefixes <= names


def _settings(found: Found) -> Yarnrc:
    text = next((text for path, text in found.files.items() if path.endswith(SETTINGS)), b"")
    return Yarnrc(text)


def _tool(found: Found) -> ToolVersion | None:
    """The version of yarn that the project names."""
    text = next((text for path, text in found.files.items() if path.endswith(MANIFEST)), b"")
    tool = tool_version(text)
    if tool is not None and tool.name == "yarn":
        return None if tool.version.startswith("1.") else tool
    release = _settings(found).release()
    return ToolVersion("yarn", release) if release else None


def _failed(found: Found, output: bytes) -> DependencyRejected | DependencyUnavailable:
    mismatch = _MISMATCH.search(output.decode(errors="replace"))
    if mismatch is not None:
        return DependencyRejected(
            "CR-FETCH-001",
            f"{mismatch[1]}: the lock file names another file than the registry gave: "
            f"yarn: {mismatch[2]:.200}",
            hint="do not use it: find out who changed the registry or the lock file",
        )
    return DependencyUnavailable(
        "CR-FETCH-009",
        f"{found.name}: yarn cannot prepare its packages: {tool_message(output)}",
        hint="name a version of yarn in package.json (packageManager), with Node.js on PATH",
    )
