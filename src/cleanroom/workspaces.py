"""Which changes of a phase come back to the project: a pure selection, and the question to git what the host's ignore files cover."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from cleanroom.backends.base import Change

NEVER = (".git", ".ggen")  # unless declared: a phase that could write them would write its own history
GIT_SECONDS = 10.0


def selected(
    changes: Sequence[Change], *, passed: bool, outputs: Sequence[str] | None, ignored: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """The paths to bring back.

    Of a phase that passed: its outputs where declared, else everything but `NEVER`. Of one that did not: its outputs, and what is in `ignored`.
    Folders above a chosen path are chosen with it.
    """
    chosen = {change.path for change in changes if outputs is not None and _is_output(change.path, outputs)}
    if passed and outputs is None:
        chosen |= {change.path for change in changes if not _never(change.path)}
    elif not passed:
        chosen |= {change.path for change in changes if change.path in ignored and not _never(change.path)}
    parents = {str(parent) for path in chosen for parent in PurePosixPath(path).parents}
    return tuple(change.path for change in changes if change.path in chosen or (change.kind == "directory" and change.path in parents))


def _never(path: str) -> bool:
    return PurePosixPath(path).parts[0] in NEVER


def _is_output(path: str, outputs: Sequence[str]) -> bool:
    """Is it one of the outputs, or below one? An output is a path or a pattern, relative to the workspace."""
    parts = PurePosixPath(path).parts
    for output in outputs:
        wanted = str(PurePosixPath(output))
        if wanted == "." or any(fnmatchcase("/".join(parts[:depth]), wanted) for depth in range(1, len(parts) + 1)):
            return True
    return False


def git_ignored(root: str, changes: Sequence[Change]) -> frozenset[str]:
    """Those changes that git's ignore files on the host cover. None where there is no git, or no repository. Blocks."""
    paths = {f"{change.path}/" if change.kind == "directory" else change.path: change.path for change in changes if not _never(change.path)}
    if not paths:
        return frozenset()
    try:
        answer = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "check-ignore", "-z", "--stdin"],
            input=b"".join(path.encode("utf-8", "surrogateescape") + b"\0" for path in paths),
            cwd=root, capture_output=True, timeout=GIT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return frozenset()
    if answer.returncode != 0:  # 1: none of them; 128: no repository
        return frozenset()
    found = answer.stdout.decode("utf-8", "surrogateescape").split("\0")
    return frozenset(paths[path] for path in found if path in paths)
