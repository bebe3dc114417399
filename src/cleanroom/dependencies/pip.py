"""pip: requirements files, pylock.toml, poetry.lock, and what projects need to be built.

What is pinned to digests is looked up in a package index. The rest pip itself resolves, in an
environment of the fetch step and from wheels only, so that no package's code runs. Phases find all
files in one folder (`PIP_FIND_LINKS`). pip's own cache has no digests, so nothing is taken from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio.to_thread

from cleanroom.dependencies import (
    direct_files,
    pip_cache,
    python_git,
    python_interpreter,
    python_poetry,
    python_projects,
    python_runners,
    requirements,
    uv_lock,
)
from cleanroom.dependencies.addresses import is_web_address
from cleanroom.dependencies.direct_files import Offer
from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.git_requirements import GitRequest, of_uv, requested
from cleanroom.dependencies.git_sources import source_of
from cleanroom.dependencies.model import (
    Access,
    Artifact,
    Complete,
    Found,
    Lock,
    Problem,
)
from cleanroom.dependencies.pip_choice import SDISTS, cautions, choose, read_pages, told_apart
from cleanroom.dependencies.pip_config import PipConfig, index_hosts, without_login
from cleanroom.dependencies.pip_failure import NoneFits, failure
from cleanroom.dependencies.pip_report import COMMAND, Root, read_report, root_files
from cleanroom.dependencies.python_git import pinned_artifact
from cleanroom.dependencies.python_interpreter import PYTHON_VERSION, versions
from cleanroom.dependencies.python_projects import LockedPackage
from cleanroom.dependencies.python_sdists import noted_build_needs
from cleanroom.dependencies.python_tags import applies
from cleanroom.dependencies.session import WORK, Manager, Session, ToolRun
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.store import hard_link
from cleanroom.dependencies.toml_reader import read_toml

PROJECT, SETUP, SETUP_SETTINGS = "pyproject.toml", "setup.py", "setup.cfg"
PYLOCK, POETRY, UV_LOCK = "pylock.toml", "poetry.lock", "uv.lock"
REPORT_BYTES = 64 << 20  # pip's own, of a thousand packages, has 10 MB
CERTIFICATES, CONFIGURATION = "certificates.pem", "pip.conf"


class Needs(NamedTuple):
    """What a set's files ask for."""

    locked: tuple[LockedPackage, ...] = ()
    roots: tuple[Root, ...] = ()
    # of requirements files: they stand before the caller's own
    indexes: tuple[str, ...] = ()
    extra_indexes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    git: tuple[GitRequest, ...] = ()


