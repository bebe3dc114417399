"""Cargo: `Cargo.lock`, and directory sources that cargo itself verifies.

Each registry of a lock is replaced by a folder of unpacked crates, by the configuration in a
CARGO_HOME that phases have copy-on-write. The project's own `.cargo/config.toml` stays in force.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import anyio.to_thread
import msgspec

from cleanroom.dependencies import cargo_git
from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.cargo_config import (
    CRATES_IO,
    CRATES_IO_INDEXES,
    FILES,
    CargoSettings,
    cargo_home,
    offline_config,
    replacements,
    sources,
    vendored,
)
from cleanroom.dependencies.cargo_git import GitCrate
from cleanroom.dependencies.crates import Unsafe, unpack
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.git_sources import source_of, with_submodules
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
from cleanroom.dependencies.session import Manager, Page, Session
from cleanroom.dependencies.settings import Settings, host_of
from cleanroom.dependencies.toml_reader import read_toml
from cleanroom.model.errors import DependencyRejected, DependencyUnavailable, ProjectError

LOCK = "Cargo.lock"
HOME, VENDOR = "cargo-home", "vendor"  # in a view
DOWNLOAD = "https://static.crates.io/crates/{crate}/{crate}-{version}.crate"
_UNPACKING_THREADS = 4
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,127}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEMPLATE = re.compile(r"https?://[^\s\"\\@?#]{1,1000}")
_SPARSE = re.compile(r"sparse\+https?://[^\s\"\\@?#]{1,1000}")


class Crate(NamedTuple):
    """One package of a lock that comes from a registry."""

    name: str
    version: str
    origin: str  # `CRATES_IO`, or the index of another registry: "sparse+https://..."
    digest: str

    @property
    def folder(self) -> str:
        """The folder that its archive unpacks to; a checked file name."""
        return f"{self.name}-{self.version}"


class CargoLock(NamedTuple):
    """What a lock names, each once."""

    crates: list[Crate]
    problems: list[Problem]
    git: list[GitCrate]


class Cargo(Manager):
    """Cargo, crates.io and other registries."""

    name = "cargo"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._own = CargoSettings.of(settings)
        # host of an index, and of the archives that it names -> token
        self._tokens = {
            host_of(one.address): one.token for one in self._own.registries if one.token
        }

    def find(self, folder: ProjectFolder) -> Found | None:
        """The lock of this folder, with the configuration files that cargo would read for it."""
        content = folder.read(LOCK) if LOCK in folder.names else None
        if content is None:
            return None
        configs: dict[str, bytes] = {}
        for above in _folders_above(folder):
            for path, config in folder.files(f"{above}{name}" for name in FILES).items():
                vendor = vendored(sources(config))
                if vendor and folder.has_folder(f"{above}{vendor}"):
                    return None
                configs[path] = config
        return Found(self.name, folder.path, {folder.inside(LOCK): content, **configs})

    def read(self, found: Found) -> Lock:
        """The packages of the lock that come from registries.

        Raises:
            ProjectError: it is no lock of cargo's.
        """
        crates, problems, git = read_lock(found.name, found.files[found.name])
        known = [one for one in crates if self._index(one.origin) == CRATES_IO]
        return Lock(
            artifacts=(
                *(_artifact(one, DOWNLOAD) for one in known),
                *cargo_git.artifacts(git),
            ),
            unresolved=tuple(one.folder for one in crates if one not in known),
            problems=tuple(problems),
        )

    async def resolve(self, session: Session, found: Found, lock: Lock) -> tuple[Artifact, ...]:
        """Ask each registry but crates.io where its archives are.

        Raises:
            DependencyUnavailable: a registry does not say it.
        """
        crates, _, git = read_lock(found.name, found.files[found.name])
        origins = sorted({one.origin for one in crates})
        templates = {one: await self._template(session, self._index(one)) for one in origins}
        repositories = await with_submodules(session, cargo_git.artifacts(git))
        return (*(_artifact(one, templates[one.origin]) for one in crates), *repositories)

    def _index(self, origin: str) -> str:
        """Where packages come from: the caller may have a mirror of crates.io."""
        return self._own.mirror or origin if origin == CRATES_IO else origin

    async def _template(self, session: Session, index: str) -> str:
        """The address of archives, as the registry's own configuration has it."""
        if index == CRATES_IO:
            return DOWNLOAD
        address = index.removeprefix("sparse+")
        (page,) = await session.read([Page(f"{address.rstrip('/')}/config.json")])
        template = _download_address(page)
        if not template:
            raise DependencyUnavailable(
                "CR-FETCH-003",
                f"{host_of(address)}: its config.json does not say where its crates are",
                hint="expected the address of a sparse registry: sparse+https://HOST/index/",
            )
        # A lock may name another index of the same host, which somebody else may have written.
        own = (one.token for one in self._own.registries if one.index_url == index)
        if token := next(own, ""):
            self._tokens.setdefault(host_of(template), token)
        return template

    def credentials(self, url: str) -> Mapping[str, str]:
        """A registry's token, as cargo sends it, or what `~/.netrc` has for the host."""
        token = self._tokens.get(host_of(url))
        return {"Authorization": token} if token else super().credentials(url)

    def named_hosts(self) -> frozenset[str]:
        """The registries of the caller's own configuration."""
        addresses = [one.address for one in self._own.registries]
        if self._own.mirror:
            addresses.append(self._own.mirror.removeprefix("sparse+"))
        return frozenset(map(host_of, addresses))

    def local_copies(self, artifact: Artifact) -> Sequence[Path]:
        """cargo keeps the archives of each registry in a folder of its own."""
        cache = cargo_home(self.settings) / "registry/cache"
        return tuple(cache.glob(f"*/{artifact.file}"))

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """A folder of unpacked crates for each registry, and a CARGO_HOME that names them.

        Raises:
            DependencyRejected: an archive holds what no crate has.
        """
        unpackings = _unpackings(sets)
        origins = sorted({one.origin for one in unpackings} | {CRATES_IO})
        folders = {origin: f"{VENDOR}/{number}" for number, origin in enumerate(origins)}
        for folder in folders.values():
            (view / folder).mkdir(parents=True)
        shown = {origin: f"{place}/{folder}" for origin, folder in folders.items()}
        registries = {one.name: one.index_url for one in self._own.registries}
        (view / HOME).mkdir()
        config = offline_config(shown, registries, _replaced_by(sets))
        git = cargo_git.folders(
            crate for one in sets for crate in read_lock(one.found.name, _content(one)).git
        )
        config += cargo_git.config(
            {key: (one.crates[0], f"{place}/{VENDOR}/{one.folder}") for key, one in git.items()}
        )
        (view / HOME / "config.toml").write_bytes(config)
        work = [
            (crate, session.file(stored), view / folders[crate.origin] / crate.folder)
            for crate, stored in unpackings.items()
        ]
        await anyio.to_thread.run_sync(_unpack_all, work)
        packs = {
            one.artifact.digest.partition(":")[2]: session.file(one)
            for _, fetched in sets
            for one in fetched.files
            if source_of(one.artifact)
        }
        for source in git.values():
            if source.commit.commit in packs:
                lay_out = partial(cargo_git.lay_out, source, packs, view / VENDOR / source.folder)
                await anyio.to_thread.run_sync(lay_out)

    def access(self, view: str) -> Access:
        """cargo locks and writes its home, so phases have that copy-on-write."""
        home = f"{view}/{HOME}"
        return Access(
            {"CARGO_HOME": home},
            folders=(f"{view}/{VENDOR}",),
            overlays=(Overlay(home, home),),
        )


