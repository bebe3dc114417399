"""The engine's only way to find and start programs outside an environment.

Phases write to a workspace.
So the engine starts no program from a workspace, and no file there configures one that it starts.
Programs come from the system's folders, never from the caller's PATH, which may begin with
`.venv/bin` or `node_modules/.bin`.
They get variables of their own, and `/` as their working directory.
Processes of the engine itself run on the interpreter of this process.
The one exception is `host_commands`, which runs the project's own command for a phase with
`enabled = false`.

Standard library only, and cheap to import: the keeper is started from here before other imports.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

SYSTEM_PATH = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
)
VARIABLES = {"PATH": ":".join(SYSTEM_PATH), "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}

_LINKS_MOST = 40  # the kernel's own limit
_OURSELVES = "/proc/self/exe"


class NotTrusted(Exception):
    """The program does not exist, or another user could have placed it there."""


def find(name: str) -> str | None:
    """The path of this program in the system's folders, links resolved; None if there is none."""
    found = (trusted(os.path.join(folder, name)) for folder in SYSTEM_PATH)
    return next((path for path in found if path is not None), None)


def trusted(path: str, never_in: Iterable[str] = ()) -> str | None:
    """The program behind `path`, links resolved, if no other user could have placed it there.

    Every folder, link and file on the way must belong to root or to this user, and none may be
    world-writable.
    None if that does not hold, if the file is no program, or if it or a link to it lies in a
    folder of `never_in` (absolute).
    """
    refused = [f"{os.path.realpath(folder).rstrip('/')}/" for folder in never_in]
    done, todo, links = "", os.path.abspath(path).split("/")[::-1], 0  # noqa: PTH100
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        step = f"{done}/{part}"
        mode = _own_mode(step)
        if mode is None or f"{step}/".startswith(tuple(refused)):
            return None
        if not stat.S_ISLNK(mode):
            done = step
            continue
        links += 1
        if links > _LINKS_MOST:
            return None
        target = str(Path(step).readlink())
        done = "" if target.startswith("/") else done
        todo += target.split("/")[::-1]
    return done if _is_program(done) else None


def run(
    program: str,
    arguments: Sequence[str],
    *,
    timeout_seconds: float,
    variables: Mapping[str, str] | None = None,
    never_in: Iterable[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a program and wait for its end: a name in the system's folders, or an absolute path.

    Output is text; a status other than zero is a result. `variables` are added to `VARIABLES`.

    Raises:
        NotTrusted: it does not exist, or another user could have placed it; see `trusted`.
        TimeoutExpired: it ran past timeout_seconds and has been killed.
        OSError: it cannot be started.
    """
    path = trusted(program, never_in) if "/" in program else find(program)
    if path is None:
        raise NotTrusted(program)
    return subprocess.run(
        [path, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_seconds,
        check=False,
        cwd="/",
        env={**VARIABLES, **(variables or {})},
    )


def start_python(code: str, *, stdin: int) -> subprocess.Popen[bytes]:
    """Start this process's own interpreter on `code`, without variables, site and user packages."""
    path, name = _interpreter()
    words = [name, *_isolated(), "-c", code]
    return subprocess.Popen(words, executable=path, stdin=stdin, cwd="/", env={})


def leave_python(code: str, *, stdin: int, output: int) -> int:
    """Start the interpreter as a process that outlives this one; returns its pid.

    This process does not wait for it.
    """
    path, name = _interpreter()
    code = f"import os; os.chdir('/'); {code}"
    actions = [
        (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    words = [name, *_isolated(), "-c", code]
    return os.posix_spawn(path, words, {}, file_actions=actions)


def import_path(roots: Iterable[str], needed: Iterable[str]) -> list[str]:
    """This process's import path without folders of workspaces, for a process that it starts.

    `needed` are modules of other distributions and our own; the folder that one of them came from
    stays, after all others, so that nothing else in it stands before the standard library.
    """
    inside = [f"{os.path.realpath(root).rstrip('/')}/" for root in roots]

    def hostile(entry: str) -> bool:
        return f"{os.path.realpath(entry or '.')}/".startswith(tuple(inside))

    files = (getattr(sys.modules.get(name), "__file__", None) for name in needed)
    ours = [os.path.dirname(os.path.dirname(file)) for file in files if file]
    safe = [entry for entry in sys.path if entry and not hostile(entry)]
    return list(dict.fromkeys((*safe, *ours)))


def lies_in(roots: Iterable[str]) -> str:
    """The folder of `roots` that contains the standard library or the system's programs.

    Empty if none does.
    If one does, the programs that this module trusts are files of a workspace.
    """
    library = os.path.dirname(os.__file__)
    places = [os.path.realpath(place) for place in (library, *SYSTEM_PATH)]
    for root in roots:
        real = os.path.realpath(root).rstrip("/")
        if any(f"{place}/".startswith(f"{real}/") for place in places):
            return root
    return ""


def _isolated() -> list[str]:
    """-I and -S: variables, the working directory and site-packages do not affect imports."""
    return ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]


def _interpreter() -> tuple[str, str]:
    """The file to execute, and argv[0] of the interpreter.

    The file is the one that this process runs, even if its path has been replaced since.
    The interpreter finds its library by argv[0].
    So that is the installation's path and not a virtual environment's, whose `pyvenv.cfg` could
    name another library.
    """
    name = getattr(sys, "_base_executable", "") or sys.executable
    try:
        running = Path(_OURSELVES).readlink().name
    except OSError:
        running = ""  # no Linux, or no /proc
    if running.startswith(("python", "pypy")):
        return _OURSELVES, name
    # Embedded in another program, or started by a loader: the installation's file of that name.
    path = trusted(name)
    if path is None:
        raise NotTrusted(name)
    return path, name


def _own_mode(path: str) -> int | None:
    """The mode of the file itself; None if there is none, or others own it or may write to it."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    open_to_all = found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode)
    if open_to_all or found.st_uid not in (0, os.geteuid()):
        return None
    return found.st_mode


def _is_program(path: str) -> bool:
    try:
        return stat.S_ISREG(Path(path).stat().st_mode) and os.access(path, os.X_OK)
    except OSError:
        return False