class Pip(Manager):
    """pip and the indexes that the caller and the project name."""

    name = "pip"
    layout = 4

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._config = PipConfig(settings)

    def find(self, folder: ProjectFolder) -> Found | None:
        """The files of this folder, with those that requirements files name."""
        found: dict[str, bytes] = {}
        for name in sorted(folder.names):
            if _is_requirements(folder.path, name):
                found |= _nested(folder, name)
        names = (PYLOCK, POETRY, SETUP, SETUP_SETTINGS)
        locked = UV_LOCK in folder.names
        found |= folder.files(name for name in (() if locked else names) if name in folder.names)
        if SETUP not in folder.names:
            found.pop(folder.inside(SETUP_SETTINGS), None)
        if PROJECT in folder.names:
            found |= folder.files((PROJECT,))
            found |= {} if locked else _lock_above(folder)
        found |= folder.files(name for name in python_runners.FILES if name in folder.names)
        found |= python_runners.nested(folder, found)
        if not found:
            return None
        further = folder.files((PYTHON_VERSION, UV_LOCK)) if folder.names else {}
        if not locked:
            further |= python_interpreter.of_environment(folder, self.settings)
        return Found(self.name, folder.path, found | further)

    def read(self, found: Found) -> Lock:
        """What they pin, and what pip is to resolve.

        Raises:
            ProjectError: a file cannot be read.
        """
        needs = _needs(found)
        unresolved = [f"{one.pinned.name} {one.pinned.version}" for one in needs.locked]
        unpinned = {entry.text for root in needs.roots for entry in root.entries}
        unpinned |= {one.text for one in needs.git if not one.commit}
        building = uv_lock.without_wheels(_locked_by_uv(found))
        unpinned |= {f"what builds {uv_lock.entry(one)}" for one in building}
        return Lock(
            artifacts=tuple(pinned_artifact(one, one.commit) for one in needs.git if one.commit),
            unresolved=tuple(sorted({*unresolved, *unpinned})),
            unpinned=tuple(sorted(unpinned)),
            problems=needs.problems,
            cautions=cautions(unpinned, self._indexes(needs)),
        )

    def context(self) -> str:
        """The interpreter that PATH leads to."""
        indexes = [self._config.index, *self._config.extra_indexes]
        return "\0".join((*python_interpreter.on_path(self.settings), *indexes))

    def view_context(self) -> str:
        """The poetry that fills its own cache."""
        return python_poetry.version_of(self.settings)

    def credentials(self, url: str) -> Mapping[str, str]:
        """Those of the caller's index for its own host, else those of netrc."""
        return self._config.authorization(url) or super().credentials(url)

    def named_hosts(self) -> frozenset[str]:
        """Those of the caller's indexes."""
        return self._config.hosts()

    async def resolve(self, session: Session, found: Found, lock: Lock) -> tuple[Artifact, ...]:
        """The file of each package that fits the interpreter.

        Raises:
            DependencyUnavailable: an index does not have a package, or pip finds none that fits.
        """
        needs = _needs(found)
        if misfit := python_interpreter.unfit(found, self.settings):
            session.note(misfit)
        artifacts: dict[str, Artifact] = {}
        indexes = self._indexes(needs)
        if needs.locked:
            interpreter = await python_interpreter.ask(session, found)
            wanted = [one for one in needs.locked if applies(one.pinned.marker, interpreter)]
            pages = await read_pages(session, indexes, wanted)
            for one in wanted:
                artifact = choose(found, one, pages, interpreter)
                if one.direct and not await direct_files.had(session, [artifact]):
                    continue
                artifacts.setdefault(artifact.file, artifact)
        # A proxy follows for pip, and would be asked for what is served here.
        offer = None if self.settings.proxy else Offer()
        roots = [await direct_files.checked(session, root, offer) for root in needs.roots]
        roots = [root for root in roots if root.entries]
        roots += await self._from_repositories(session, needs, artifacts)
        if any(file.endswith(SDISTS) for file in artifacts):
            # pip builds it in a phase.
            default = python_projects.entries(python_projects.DEFAULT_BUILD)
            roots.append(Root(found.name, default))
        resolved = []
        if roots:
            resolved = await self._resolved_by_pip(session, found, roots, indexes, offer)
        resolved += await self._to_build(session, found, indexes)
        for artifact in resolved:
            artifacts.setdefault(artifact.file, artifact)
        return tuple(artifacts.values())

    async def _to_build(self, session: Session, found: Found, indexes: list[str]) -> list[Artifact]:
        """What phases need to build the packages of uv.lock that have no wheel.

        uv's manager has the packages themselves.
        """
        packages = _locked_by_uv(found)
        if not uv_lock.may_be_built(packages):
            return []
        sources = uv_lock.built(packages, await python_interpreter.ask_uv(session, found))
        asked: dict[tuple[str, ...], str] = {}
        for source, stored in zip(sources, await session.download(sources), strict=True):
            named = f"{source.name} {source.version}"
            needs = await noted_build_needs(session, named, source.file, session.file(stored))
            if needs.build:
                asked.setdefault(needs.build, named)
        artifacts: list[Artifact] = []
        for texts, named in asked.items():
            root = Root(found.name, python_projects.entries(texts))
            try:
                artifacts += await self._resolved_by_pip(session, found, [root], indexes)
            except NoneFits as error:
                # The other packages are to be had in any case.
                why = f"it has no wheel, and what builds it is not to be had: {error}"
                hint = "build it in a phase with egress"
                session.note(Problem(entry=named, why=why, hint=hint))
        return artifacts

    async def _from_repositories(
        self, session: Session, needs: Needs, artifacts: dict[str, Artifact]
    ) -> list[Root]:
        """Add the commits that are asked for; returns what their packages need in turn."""
        headers = {one.url: self.credentials(one.url) for one in needs.git}
        commits, further = await python_git.fetched(session, needs.git, headers)
        artifacts |= {one.url: one for one in commits}
        listed = [
            (one.text, python_projects.entries(texts))
            for one, need in further
            for texts in (need.build, need.run)
        ]
        return [Root(text, entries) for text, entries in listed if entries]

    def _indexes(self, needs: Needs) -> list[str]:
        """The index, then further ones; what the project names wins, as with pip."""
        index = needs.indexes[-1] if needs.indexes else self._config.index
        further = (*self._config.extra_indexes, *needs.extra_indexes)
        return list(dict.fromkeys((index, *further)))

    async def _resolved_by_pip(
        self,
        session: Session,
        found: Found,
        roots: Sequence[Root],
        indexes: list[str],
        offer: Offer | None = None,
    ) -> list[Artifact]:
        written, variables = self._configuration(indexes)
        written |= versions(found)
        proxy = self.settings.proxy_for(indexes[0])
        named = [root_files(number, root) for number, root in enumerate(roots)]
        for one in named:
            written |= one.files
        urls = _addresses(Needs(roots=tuple(roots)))
        script = "\n".join([COMMAND, *(one.command for one in named)])
        result = await session.run(
            ToolRun(
                ["sh", "-ec", script, "sh", python_interpreter.chosen(found)],
                files=written,
                variables=variables,
                egress=index_hosts([*indexes, *urls, *([proxy] if proxy else [])]),
                authorizations=self._config.authorizations(indexes),
                served=offer.files if offer else {},
                wanted=f"what {found.name} asks for",
            )
        )
        if result.exit_code:
            raise failure(found.name, result.output)
        artifacts = []
        for name in (report for one in named for report in one.reports):
            artifacts += read_report(result.read(name, REPORT_BYTES))
        return [offer.named(one) if offer else one for one in artifacts]

    def _configuration(self, indexes: list[str]) -> tuple[dict[str, bytes], dict[str, str]]:
        """Files and variables by which pip reaches the indexes.

        Credentials are in a file: variables are part of an environment's record.
        """
        written = {CONFIGURATION: self._config.file(indexes[0], indexes[1:])}
        variables = {"PIP_CONFIG_FILE": f"{WORK}/{CONFIGURATION}"}
        if self.settings.certificates:
            written[CERTIFICATES] = Path(self.settings.certificates).read_bytes()
            variables["PIP_CERT"] = f"{WORK}/{CERTIFICATES}"
        if proxy := self.settings.proxy_for(indexes[0]):
            variables["PIP_PROXY"] = proxy
        return written, variables

    async def lay_out(
        self, session: Session, sets: Sequence[Complete], view: Path, place: str
    ) -> None:
        """One folder with all files, and in it one with repositories and poetry's cache."""
        for _, fetched in sets:
            for one in fetched.files:
                if source_of(one.artifact) is None and not (view / one.artifact.file).exists():
                    hard_link(session.file(one), view / one.artifact.file)
        files = [(one, session.file(one)) for _, fetched in sets for one in fetched.files]
        partial = frozenset(
            one.url
            for found, _ in sets
            for one in _needs(found).git
            if not one.locked or PYLOCK in {Path(path).name for path in found.files}
        )
        await anyio.to_thread.run_sync(python_git.lay_out, files, view, place, partial)
        await python_poetry.lay_out(session, sets, view)
        urls = {url for found, _ in sets for url in _addresses(_needs(found))}
        stored = [one for _, fetched in sets for one in fetched.files]
        wheels = {one.artifact.url: one for one in stored if one.artifact.url in urls}
        await pip_cache.lay_out(session, [*wheels.values()], versions(sets[0].found), view)

    def access(self, view: str) -> Access:
        """pip and uv look for packages in this folder; an index is not asked in phases."""
        poetry = python_poetry.access(view)
        variables = {"PIP_FIND_LINKS": view, "UV_FIND_LINKS": view}
        cached, overlays = pip_cache.access(view)
        variables |= {**python_git.variables(view), **poetry.variables, **cached}
        return Access(variables, folders=(view,), overlays=(*poetry.overlays, *overlays))


