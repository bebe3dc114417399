"""`cleanroom-engine init`: write a first make.toml, for the project's language or from a file of
another dialect.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.core.files import is_file
from cleanroom.model.errors import ArtifactError, ProjectError
from cleanroom.project.dialects import parse_project
from cleanroom.project.project_file import FILE, PYPROJECT, hidden_table
from cleanroom.project.raw_project import RawPhase, RawProject
from cleanroom.project.source import read_source
from cleanroom.project.starters import compose, text
from cleanroom.project.starters.base import Starter, StarterService
from cleanroom.project.starters.compose_file import read_compose
from cleanroom.project.starters.recognition import recognized
from cleanroom.project.yaml_source import read_yaml

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_IGNORE_FILE = ".gitignore"
_COMPOSE_FILES = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
)
_IGNORED = ".ggen/"  # state, runs and reports: what the engine itself writes


class Written(NamedTuple):
    """What `init` wrote."""

    path: Path  # the project's make.toml
    others: tuple[Path, ...]  # of its workspaces
    phases: tuple[str, ...]  # in the order of a pipeline
    ignored: str = ""  # the line that its .gitignore got; "" where it had one
    compose: str = ""  # a compose file whose services were not taken over


def write_make_toml(root: Path, source: Path | None = None) -> Written:
    """Write `root`/make.toml, and let git ignore what the engine writes.

    It has the phases that the project's files show, with the services of `source` where that is a
    compose file; or the content of `source` (a make.toml of any dialect) in dialect A.
    A project of several languages gets a make.toml in each folder that has none.

    Raises:
        ProjectError: there is a make.toml already, which is not changed, or `source` is no project.
        ArtifactError: a file could not be written.
    """
    root = root.absolute()
    if os.path.lexists(root / FILE):
        raise _exists()
    if table := hidden_table(root):
        raise ProjectError(
            "CR-INIT-001",
            f"{FILE}: expected no phases in another file, found {table}",
            hint="edit them there: a make.toml would go before them",
            where=f"{PYPROJECT}:1:1",
        )
    texts, phases = _texts(root, source)
    others = [
        _create(root / folder, content)
        for folder, content in texts.items()
        if folder and not os.path.lexists(root / folder / FILE)
    ]
    path = _create(root, texts[""])
    ignored = _ignore(root)
    return Written(path, tuple(others), phases, ignored, "" if source else _compose_file(root))


def _texts(root: Path, source: Path | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """Folder -> text of its make.toml, the root's under ""; and the phases."""
    if source is None:
        return _from_starters(root, recognized(root), None)
    if source.suffix not in (".yaml", ".yml"):
        return _converted(source)
    source = source.absolute()
    file = read_compose(read_yaml(source, source.name), source.parent, root)
    taken = compose.taken_over(file)
    return _from_starters(root, compose.applied(recognized(root), taken), taken)


