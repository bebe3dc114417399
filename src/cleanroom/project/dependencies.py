"""Packages that a phase's command needs and that are not in the project: what would put them there.

Reads a few names in the project's folder.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cleanroom.core.files import is_file, is_there
from cleanroom.model.policy import Policy
from cleanroom.project import manifests
from cleanroom.project.manifests import read_text
from cleanroom.project.recursion import program_onwards, simple_commands

_PYTHON = re.compile(r"python[0-9.]*")
# Variables that name folders of packages: whoever sets them has thought of it.
_FOLDERS = {"PIP_FIND_LINKS", "UV_FIND_LINKS"}
_ENVIRONMENT = re.compile(r"(?:^|.*/)(\.?v?env)/bin/[^/]+")


class Asked(NamedTuple):
    """A phase that is to be advised."""

    name: str
    folder: Path  # where its commands start
    commands: tuple[str, ...]
    policy: Policy
    variables: Mapping[str, str] = {}
    hermetic: bool = True


class _Call(NamedTuple):
    """One call of a package manager, or of a program that needs its packages."""

    manager: str
    folder: Path
    arguments: tuple[str, ...]
    action: str  # the first that is no option; empty where there is none
    text: str  # the whole command that it stands in


class _Manager(NamedTuple):
    missing: Callable[[_Call], bool]  # packages are named, and not in the project
    install: str  # the line that puts them there
    unlocked: Callable[[Path], bool] = lambda root: False
    lock: str = ""  # the line that pins them
    installs: tuple[str, ...] = ()  # actions that put them there
    then: str = ""  # what the phase's own commands need to find them there


def fetched_managers() -> frozenset[str]:
    """The managers whose locked packages the fetch step brings before the phases.

    Imported late: most plans have no phase that misses packages.
    """
    from cleanroom.dependencies.managers import KNOWN

    return frozenset(KNOWN)


def hints(
    phases: Sequence[Asked], fetched: Callable[[], Collection[str]] = fetched_managers
) -> dict[str, str]:
    """Phase -> what helps it, for phases in the order of their run.

    A phase has a hint where it has no network, its package manager would need one, and no earlier
    phase installs the same packages.
    `fetched` gives the managers whose locked packages are brought before the phases: of them only
    a missing lock is said.
    """
    found: dict[str, str] = {}
    provided: set[tuple[str, Path]] = set()
    for phase in phases:
        calls = list(_calls(phase.folder, phase.commands))
        if phase.hermetic and phase.policy.offline and not _FOLDERS & phase.variables.keys():
            hint = _hint(phase.name, calls, fetched, provided)
            if hint:
                found[phase.name] = hint
        provided.update((_family(call), call.folder) for call in calls if _installs(call))
    return found


# What runs another manager, or has its files fetched by it, and that one.
_BRINGERS = {"tox": "pip", "nox": "pip", "poetry": "pip"}


def _family(call: _Call) -> str:
    """Managers of one family put packages into one place."""
    return _FAMILIES.get(call.manager, call.manager)


def _installs(call: _Call) -> bool:
    options = (word for word in call.arguments if word.startswith("--"))
    return any(word in _MANAGERS[call.manager].installs for word in (call.action, *options))


def _hint(
    phase: str,
    calls: Sequence[_Call],
    fetched: Callable[[], Collection[str]],
    provided: Collection[tuple[str, Path]],
) -> str:
    for call in calls:
        manager = _MANAGERS[call.manager]
        if (_family(call), call.folder) in provided or not manager.missing(call):
            continue
        lines = []
        if manager.unlocked(call.folder):
            lines.append(manager.lock)
        brought = _BRINGERS.get(call.manager, call.manager) in fetched()
        if not brought:
            lines.append(_install_line(call))
        if lines:
            then = "" if brought else _then(call)
            return _text(phase, call.manager, lines, then)
    return ""


def _then(call: _Call) -> str:
    if call.manager == "npm" and call.action == "ci":
        return ", and leave `npm ci` out of the phase: it removes node_modules first"
    return _MANAGERS[call.manager].then


def _text(phase: str, manager: str, lines: Sequence[str], then: str) -> str:
    quoted = " and ".join(f"`{line}`" for line in lines)
    return (
        f"phase {phase} has no network, and the packages that {manager} needs are not in the "
        f"project: run {quoted} before{then}"
    )


def _install_line(call: _Call) -> str:
    line = _MANAGERS[call.manager].install
    if call.manager == "go" and is_file(call.folder / "go.work"):
        return "go work vendor"
    if call.manager != "pip":
        return line
    if "uv pip " in call.text:
        line = line.replace(".venv/bin/pip", "uv pip")
    return line.replace("REQUIREMENTS", _requirements(call))


def _requirements(call: _Call) -> str:
    """What pip is asked to install."""
    if call.action == "install":
        return shlex.join(word for word in call.arguments if word != "install")
    files = manifests.requirement_files(call.folder)
    return " ".join(f"-r {file}" for file in files) or "-e ."


def _calls(root: Path, commands: Sequence[str]) -> Iterator[_Call]:
    for command in commands:
        folder = root
        for words in simple_commands(command):
            rest = program_onwards(words)
            if rest[:1] == ["cd"]:
                folder = Path(os.path.normpath(folder.joinpath(*rest[1:2])))
            elif rest:
                manager, arguments = _manager(rest, folder)
                if manager and not _needs_nothing(arguments):
                    action = next((word for word in arguments if not word.startswith("-")), "")
                    yield _Call(manager, folder, tuple(arguments), action, command)


def _needs_nothing(arguments: Sequence[str]) -> bool:
    """Whether a package manager only shows itself, or formats code."""
    return list(arguments[:1]) in (["fmt"], ["version"]) or (
        len(arguments) == 1 and arguments[0] in ("--version", "-version", "-v", "-V", "--help")
    )


def _manager(words: Sequence[str], folder: Path) -> tuple[str, Sequence[str]]:
    """The package manager of a command, and its arguments; ("", ()) where it needs none."""
    program, arguments = PurePosixPath(words[0]).name, words[1:]
    if _PYTHON.fullmatch(program) and list(arguments[:1]) == ["-m"] and len(arguments) > 1:
        program, arguments = arguments[1], arguments[2:]
    if program == "uv" and list(arguments[:1]) == ["pip"]:
        return "pip", arguments[1:]
    if program in _ALIASES:
        return _ALIASES[program], arguments
    if program in ("node", "npx"):
        return manifests.node_manager(folder), ("run", *arguments)
    if _ENVIRONMENT.fullmatch(words[0]):
        return manifests.python_manager(folder), ("run", *arguments)
    return "", ()


def _cargo(call: _Call) -> bool:
    return (
        ("registry+" in read_text(call.folder / "Cargo.lock") or _cargo_unlocked(call.folder))
        and not manifests.has_content(call.folder / "vendor")
        and "[source." not in read_text(call.folder / ".cargo/config.toml")
    )


def _cargo_unlocked(root: Path) -> bool:
    """Whether packages of a registry are named and nothing pins them."""
    if is_file(root / "Cargo.lock"):
        return False
    cargo = manifests.read_toml(root / "Cargo.toml")
    tables = [cargo, manifests.table(cargo, "workspace")]
    return any(
        isinstance(package, str) or "path" not in package
        for each in tables
        for key in ("dependencies", "dev-dependencies", "build-dependencies")
        for package in manifests.table(each, key).values()
    )


def _go(call: _Call) -> bool:
    sums = [call.folder / "go.sum"]
    if is_file(call.folder / "go.work"):
        sums += [call.folder / "go.work.sum", *sorted(call.folder.glob("*/go.sum"))]
    named = any(read_text(file).strip() for file in sums)
    return (named or _go_unlocked(call.folder)) and not manifests.has_content(
        call.folder / "vendor"
    )


def _go_unlocked(root: Path) -> bool:
    required = re.search(r"^\s*require\b", read_text(root / "go.mod"), re.MULTILINE)
    return required is not None and not is_file(root / "go.sum")


def _node(call: _Call) -> bool:
    if not manifests.declares_node_packages(call.folder):
        return False
    if call.manager == "npm" and call.action == "ci":
        return True
    return not manifests.has_content(call.folder / "node_modules") and not is_there(
        call.folder / ".pnp.cjs"
    )


def _node_unlocked(root: Path) -> bool:
    return not any(is_file(root / lock) for lock in manifests.NODE_LOCKS)


def _python(call: _Call) -> bool:
    if "--find-links" in call.text or any(f"{name}=" in call.text for name in _FOLDERS):
        return False
    environments = (call.folder / name for name in (".venv", "venv", "env"))
    if any(manifests.has_installed_packages(environment) for environment in environments):
        return False
    installs = call.action in ("install", "wheel", "download")
    if call.manager == "pip" and not installs and call.action != "run":
        return False
    return installs or bool(manifests.declared_python_packages(call.folder))


def _locked_by(name: str) -> Callable[[Path], bool]:
    return lambda root: not is_file(root / name)


def _maven(call: _Call) -> bool:
    found = re.search(r"-Dmaven\.repo\.local=(\S+)", _with_file(call, ".mvn/maven.config"))
    return is_file(call.folder / "pom.xml") and not (
        found and manifests.has_content(call.folder / found[1])
    )


def _gradle(call: _Call) -> bool:
    build = "\n".join(read_text(call.folder / name) for name in manifests.GRADLE_FILES)
    if not re.search(r"\bdependencies\s*\{|\bid\s*\(?\s*[\"'][^\"']+[\"']\s*\)?\s+version", build):
        return False
    found = re.search(r"(?:-g |--gradle-user-home[= ]|GRADLE_USER_HOME=)(\S+)", call.text)
    return not (found and manifests.has_content(call.folder / found[1]))


def _own_environments(name: str) -> Callable[[_Call], bool]:
    return lambda call: not manifests.has_content(call.folder / name)


def _with_file(call: _Call, name: str) -> str:
    return f"{call.text}\n{read_text(call.folder / name)}"


_FAMILIES = {
    **dict.fromkeys(("pip", "uv", "poetry"), "python"),
    **dict.fromkeys(("npm", "pnpm", "yarn"), "node"),
}
_ALIASES = {
    **{name: name for name in ("cargo", "go", "npm", "pnpm", "yarn", "uv", "poetry", "tox", "nox")},
    **{"pip": "pip", "pip3": "pip", "uvx": "uv", "mvn": "maven", "mvnw": "maven"},
    **{"gradle": "gradle", "gradlew": "gradle"},
}
_MANAGERS = {
    "cargo": _Manager(
        _cargo,
        "mkdir -p .cargo && cargo vendor >> .cargo/config.toml",
        _cargo_unlocked,
        "cargo generate-lockfile",
        ("fetch", "vendor"),
    ),
    "go": _Manager(_go, "go mod vendor", _go_unlocked, "go mod tidy", ("mod",)),
    "npm": _Manager(
        _node,
        "npm ci",
        _node_unlocked,
        "npm install --package-lock-only",
        ("ci", "install", "i"),
    ),
    "pnpm": _Manager(
        _node,
        "pnpm install --frozen-lockfile",
        _node_unlocked,
        "pnpm install --lockfile-only",
        ("install", "i"),
    ),
    "yarn": _Manager(
        _node,
        "yarn install",
        _node_unlocked,
        "yarn install --mode update-lockfile",
        ("install", ""),
    ),
    "pip": _Manager(
        _python,
        "python3 -m venv .venv && .venv/bin/pip install REQUIREMENTS",
        installs=("install",),
    ),
    "uv": _Manager(_python, "uv sync --frozen", _locked_by("uv.lock"), "uv lock", ("sync", "run")),
    "poetry": _Manager(
        _python,
        "POETRY_VIRTUALENVS_IN_PROJECT=1 poetry install",
        _locked_by("poetry.lock"),
        "poetry lock",
        ("install", "sync"),
    ),
    "tox": _Manager(_own_environments(".tox"), "tox run --notest", installs=("--notest",)),
    "nox": _Manager(_own_environments(".nox"), "nox --install-only", installs=("--install-only",)),
    "maven": _Manager(
        _maven,
        "mvn -B -Dmaven.repo.local=.m2 dependency:go-offline",
        installs=("dependency:resolve", "dependency:go-offline"),
        then=", and add `-o -Dmaven.repo.local=.m2` to its commands",
    ),
    "gradle": _Manager(
        _gradle,
        "gradle -g .gradle-home build",
        installs=("dependencies", "build", "assemble"),
        then=", and add `--offline -g .gradle-home` to its commands",
    ),
}