# --- reading


def _is_requirements(folder: str, name: str) -> bool:
    if not name.endswith(".txt"):
        return False
    return name.startswith("requirements") or folder.rpartition("/")[2] == "requirements"


def _lock_above(folder: ProjectFolder) -> dict[str, bytes]:
    """The uv.lock of the workspace that this folder is a member of."""
    above = os.path.dirname(folder.path)
    while folder.path:
        path = os.path.join(above, UV_LOCK)
        content = folder.read(os.path.relpath(path, folder.path))
        if content is not None and folder.path in python_projects.uv_members(path, content):
            return {path: content}
        if not above:
            break
        above = os.path.dirname(above)
    return {}


def _nested(folder: ProjectFolder, name: str) -> dict[str, bytes]:
    """A requirements file with those that it names, by paths relative to the root."""

    def read(path: str) -> bytes | None:
        return folder.read(os.path.relpath(path, folder.path or "."))

    return requirements.nested(folder.inside(name), read)


def _runner_needs(found: Found) -> Needs:
    """What tox and nox install, an environment by itself."""
    locked: list[LockedPackage] = []
    roots: list[Root] = []
    problems, git = list[Problem](), list[GitRequest]()
    for path, computed, read in python_runners.needs(found.folder, found.files):
        problems += [*computed, *_problems(read)]
        git += _git(read)
        pinned, further = told_apart(read)
        locked += pinned
        if further or not pinned:
            roots.append(Root(path, further, read.constraints, read.prereleases))
    return Needs(tuple(locked), tuple(dict.fromkeys(roots)), (), (), tuple(problems), tuple(git))


