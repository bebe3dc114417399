"""Which interpreter packages are fetched for: the one that phases of the folder have.

Phases of uv's projects have the one that uv finds. All others have that of a virtual environment
in the folder, which the caller has made, and else the `python3` that PATH leads to.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from cleanroom.dependencies.discovery import ProjectFolder
from cleanroom.dependencies.model import Found, Problem
from cleanroom.dependencies.pip_failure import failure
from cleanroom.dependencies.pip_report import CHOICE
from cleanroom.dependencies.python_tags import PROGRAM, Interpreter, read_interpreter
from cleanroom.dependencies.session import WORK, Session, ToolRun
from cleanroom.dependencies.settings import Settings, read_text
from cleanroom.dependencies.toml_reader import read_toml

PROJECT, PYTHON_VERSION = "pyproject.toml", ".python-version"
ENVIRONMENTS = (".venv", "venv", "env")
RECORD = "pyvenv.cfg"
TAGS = "cleanroom-tags.py"
UV_VARIABLES = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1"}
_VERSION = re.compile(r"([0-9])\.([0-9]{1,2})(?:\.|$)")
_PATH = re.compile(r"/[\w./+@-]{1,500}", re.ASCII)


def on_path(settings: Settings) -> tuple[str, str]:
    """Where `python3` of PATH lies, and the version that a version manager's shim takes."""
    found = shutil.which("python3", path=settings.variables.get("PATH")) or ""
    chosen = ""
    if "/shims/" in found:
        root = settings.variables.get("PYENV_ROOT") or settings.home / ".pyenv"
        chosen = settings.variables.get("PYENV_VERSION") or read_text(Path(root) / "version")
    # A folder's name has the version: it need not be asked on every run.
    return os.path.realpath(found), chosen


def of_environment(folder: ProjectFolder, settings: Settings) -> dict[str, bytes]:
    """The interpreter of the folder's virtual environment, where PATH leads to another version.

    By the path of its record, relative to the root. An environment that phases made of PATH's
    Python changes nothing, and neither does one where no file tells the version of that.
    """
    own = _version_on_path(folder.read(PYTHON_VERSION) or b"", settings)
    for name in ENVIRONMENTS if own else ():
        content = folder.read(f"{name}/{RECORD}")
        if content is None:
            continue
        version, program = _recorded(content)
        other = program and version != own
        return {folder.inside(f"{name}/{RECORD}"): f"{program}\n".encode()} if other else {}
    return {}


async def ask(session: Session, found: Found) -> Interpreter:
    """What the interpreter of the folder is.

    Raises:
        DependencyUnavailable: it is not there, or fails.
    """
    argv = ["sh", "-ec", CHOICE + f'exec "$chosen" {TAGS}', "sh", chosen(found)]
    files = {**versions(found), TAGS: PROGRAM.encode()}
    result = await session.run(ToolRun(argv, files=files, lasting=True))
    if result.exit_code:
        raise failure(found.name, result.output)
    return read_interpreter(result.output)


def uv_question(found: Found) -> ToolRun:
    """Asks the interpreter that uv finds for a project, with the settings of these files."""
    # They lie as in the project: a lock may name members in folders above it.
    folder = shlex.quote(os.path.join("project", found.folder))
    script = f'cd {folder}; python=$(uv python find) && exec "$python" "$0"'
    deciding = {
        f"project/{path}": content
        for path, content in found.files.items()
        if Path(path).name in (PROJECT, PYTHON_VERSION)
    }
    return ToolRun(
        ["sh", "-ec", script, f"{WORK}/{TAGS}"],
        files={**deciding, TAGS: PROGRAM.encode()},
        variables={**UV_VARIABLES, "UV_CACHE_DIR": "/tmp/uv"},  # noqa: S108
        lasting=True,
    )


async def ask_uv(session: Session, found: Found) -> Interpreter:
    """What the interpreter of a folder with uv.lock is: uv builds there.

    Raises:
        DependencyUnavailable: there is none.
    """
    result = await session.run(uv_question(found))
    return read_interpreter(result.output) if not result.exit_code else await ask(session, found)


def unfit(found: Found, settings: Settings) -> Problem | None:
    """What a person has to know where `requires-python` excludes the interpreter.

    uv finds another one by itself.
    """
    if any(Path(path).name == "uv.lock" for path in found.files):
        return None
    version, required = _version_of(found, settings), _required(found)
    if not version or not required:
        return None
    from packaging import specifiers

    try:
        wanted = specifiers.SpecifierSet(required)
    except specifiers.InvalidSpecifier:
        return None
    # The last number is not known, and rarely asked for.
    if any(f"{version}.{last}" in wanted for last in (0, 5, 99)):
        return None
    return Problem(
        entry=f"requires-python {required}"[:200],
        why=f"phases have Python {version}, and what is fetched is for that one",
        hint="put another python3 first on PATH, or make a .venv of it",
    )


def chosen(found: Found) -> str:
    """The path of a virtual environment's interpreter; "" where PATH's counts."""
    records = (os.path.normpath(os.path.join(found.folder, one, RECORD)) for one in ENVIRONMENTS)
    return next((found.files[one].decode().strip() for one in records if one in found.files), "")


def versions(found: Found) -> dict[str, bytes]:
    """The file that chooses the interpreter of a folder."""
    path = os.path.normpath(os.path.join(found.folder, PYTHON_VERSION))
    return {PYTHON_VERSION: found.files[path]} if path in found.files else {}


def _version_of(found: Found, settings: Settings) -> str:
    program = chosen(found)
    pinned = versions(found).get(PYTHON_VERSION, b"")
    return _version(Path(program).name) or _version_on_path(pinned, settings)


def _version_on_path(pinned: bytes, settings: Settings) -> str:
    """As "3.11"; "" where no name tells it. `pinned` counts for a version manager's shim."""
    program, shim = on_path(settings)
    if shim:
        return _version((pinned.decode(errors="replace").strip() or shim).strip())
    return _version(Path(program).name)


def _version(text: str) -> str:
    found = _VERSION.match(text.removeprefix("python"))
    return f"{found[1]}.{found[2]}" if found else ""


def _required(found: Found) -> str:
    """`requires-python` of the folder's project."""
    content = found.files.get(os.path.normpath(os.path.join(found.folder, PROJECT)), b"")
    try:
        project = read_toml(content).get("project")
    except ValueError:
        return ""
    required = project.get("requires-python") if isinstance(project, dict) else None
    return required if isinstance(required, str) else ""


def _recorded(content: bytes) -> tuple[str, str]:
    """Version and interpreter of a virtual environment by its record, which may say anything."""
    values = dict(_lines(content.decode(errors="replace")))
    found = _VERSION.match(values.get("version_info") or values.get("version") or "")
    home = values.get("home", "")
    if found is None or not _PATH.fullmatch(home) or ".." in home.split("/"):
        return "", ""
    version = f"{found[1]}.{found[2]}"
    return version, f"{home}/python{version}"


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines()[:100]:
        name, mark, value = line.partition("=")
        if mark:
            yield name.strip().lower(), value.strip()
