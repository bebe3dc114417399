"""Relations between absolute paths, by their text: no file is looked at."""

from __future__ import annotations


def is_within(path: str, folder: str) -> bool:
    """Whether `path` is `folder`, or lies below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")