def _addresses(needs: Needs) -> list[str]:
    """The addresses of wheels that files name."""
    entries = (entry for root in needs.roots for entry in root.entries)
    urls = [wheel.url for entry in entries if (wheel := entry.address) is not None]
    return urls + [file.url for one in needs.locked if one.direct for file in one.files]


def _git(read: requirements.Requirements) -> Iterator[GitRequest]:
    return (one for text in read.elsewhere if (one := requested(text)) is not None)


def _needs(found: Found) -> Needs:
    inside = {os.path.relpath(path, found.folder or "."): path for path in found.files}
    locked: list[LockedPackage] = []
    problems: list[Problem] = []
    roots: list[Root] = []
    indexes: list[str] = []
    extra: list[str] = []
    git: list[GitRequest] = []
    for name, path in inside.items():
        if "/" in name or not _is_requirements(found.folder, name):
            continue
        read = requirements.parse(path, found.files)
        problems += _problems(read)
        git += _git(read)
        indexes += read.indexes
        extra += read.extra_indexes
        pinned, further = told_apart(read)
        locked += pinned
        if further:
            roots.append(Root(path, further, read.constraints, read.prereleases))
    for name, reader in (
        (PYLOCK, python_projects.read_pylock),
        (POETRY, python_projects.read_poetry),
    ):
        if name in inside:
            lock = reader(inside[name], found.files[inside[name]])
            locked += lock.packages
            problems += lock.problems
            git += lock.git
    git += _of_uv_lock(found.files.get(inside.get(UV_LOCK, ""), b""))
    own, runners = _own_needs(found, inside), _runner_needs(found)
    return Needs(
        tuple(dict.fromkeys((*locked, *runners.locked))),
        (*roots, *own.roots, *runners.roots),
        tuple(url for url in map(_index, indexes) if url),
        tuple(url for url in map(_index, extra) if url),
        tuple(dict.fromkeys((*problems, *own.problems, *runners.problems))),
        tuple(dict.fromkeys((*git, *own.git, *runners.git))),
    )


