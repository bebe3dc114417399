"""Programs that the engine starts outside any environment: found and started here alone.

A workspace is written by phases, so nothing that lies in one is started with the engine's rights,
and nothing that is there configures what is. Programs are looked for in the system's own folders
and never on the caller's PATH, which may begin with `.venv/bin` or `node_modules/.bin`; they get an
environment of their own and the root as their working directory. What the engine starts of itself
is the very interpreter that it runs on.

Standard library only, and importing it costs nothing: the keeper is started by it before anything
else is imported.
A phase with `enabled = false` is the one exception: `host_commands` runs the project's own command,
as it was asked to.
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
    """The program is not there, or somebody else could have put it there."""


def find(name: str) -> str | None:
    """The program of this name in the system's folders, links resolved; None where none is."""
    found = (trusted(os.path.join(folder, name)) for folder in SYSTEM_PATH)
    return next((path for path in found if path is not None), None)


def trusted(path: str, never_in: Iterable[str] = ()) -> str | None:
    """The program behind `path`, links resolved, where nobody else could have put it there.

    Every folder, link and file on the way is root's or our own, and none may be written by all.
    None otherwise, where it is no program, and where it or a link to it lies in a folder of
    `never_in` (absolute).
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
    """Run a program, and wait for its end: a name of the system's folders, or an absolute path.

    Output is text; a status other than zero is a result. `variables` are added to `VARIABLES`.

    Raises:
        NotTrusted: it is not there, or somebody else could have put it there; see `trusted`.
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
    """The same of a process that outlives this one: its number. Nobody waits for it here."""
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
    """A folder of these that holds the standard library or the system's programs: that folder.

    "" where none does. What is started from memory's word alone would then be a workspace's.
    """
    library = os.path.dirname(os.__file__)
    places = [os.path.realpath(place) for place in (library, *SYSTEM_PATH)]
    for root in roots:
        real = os.path.realpath(root).rstrip("/")
        if any(f"{place}/".startswith(f"{real}/") for place in places):
            return root
    return ""


def _isolated() -> list[str]:
    """-I and -S: no variable, no folder that it starts in and no site says what it imports."""
    return ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]


def _interpreter() -> tuple[str, str]:
    """What to execute, and what the interpreter is told that it was called.

    The file that this process runs, whatever has been put in its place since. By its name it finds
    its library, so that is the installation's and not that of a virtual environment, whose
    `pyvenv.cfg` could name another one.
    """
    name = getattr(sys, "_base_executable", "") or sys.executable
    try:
        running = Path(_OURSELVES).readlink().name
    except OSError:
        running = ""  # no Linux, or no /proc
    if running.startswith(("python", "pypy")):
        return _OURSELVES, name
    # Embedded in another program, or started by a loader: what the installation has by that name.
    path = trusted(name)
    if path is None:
        raise NotTrusted(name)
    return path, name


def _own_mode(path: str) -> int | None:
    """The mode of what is there itself; None where nothing is, or others own or may change it."""
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
