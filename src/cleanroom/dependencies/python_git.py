"""Python packages from Git repositories: fetched, and laid out for phases.

Phases have them by a bare repository for each address, which git itself is led to: `pip install`,
`uv sync` and `poetry install` clone from it as they would from the address.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cleanroom.dependencies.git_packs import Pack, Unsafe
from cleanroom.dependencies.git_requirements import GitRequest
from cleanroom.dependencies.git_sources import (
    RESOLVED,
    GitSource,
    Reference,
    artifact,
    bare_repository,
    is_reference,
    phase_config,
    refused,
    resolved,
    resolving,
    source_of,
    with_submodules,
)
from cleanroom.dependencies.model import Artifact, Problem, Stored
from cleanroom.dependencies.python_projects import (
    ProjectNeeds,
    project_needs,
    setup_needs,
)
from cleanroom.dependencies.session import Session
from cleanroom.dependencies.toml_reader import read_toml
from cleanroom.model.errors import DependencyUnavailable, ProjectError

FOLDER, CONFIGURATION = "git", "gitconfig"  # in a view
_READ_MAX = 4 << 20
# --- fetching


def pinned_artifact(one: GitRequest, commit: str) -> Artifact:
    """The file of the store that has it; its version is the reference where that is named."""
    return artifact(GitSource(one.url, commit), one.name, one.reference if not one.commit else "")


async def fetched(
    session: Session, requests: Iterable[GitRequest], headers: Mapping[str, Mapping[str, str]]
) -> tuple[list[Artifact], list[tuple[GitRequest, ProjectNeeds]]]:
    """The commits with their submodules, and what each package needs.

    `headers`: address -> what its server wants of the caller.

    Raises:
        DependencyUnavailable: a repository or a reference cannot be had.
        DependencyRejected: what came is not what it should be.
    """
    artifacts: dict[str, Artifact] = {}
    needs = []
    for one in requests:
        commit = one.commit or await _resolve(session, one, headers.get(one.url, {}))
        own = pinned_artifact(one, commit)
        for part in await with_submodules(session, [own]):
            artifacts.setdefault(part.url, part)
        (stored,) = await session.download([own])
        try:
            found = _needs(session.file(stored), one)
        except Unsafe as error:
            raise refused(own, error) from error
        for problem in _not_fetched(found):
            session.note(problem)
        needs.append((one, found))
    return list(artifacts.values()), needs


async def _resolve(session: Session, one: GitRequest, headers: Mapping[str, str]) -> str:
    name = one.reference
    asked = name if name == "HEAD" else f"refs/heads/{name} refs/tags/{name} refs/tags/{name}^{{}}"
    result = await session.run(resolving(one.url, asked, headers))
    commit, _ = resolved(result.read(RESOLVED, _READ_MAX), name)
    if result.exit_code or not commit:
        raise DependencyUnavailable(
            "CR-FETCH-003",
            f"{one.text}: the repository does not say where it leads",
            hint="name a branch, a tag, or the whole id of a commit; an abbreviated id is none",
        )
    return commit


def _needs(path: Path, one: GitRequest) -> ProjectNeeds:
    """What a package's own files ask for."""
    with Pack(path) as pack:
        below = posixpath.normpath(one.subdirectory or ".")
        files = {
            posixpath.basename(entry.path): pack.read(entry.id, _READ_MAX)
            for entry in pack.entries()
            if entry.path in {posixpath.normpath(f"{below}/{name}") for name in _OWN_FILES}
        }
    found: ProjectNeeds | None = None
    try:
        if "pyproject.toml" in files:
            found = project_needs("pyproject.toml", files["pyproject.toml"])
    except ProjectError:
        found = None
    if found is None:
        found = setup_needs(files.get("setup.cfg", b""), files.get("setup.py", b""))
    extras = _extras(files.get("pyproject.toml", b""), one.extras)
    if one.locked:
        return ProjectNeeds(found.build)
    run = tuple(dict.fromkeys((*found.run, *extras)))
    return found._replace(run=run, optional=())


_OWN_FILES = ("pyproject.toml", "setup.cfg", "setup.py")


def _not_fetched(needs: ProjectNeeds) -> Iterator[Problem]:
    """What a package from a repository asks for, and does not get."""
    yield from needs.problems
    for one in needs.git:
        why = "a package from a repository asks for it; only the project's own are fetched"
        yield Problem(entry=one.text[:100], why=why)


def _extras(content: bytes, names: Iterable[str]) -> Iterator[str]:
    try:
        document: dict[str, Any] = read_toml(content)
    except ValueError:
        return
    project = document.get("project")
    listed = project.get("optional-dependencies") if isinstance(project, dict) else None
    for name in names:
        texts = listed.get(name) if isinstance(listed, dict) else None
        for text in texts if isinstance(texts, list) else ():
            if isinstance(text, str) and "://" not in text and text.isprintable():
                yield text


# --- what phases see


def lay_out(
    files: Iterable[tuple[Stored, Path]], view: Path, place: str, partial: frozenset[str]
) -> None:
    """A bare repository for each address, and git's configuration that leads to them.

    `partial`: addresses of which pip makes partial clones; uv, poetry, and git for submodules do
    not.

    Raises:
        DependencyRejected: a file of the store is not what it was.
    """
    packs: dict[str, dict[str, Path]] = {}
    names: dict[str, list[Reference]] = {}
    first: dict[str, Artifact] = {}
    for stored, path in files:
        source = source_of(stored.artifact)
        if source is None:
            continue
        packs.setdefault(source.url, {})[source.commit] = path
        first.setdefault(source.url, stored.artifact)
        version = stored.artifact.version
        if version not in ("HEAD", source.commit[:12]) and is_reference(version):
            reference = Reference(f"refs/heads/{version}", source.commit)
            names.setdefault(source.url, []).append(reference)
    folders = {}
    for number, url in enumerate(packs):
        folders[url] = f"{place}/{FOLDER}/{number}.git"
        try:
            bare = view / FOLDER / f"{number}.git"
            bare_repository(bare, packs[url], names.get(url, []), partial=url in partial)
        except Unsafe as error:
            raise refused(first[url], error) from error
    if folders:
        (view / FOLDER / CONFIGURATION).write_bytes(phase_config(folders))


def variables(view: str) -> dict[str, str]:
    """What leads git to the repositories of a view; nothing where it has none."""
    path = f"{view}/{FOLDER}/{CONFIGURATION}"
    if not Path(path).is_file():
        return {}
    # Not by GIT_CONFIG_COUNT: git takes that away from the git that answers a clone.
    # uv that is told to be offline does not ask git.
    return {"GIT_CONFIG_SYSTEM": path, "POETRY_SYSTEM_GIT_CLIENT": "true", "UV_OFFLINE": "false"}