def _of_uv_lock(content: bytes) -> list[GitRequest]:
    """The packages that uv has from repositories; uv's own manager reads the rest."""
    try:
        packages = read_toml(content).get("package", [])
    except ValueError:
        return []
    tables = [one for one in packages if isinstance(one, dict)] if packages else []
    sources = [(str(one.get("name", "")), one.get("source")) for one in tables]
    found = [of_uv(name, one.get("git")) for name, one in sources if isinstance(one, dict)]
    return [one for one in found if one is not None]


def _locked_by_uv(found: Found) -> list[dict[str, Any]]:
    """The packages of the uv.lock of this folder."""
    path = os.path.normpath(os.path.join(found.folder, UV_LOCK))
    return uv_lock.packages(path, found.files[path]) if path in found.files else []


def _own_needs(found: Found, inside: Mapping[str, str]) -> Needs:
    """What the project needs to be built, and to run where no lock says it."""
    if PROJECT in inside:
        path = inside[PROJECT]
        needs = python_projects.project_needs(path, found.files[path], addresses=True)
    else:
        path, needs = inside.get(SETUP, ""), None
    if needs is None and SETUP in inside:
        settings = found.files.get(inside.get(SETUP_SETTINGS, ""), b"")
        path = inside[SETUP]
        needs = python_projects.setup_needs(settings, found.files[path])
    # That of a workspace lies above its member.
    by_uv = any(name.rpartition("/")[2] == UV_LOCK for name in inside)
    # uv builds no project that names no build system.
    if needs is None or (by_uv and not needs.names_build):
        return Needs()
    roots = [Root(path, python_projects.entries(needs.build))] if needs.build else []
    if by_uv or PYLOCK in inside or POETRY in inside:
        return Needs(roots=tuple(roots))
    listed = [python_projects.entries(one) for one in (needs.run, *needs.optional)]
    together = tuple(dict.fromkeys(entry for one in listed for entry in one))
    if together:
        roots.append(Root(path, together, apart=tuple(one for one in listed if one)))
    return Needs(roots=tuple(roots), problems=needs.problems, git=needs.git)


def _problems(read: requirements.Requirements) -> Iterator[Problem]:
    for address in read.elsewhere:
        if requested(address) is None:
            yield Problem(
                entry=without_credentials(address),
                why="only a wheel or a git address over https is fetched",
            )
    for text in read.expanded:
        yield Problem(
            entry=ascii(without_credentials(text))[1:201].rstrip("'"),
            why="it names a variable, and the fetch step gives pip none of yours",
            hint="write it out",
        )
    for path in read.missing:
        yield Problem(
            entry=ascii(path)[1:201].rstrip("'"),
            why="a requirements file names it, and it is not there",
        )


def without_credentials(address: str) -> str:
    """The address as messages may show it."""
    before, scheme, after = address.partition("://")
    host, slash, rest = after.partition("/")
    return f"{before}{scheme}{host.rpartition('@')[2]}{slash}{rest}"[:200]


def _index(url: str) -> str:
    """An index that a project names, without credentials; "" where it is no address."""
    try:
        address = without_login(url)
    except ValueError:
        return ""
    return address if is_web_address(address) else ""
