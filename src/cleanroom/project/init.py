"""`cleanroom-engine init`: write a first make.toml, for the project's language or from a file of
another dialect.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.core.beneath import Folder
from cleanroom.core.files import is_file
from cleanroom.model.errors import ArtifactError, ProjectError
from cleanroom.project.dialects import parse_project
from cleanroom.project.project_file import FILE
from cleanroom.project.raw_project import RawPhase, RawProject
from cleanroom.project.source import read_source
from cleanroom.project.tools import virtual_environments

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


class _Language(NamedTuple):
    name: str
    image: str
    init: str
    test: str
    validate: str
    packages: str = ""  # a command that puts packages into the project, where phases find them


# A file that shows the language -> the commands of its phases, which every installation has.
_LANGUAGES: dict[str, _Language] = {
    "pyproject.toml": _Language(
        "Python",
        "python:3.12-slim",
        "python3 --version",
        "python3 -m pytest -q",
        "python3 -m compileall -q -x '(^|/)(\\.venv|venv|env)/' .",
        "python3 -m venv .venv && .venv/bin/pip install -e . pytest",
    ),
    "Cargo.toml": _Language(
        "Rust",
        "rust:1-slim",
        "cargo --version",
        "cargo test --offline",
        "cargo check --offline --all-targets",
        "mkdir -p .cargo && cargo vendor >> .cargo/config.toml",
    ),
    "package.json": _Language(
        "Node.js", "node:22-slim", "node --version", "npm test", "npm ls --all", "npm ci"
    ),
    "go.mod": _Language(
        "Go", "golang:1.24", "go version", "go test ./...", "go vet ./...", "go mod vendor"
    ),
}


def _unwritten(phase: str) -> str:
    """The command of a phase in an unknown language: it fails until somebody replaces it."""
    return f"echo 'make.toml: [lifecycle.{phase}]: write your command here' >&2; exit 1"


_UNKNOWN = _Language(
    "not known: write the commands",
    "debian:stable-slim",
    *(_unwritten(phase) for phase in ("init", "test", "validate")),
)

_TEMPLATE = """\
# The lifecycle of this project ({language}).
# `cleanroom-engine plan` shows what would run, `cleanroom-engine pipeline init test validate` runs it.

[project]
name = {name}

# For the whole project; a phase's own cleanroom.KEY goes before it. All keys: docs/make-toml.md of cleanroom-engine.
[cleanroom]
policy = "Medium"          # Low, Medium, High or Locked
slo = "20s"                # what a whole run should take at most
image = "{image}"   # what container backends run phases in; the embedded backend needs none

[lifecycle.init]
description = "Prepare the project"
commands = [{init}]

[lifecycle.test]
description = "Run the tests"
{packages}commands = [{test}]
# Real services for this phase; it finds them by DATABASE_URL and REDIS_URL.
# cleanroom.containers = ["postgres", "redis"]
# cleanroom.timeout = "2m"

[lifecycle.validate]
description = "Check what was built"
commands = [{validate}]
"""  # noqa: E501


def write_make_toml(root: Path, source: Path | None = None) -> Path:
    """Write `root`/make.toml, and return its path.

    It fits the project's language, or has the content of `source` (any dialect) in dialect A.

    Raises:
        ProjectError: there is a make.toml already, which is not changed, or `source` is no project.
        ArtifactError: the file could not be written.
    """
    target = root.absolute() / FILE
    if os.path.lexists(target):
        raise _exists()
    text = _from_language(root.absolute()) if source is None else _converted(source)
    try:
        with Folder.at(target.parent) as folder:
            descriptor = folder.open(FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise _exists() from None
    except OSError as error:
        raise ArtifactError(
            "CR-INIT-002",
            f"{FILE}: cannot be written: {error.strerror}",
            hint="make the folder writable",
        ) from error
    return target


def _exists() -> ProjectError:
    hint = (
        "edit it, or move it away first; `cleanroom-engine init --from FILE` converts another file"
    )
    return ProjectError(
        "CR-INIT-001",
        f"{FILE}: expected none, found one; it is left as it is",
        hint=hint,
        where=f"{FILE}:1:1",
    )


def _from_language(root: Path) -> str:
    language = next(
        (language for sign, language in _LANGUAGES.items() if is_file(root / sign)), _UNKNOWN
    )
    if language.name == "Python" and (environments := virtual_environments(root)):
        language = language._replace(
            test=language.test.replace("python3", f"{environments[0].name}/bin/python", 1)
        )
    if language.name == "Node.js" and _has_script(root, "lint"):
        language = language._replace(validate="npm run lint")
    hint = (
        (
            "# Phases have no network: packages come from the project. Once, on the host: "
            f"{language.packages}\n"
        )
        if language.packages
        else ""
    )
    return _TEMPLATE.format(
        packages=hint,
        language=language.name,
        name=_quoted(root.name or "project"),
        image=language.image,
        init=_quoted(language.init),
        test=_quoted(language.test),
        validate=_quoted(language.validate),
    )


def _has_script(root: Path, name: str) -> bool:
    """Whether package.json has the script: `npm run --if-present` would pass without it."""
    try:
        package = json.loads((root / "package.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    scripts = package.get("scripts") if isinstance(package, dict) else None
    return isinstance(scripts, dict) and name in scripts


def _quoted(text: str) -> str:
    import tomlkit

    return tomlkit.item(text).as_string()


def _converted(source: Path) -> str:
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
    return tomlkit.dumps(document)


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