def _from_starters(
    root: Path, starters: Mapping[str, Starter], taken: compose.Taken | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    if taken is None:
        starters = {folder: _with_services(each) for folder, each in starters.items()}
    first = next(iter(starters.values()))
    phases = tuple(phase.name for phase in first.phases)
    name = _project_name(starters, root)
    services = taken.services if taken else _own_services(starters)
    backend = taken.backend if taken else ""
    comments = taken.comments if taken else _unread_compose(root)
    if len(starters) == 1 and "" in starters:
        return {"": text.whole(first, name, services, backend, comments)}, phases
    own = {folder: text.of_workspace(each) for folder, each in starters.items() if folder}
    whole = text.of_workspaces(starters, name, services, backend, comments)
    return {**own, "": whole}, phases


def _with_services(starter: Starter) -> Starter:
    """The starter, whose tests name the services that it evidently needs."""
    names = tuple(service.name for service in starter.services)
    phases = tuple(
        msgspec.structs.replace(phase, containers=names) if phase.name == "test" else phase
        for phase in starter.phases
    )
    return msgspec.structs.replace(starter, phases=phases)


def _own_services(starters: Mapping[str, Starter]) -> tuple[StarterService, ...]:
    """Each once; of several of one name that with the most keys."""
    found: dict[str, StarterService] = {}
    for service in (one for each in starters.values() for one in each.services):
        before = found.get(service.name)
        if before is None or len(service.keys) > len(before.keys):
            found[service.name] = service
    return tuple(found.values())


def _compose_file(root: Path) -> str:
    """The project's compose file; "" where it has none."""
    return next((name for name in _COMPOSE_FILES if is_file(root / name)), "")


def _unread_compose(root: Path) -> tuple[str, ...]:
    """The comment on a compose file whose services were not asked for."""
    found = _compose_file(root)
    if not found:
        return ()
    return (f"`cleanroom-engine init --from {found}` takes the services of {found} over.",)


def _project_name(starters: Mapping[str, Starter], root: Path) -> str:
    """The name in the metadata of the root's project, else that of the folder."""
    own = starters[""].name if "" in starters else ""
    return own or root.name or "project"


def _create(folder: Path, content: str) -> Path:
    try:
        with Folder.at(folder, inherit_owner=True) as opened:
            descriptor = opened.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
    except FileExistsError:
        raise _exists() from None
    except OSError as error:
        raise _not_written(FILE, error) from error
    return folder / FILE


def _ignore(root: Path) -> str:
    """Add our folder to .gitignore, where no line of it covers that already; the line, or "".

    One that is a link, or another user's, is left as it is.
    """
    try:
        with Folder.at(root, inherit_owner=True) as folder:
            descriptor = folder.open_own(_IGNORE_FILE, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        with os.fdopen(descriptor, "r+b") as stream:
            content = stream.read()
            lines = {line.strip().strip(b"/") for line in content.splitlines()}
            if _IGNORED.strip("/").encode() in lines:
                return ""
            begun = b"" if not content or content.endswith(b"\n") else b"\n"
            stream.write(begun + _IGNORED.encode() + b"\n")
    except OSError as error:
        if is_misplaced(error):
            return ""
        raise _not_written(_IGNORE_FILE, error) from error
    return _IGNORED


def _not_written(name: str, error: OSError) -> ArtifactError:
    return ArtifactError(
        "CR-INIT-002",
        f"{name}: cannot be written: {error.strerror}",
        hint="make the folder writable",
    )


def _exists() -> ProjectError:
    hint = "edit it; to have another one written, move it away and run the same command again"
    return ProjectError(
        "CR-INIT-001",
        f"{FILE}: expected none, found one; it is left as it is",
        hint=hint,
        where=f"{FILE}:1:1",
    )


def _converted(source: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """The text of a make.toml under "", and the phases."""
    import tomlkit

    project = parse_project(read_source(source, source.name), source.absolute().parent)
    document = tomlkit.document()
    document.add(tomlkit.comment(f"Converted from {source.name} (dialect {project.dialect})."))
    for entry in project.ignored:
        document.add(
            tomlkit.comment(
                f"line {entry.line}: {entry.key} had no effect and was left out".replace("\n", " ")
            )
        )
    document.add(
        "project",
        tomlkit.item({"name": project.name or source.absolute().parent.name or "project"}),
    )
    _add_whole(document, project)
    document.add(
        "lifecycle",
        tomlkit.item({name: _phase(phase, project) for name, phase in project.phases.items()}),
    )
    hooks = _hooks(project)
    if hooks:
        document.add("hooks", tomlkit.item(hooks))
    named = tuple(phase.name for phase in project.phases.values() if not phase.generated)
    return {"": tomlkit.dumps(document)}, named


def _add_whole(document: TOMLDocument, project: RawProject) -> None:
    """Add the tables that apply to all phases."""
    import tomlkit

    variables = {
        **project.variables,
        **{name: dict(values) for name, values in project.environments.items()},
    }
    if variables:
        document.add("env", tomlkit.item(variables))
    if project.workspaces:
        folders = {workspace.name: {"path": workspace.path} for workspace in project.workspaces}
        document.add(
            "workspace",
            tomlkit.item({"parallel": True, **folders} if project.parallel else folders),
        )
    if project.settings is not None:
        document.add("cleanroom", tomlkit.item(project.settings.value))


def _phase(phase: RawPhase, project: RawProject) -> dict[str, object]:
    commands = [
        f"cd {_shell(phase.working_directory)} && {{ {command}\n}}"
        if phase.working_directory
        else command
        for command in phase.commands
    ]
    variables = {
        **phase.variables,
        **{name: dict(values) for name, values in phase.environments.items()},
    }
    keys = {
        "description": phase.description,
        "commands": commands,
        "parallel": phase.parallel,
        "depends_on": [reference.name for reference in phase.depends_on],
        "env": variables,
        "cleanroom": phase.settings.value if phase.settings else None,
    }
    return {key: value for key, value in keys.items() if value}


def _hooks(project: RawProject) -> dict[str, list[str]]:
    """Named hooks, and the phases that hooks of shell strings became."""
    hooks = {
        key: [reference.name for reference in phase_references]
        for key, phase_references in project.hooks.items()
    }
    for name, phase in project.phases.items():
        for when, made in (("before", phase.before), ("after", phase.after)):
            if made:
                hooks.setdefault(f"{when}_{name}", []).extend(made)
    return {key: names for key, names in hooks.items() if names}


def _shell(text: str) -> str:
    import shlex

    return shlex.quote(text)