# --- the lock


def read_lock(path: str, content: bytes) -> CargoLock:
    """The packages of registries and of repositories, and those that cannot be fetched.

    Raises:
        ProjectError: it is no lock of cargo's.
    """
    try:
        document = read_toml(content)
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    packages = document.get("package", [])
    if not isinstance(packages, list) or not all(isinstance(one, dict) for one in packages):
        raise _unreadable(path, "its packages are none")
    metadata = document.get("metadata")
    old = metadata if isinstance(metadata, dict) else {}
    # without a source it is a member of the workspace, or a path that the project names
    read = [_crate(package, old) for package in packages if "source" in package]
    return CargoLock(
        list(dict.fromkeys(one for one in read if isinstance(one, Crate))),
        [one for one in read if isinstance(one, Problem)],
        list(dict.fromkeys(one for one in read if isinstance(one, GitCrate))),
    )


def _crate(package: Mapping[str, Any], old: Mapping[str, Any]) -> Crate | GitCrate | Problem:
    name, version, source, checksum = (
        _text(package, key) for key in ("name", "version", "source", "checksum")
    )
    entry = f"{name} {version}"[:200]
    if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        return Problem(entry=entry, why="its name or version is none that cargo has")
    if source.startswith("git+"):
        return cargo_git.read_source(name, version, source) or Problem(
            entry=entry,
            why="its repository has no https address, or the lock has no commit",
            hint="`cargo vendor` puts it into the project",
        )
    origin = CRATES_IO if source in CRATES_IO_INDEXES else source
    index = origin.removeprefix("sparse+")
    if origin != CRATES_IO and not (_SPARSE.fullmatch(origin) and is_web_address(index)):
        return Problem(
            entry=entry,
            why="its registry has a Git index, which is not read",
            hint="name the registry's sparse index in cargo's configuration",
        )
    # locks of cargo before 1.41 have the digests at their end
    digest = checksum or _text(old, f"checksum {name} {version} ({source})")
    if not _DIGEST.fullmatch(digest):
        return Problem(
            entry=entry, why="it has no digest", hint="`cargo update --workspace` writes one"
        )
    return Crate(name, version, origin, digest)


