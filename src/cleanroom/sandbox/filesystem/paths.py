"""Relations between absolute paths, by their text: no file is looked at.

`core/paths.py` is the same for the engine; what is forked imports little of `core`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable


def is_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder`, or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def is_within_any(path: str, folders: Iterable[str]) -> bool:
    """Whether `path` is one of `folders`, or lies below one."""
    return any(is_within(path, folder) for folder in folders)


def innermost_length(path: str, folders: Iterable[str]) -> int:
    """Length of the innermost of `folders` that contains `path`; 0 if none does."""
    return max((len(folder) for folder in folders if is_within(path, folder)), default=0)


def parents_first(folders: Iterable[str]) -> list[str]:
    """Each folder once, and every folder before those that lie in it."""
    return sorted({os.path.normpath(folder) for folder in folders})


def outermost(folders: Iterable[str]) -> list[str]:
    """The folders that lie in no other one."""
    found: list[str] = []
    for folder in parents_first(folders):
        if not is_within_any(folder, found):
            found.append(folder)
    return found
