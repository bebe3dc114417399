"""The files in which a project names its packages: which package manager they are for, and what
they name. Unreadable and malformed files name nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from cleanroom.core.files import is_file, open_to_read
from cleanroom.model.errors import ProjectError
from cleanroom.project.source import parse_source

PythonManager = Literal["pip", "uv", "poetry"]
NodeManager = Literal["npm", "pnpm", "yarn"]

NPM_LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
NODE_LOCKS: dict[str, NodeManager] = {
    **dict.fromkeys(NPM_LOCKS, "npm"),
    "pnpm-lock.yaml": "pnpm",
    "yarn.lock": "yarn",
}
GRADLE_FILES = ("build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts")

_READ_MAX = 4 << 20  # of a lock file: the first megabytes tell whether it names any package
_REQUIREMENTS = (
    ("requirements.txt", "requirements/base.txt", "requirements/main.txt", "requirements/prod.txt"),
    (
        "requirements-dev.txt",
        "requirements_dev.txt",
        "dev-requirements.txt",
        "requirements/dev.txt",
        "requirements/development.txt",
        "requirements/local.txt",
    ),
    (
        "requirements-test.txt",
        "requirements-tests.txt",
        "test-requirements.txt",
        "requirements/test.txt",
        "requirements/tests.txt",
        "requirements/testing.txt",
    ),
)
# What a virtual environment has from its start, and a folder of packages without any.
_BARE_ENVIRONMENT = ("pip", "setuptools", "wheel", "_distutils_hack", "distutils-precedence", "__")


def read_text(file: Path) -> str:
    """The text of a file, or its first megabytes; empty where it cannot be read."""
    try:
        with open_to_read(file) as stream:
            return stream.read(_READ_MAX).decode(errors="replace")
    except OSError:
        return ""


def read_toml(file: Path) -> dict[str, Any]:
    """The table of a TOML file; empty where it is none."""
    try:
        return parse_source(read_text(file).encode(), file.name).table
    except ProjectError:
        return {}


def read_json(file: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where it is none."""
    try:
        return msgspec.json.decode(read_text(file).removeprefix("\ufeff"), type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        return {}


def table(value: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """The table below these keys; empty where one of them is missing or no table."""
    found: Any = value
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def texts(value: Any) -> list[str]:
    """The strings of a list; empty where it is none."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def requirement_files(root: Path) -> tuple[str, ...]:
    """The requirement files of a project: for the program, for development, for its tests."""
    found = (next((n for n in names if is_file(root / n)), "") for names in _REQUIREMENTS)
    return tuple(name for name in found if name)


def requirements(root: Path, files: Iterable[str]) -> tuple[str, ...]:
    """The requirements that these files name, without those of files that they include."""
    found = []
    for file in files:
        for line in read_text(root / file).replace("\\\n", " ").splitlines():
            wanted = re.sub(r"(^|\s)#.*", "", line).strip()
            if wanted and not wanted.startswith("-"):
                found.append(wanted)
    return tuple(found)


def requirement_name(requirement: str) -> str:
    """The normalised name of a requirement: `Flask[async]>=3` -> `flask`."""
    found = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    return re.sub(r"[-_.]+", "-", found.group()).lower() if found else ""


def python_manager(root: Path) -> PythonManager:
    """Who installs the packages of a Python project: its lock tells, else its pyproject.toml."""
    if is_file(root / "uv.lock"):
        return "uv"
    if is_file(root / "poetry.lock"):
        return "poetry"
    tool = table(read_toml(root / "pyproject.toml"), "tool")
    if "poetry" in tool:
        return "poetry"
    return "uv" if "uv" in tool and not requirement_files(root) else "pip"


def declared_python_packages(root: Path) -> tuple[str, ...]:
    """The requirements of a Python project, for development and extras too."""
    project = read_toml(root / "pyproject.toml")
    poetry = table(project, "tool", "poetry")
    groups = table(poetry, "group")
    return (
        *requirements(root, requirement_files(root)),
        *texts(table(project, "project").get("dependencies")),
        *_lists(table(project, "project", "optional-dependencies")),
        *_lists(table(project, "dependency-groups")),
        *texts(table(project, "tool", "uv").get("dev-dependencies")),
        *(name for name in table(poetry, "dependencies") if name != "python"),
        *table(poetry, "dev-dependencies"),
        *(name for group in groups for name in table(groups, group, "dependencies")),
    )


def _lists(value: Mapping[str, Any]) -> Iterator[str]:
    for each in value.values():
        yield from texts(each)


def node_manager(root: Path) -> NodeManager:
    """Who installs the packages of a Node.js project: its lock tells, else its package.json."""
    for lock, manager in NODE_LOCKS.items():
        if is_file(root / lock):
            return manager
    wanted = str(read_json(root / "package.json").get("packageManager", ""))
    named: dict[str, NodeManager] = {"pnpm": "pnpm", "yarn": "yarn"}
    return named.get(wanted.partition("@")[0], "npm")


def declares_node_packages(root: Path) -> bool:
    """Whether package.json names packages, its own workspaces among them."""
    package = read_json(root / "package.json")
    keys = ("dependencies", "devDependencies", "optionalDependencies", "workspaces")
    return any(package.get(key) for key in keys)


def has_content(folder: Path) -> bool:
    """Whether a folder has anything in it but hidden names."""
    try:
        with os.scandir(folder) as entries:
            return any(not entry.name.startswith(".") for entry in entries)
    except OSError:
        return False


def has_installed_packages(environment: Path) -> bool:
    """Whether a virtual environment has packages beside those that each begins with."""
    for packages in sorted(environment.glob("lib*/python3*/site-packages")):
        try:
            with os.scandir(packages) as entries:
                if any(not entry.name.startswith(_BARE_ENVIRONMENT) for entry in entries):
                    return True
        except OSError:
            continue
    return False