def _text(table: Mapping[str, Any], key: str) -> str:
    found = table.get(key)
    return found if isinstance(found, str) else ""


def _artifact(crate: Crate, template: str) -> Artifact:
    purl = f"pkg:cargo/{crate.name}@{quote(crate.version)}"
    if crate.origin != CRATES_IO:
        purl += f"?repository_url={quote(crate.origin, safe='')}"
    return Artifact(
        name=crate.name,
        version=crate.version,
        file=f"{crate.folder}.crate",
        url=_address(template, crate),
        digest=f"sha256:{crate.digest}",
        purl=purl,
    )


def _address(template: str, crate: Crate) -> str:
    """Where an archive is (the Cargo Book, "Index Configuration")."""
    prefix = _prefix(crate.name)
    markers = {
        "{crate}": crate.name,
        "{version}": quote(crate.version, safe=""),
        "{prefix}": prefix,
        "{lowerprefix}": prefix.lower(),
        "{sha256-checksum}": crate.digest,
    }
    if not any(marker in template for marker in markers):
        template = f"{template}/{{crate}}/{{version}}/download"
    for marker, value in markers.items():
        template = template.replace(marker, value)
    return template


def _prefix(name: str) -> str:
    """The folder of a crate in an index."""
    if len(name) <= 2:
        return str(len(name))
    return f"3/{name[0]}" if len(name) == 3 else f"{name[:2]}/{name[2:4]}"


def _download_address(page: bytes) -> str:
    try:
        document: Any = msgspec.json.decode(page)
    except (msgspec.DecodeError, RecursionError):
        return ""
    template = document.get("dl") if isinstance(document, dict) else None
    return template if isinstance(template, str) and _TEMPLATE.fullmatch(template) else ""


def _unreadable(path: str, why: str) -> ProjectError:
    return ProjectError(
        "CR-FETCH-006",
        f"expected a lock of cargo's, found another file: {why}",
        hint="`cargo generate-lockfile` writes one",
        where=f"{path}:1:1",
    )


# --- what cargo reads


def _folders_above(folder: ProjectFolder) -> list[str]:
    """ "", "../", ...: the folders from a folder up to the project's root."""
    depth = folder.path.count("/") + bool(folder.path)
    return ["../" * number for number in range(depth + 1)]


def _unpackings(sets: Iterable[Complete]) -> dict[Crate, Stored]:
    """The crates of all sets that were fetched, and their archives.

    Raises:
        DependencyRejected: two crates, or two archives of one version, would share a folder.
    """
    found: dict[Crate, Stored] = {}
    owners: dict[tuple[str, str], Crate] = {}
    for one, fetched in sets:
        crates = read_lock(one.name, one.files[one.name]).crates
        stored = {(file.artifact.file, file.artifact.digest): file for file in fetched.files}
        for crate in crates:
            file = stored.get((f"{crate.folder}.crate", f"sha256:{crate.digest}"))
            if file is None:
                continue
            # "foo" 1-1.0 and "foo-1" 1.0 have one folder too
            owner = owners.setdefault((crate.origin, crate.folder), crate)
            if (owner.name, owner.version) != (crate.name, crate.version):
                raise _refused(crate, f"{owner.name} {owner.version} unpacks to the same folder")
            if owner.digest != crate.digest:
                raise _refused(crate, "two locks of the project name different archives")
            found[crate] = file
    return found


def _content(one: Complete) -> bytes:
    return one.found.files[one.found.name]


def _replaced_by(sets: Iterable[Complete]) -> dict[str, str]:
    """The sources by which configuration files of the project replace crates.io."""
    found: dict[str, str] = {}
    for one, _ in sets:
        for path, config in one.files.items():
            if path != one.name:
                found |= replacements(sources(config))
    return found


def _unpack_all(work: Sequence[tuple[Crate, Path, Path]]) -> None:
    # inflating, digests and files take most of the time, and threads do these at once
    with ThreadPoolExecutor(_UNPACKING_THREADS) as pool:
        for _ in pool.map(lambda one: _unpack(*one), work):
            pass


def _unpack(crate: Crate, archive: Path, folder: Path) -> None:
    try:
        unpack(archive, folder, crate.folder, crate.digest)
    except Unsafe as error:
        raise _refused(crate, str(error)) from error


def _refused(crate: Crate, why: str) -> DependencyRejected:
    return DependencyRejected(
        "CR-FETCH-012",
        f"{crate.name} {crate.version}: {why}",
        hint="do not use it: find out where the lock has it from",
    )
