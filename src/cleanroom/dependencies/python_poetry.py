"""poetry's own cache, filled by poetry's own classes from files that were verified before.

poetry.lock has no addresses, so `poetry install` asks an index for them, and keeps the answers in
its cache, in a layout that changes from version to version. A program of ours
(`inside/poetry_cache.py`) therefore runs in the interpreter of the caller's poetry: it answers what
poetry asks with pages that name the fetched files only, and has poetry keep them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from cleanroom.dependencies import inside
from cleanroom.dependencies.git_sources import source_of
from cleanroom.dependencies.model import Complete, Found, Overlay, Problem, Stored
from cleanroom.dependencies.session import HOME_CACHE, SERVED, WORK, Session, ToolResult, ToolRun
from cleanroom.dependencies.settings import Settings
from cleanroom.dependencies.simple_index import is_file_name, normalized
from cleanroom.dependencies.store import hard_link, take_folder

LOCK, PROJECT, PYTHON_VERSION = "poetry.lock", "pyproject.toml", ".python-version"
# in a view, and in the folder that poetry starts in
CACHE = "poetry"
PROGRAM = "poetry_cache.py"
ORDERS, FILLED = "POETRY.json", "FILLED.json"
_MISSING = 64
# Its interpreter loads our program before it starts: where that is, only its launcher knows.
# Not in the environment's variables: what serves the files is a Python program too.
_SCRIPT = f"""command -v poetry >/dev/null || exit {_MISSING}
PYTHONPATH={WORK}/hook exec poetry --version
"""
_ANSWER_MAX = 16 << 20
_FOLDER = re.compile(r"artifacts(?:/[0-9a-f]{2,64}){1,8}")


class _File(msgspec.Struct, frozen=True, rename={"source": "from"}):
    """One fetched file, for our program."""

    name: str
    version: str
    file: str
    url: str
    sha256: str
    size: int
    source: str


class _Filled(msgspec.Struct, frozen=True):
    """What our program says: address -> poetry's folder for the file."""

    artifacts: Mapping[str, str]


class PoetryAccess(NamedTuple):
    """How phases reach the cache."""

    variables: Mapping[str, str]
    overlays: tuple[Overlay, ...]


def version_of(settings: Settings) -> str:
    """What tells one poetry on the caller's PATH from another; "" where there is none."""
    program = shutil.which("poetry", path=settings.variables.get("PATH"))
    if program is None:
        return ""
    path = os.path.realpath(program)
    return f"{path}\0{os.stat(path).st_mtime_ns}"  # noqa: PTH116


async def lay_out(session: Session, sets: Sequence[Complete], view: Path) -> None:
    """Make poetry's cache in the view, where a project has a lock of poetry's.

    Without poetry there is none; where it fails that is noted, since pip can do without.
    """
    projects = [found for found, _ in sets if _inside(found, LOCK) in found.files]
    if not projects:
        return
    files = {one.artifact.url: one for _, fetched in sets for one in fetched.files if _usable(one)}
    result = await session.run(_tool(session, projects, list(files.values())))
    if result.exit_code == _MISSING:
        return
    filled = _answer(result)
    if result.exit_code or filled is None:
        session.note(_failed(projects[0], result.output))
        return
    take_folder(result.folder / CACHE, view / CACHE)
    for url, folder in filled.artifacts.items():
        if url in files and _FOLDER.fullmatch(folder):
            stored = files[url]
            hard_link(session.file(stored), view / CACHE / folder / stored.artifact.file)


def access(view: str) -> PoetryAccess:
    """poetry writes to its cache, so phases have it copy-on-write.

    Virtual environments are where poetry has them by itself, and stay between runs.
    """
    cache = f"{view}/{CACHE}"
    if not Path(cache).is_dir():
        return PoetryAccess({}, ())
    variables = {
        "POETRY_CACHE_DIR": cache,
        "POETRY_VIRTUALENVS_PATH": f"{HOME_CACHE}/pypoetry/virtualenvs",
    }
    return PoetryAccess(variables, (Overlay(cache, cache),))


def _inside(found: Found, name: str) -> str:
    return os.path.normpath(os.path.join(found.folder, name))


def _usable(one: Stored) -> bool:
    return source_of(one.artifact) is None and is_file_name(one.artifact.file)


def _tool(session: Session, projects: Sequence[Found], stored: Sequence[Stored]) -> ToolRun:
    program = (Path(inside.__file__).parent / PROGRAM).read_bytes()
    written = {"hook/sitecustomize.py": program}
    for number, found in enumerate(projects):
        for name in (LOCK, PROJECT):
            if (path := _inside(found, name)) in found.files:
                written[f"{number}/{name}"] = found.files[path]
    if (path := _inside(projects[0], PYTHON_VERSION)) in projects[0].files:
        written[PYTHON_VERSION] = projects[0].files[path]
    listed = [
        _File(
            name=normalized(one.artifact.name),
            version=one.artifact.version,
            file=one.artifact.file,
            url=one.artifact.url,
            sha256=one.sha256,
            size=one.size,
            source=f"{SERVED}/{number}/{quote(one.artifact.file)}",
        )
        for number, one in enumerate(stored)
    ]
    orders = {"projects": [str(number) for number in range(len(projects))], "files": listed}
    written[ORDERS] = msgspec.json.encode(orders)
    return ToolRun(
        ["sh", "-ec", _SCRIPT],
        files=written,
        variables={"POETRY_CACHE_DIR": f"{WORK}/{CACHE}"},
        served={f"/{n}/{one.artifact.file}": session.file(one) for n, one in enumerate(stored)},
    )


def _answer(result: ToolResult) -> _Filled | None:
    path = result.folder / FILLED
    if not path.is_file() or path.is_symlink() or path.stat().st_size > _ANSWER_MAX:
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Filled)
    except msgspec.MsgspecError:
        return None


def _failed(found: Found, output: bytes) -> Problem:
    lines = output.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    return Problem(
        entry=_inside(found, LOCK),
        why=f"`poetry install` will not find its packages: {lines[-1].strip()[-300:]}",
        hint="use poetry 1.8 or 2, or the lines of pip that `cleanroom-engine init` writes",
    )
