"""Letting other users of the machine into a test's folder."""

from __future__ import annotations

from pathlib import Path


def allow_traversal(folder: Path, base: Path) -> None:
    """Let any user enter and list the folder, which lies below pytest's base of temporary folders.

    What lies above those that pytest made, such as /dev/shm, is the machine's and keeps its mode.
    """
    way = (folder, *folder.parents)
    for made in way[: way.index(_outermost(base)) + 1]:
        made.chmod(made.stat().st_mode | 0o055)


def _outermost(base: Path) -> Path:
    """The outermost folder that pytest made, by the names that it and its workers give."""
    shared = base.parent if base.name.startswith("popen-gw") else base
    return shared.parent if shared.parent.name.startswith("pytest-of-") else shared
