"""Relations between paths, by their text: no file is looked at."""

from __future__ import annotations

from collections.abc import Iterable


def is_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder`, or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def parent(path: str) -> str:
    """The folder above a relative path; empty for a name alone."""
    return path.rpartition("/")[0]


def parents(paths: Iterable[str]) -> set[str]:
    """All folders above these relative paths, but for the empty one."""
    found: set[str] = set()
    for path in paths:
        folder = parent(path)
        while folder and folder not in found:
            found.add(folder)
            folder = parent(folder)
    return found
