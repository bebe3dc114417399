"""Detection of git repositories, and the folders of history that are not written back.

Values only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from cleanroom.backends.base import Change
from cleanroom.engine.phases.outputs import Outputs, Parts

# Written back only if declared: a phase could write its own history otherwise.
HISTORY_FOLDERS = (".git", ".ggen")

# What git looks for in a folder that it takes for a repository, and what it then obeys.
_LAYOUT = """head objects refs commondir gitdir config config.worktree hooks index info packed-refs
logs modules worktrees branches description shallow reftable"""
_REPOSITORY = frozenset(_LAYOUT.split())
# Parts of a repository that tools do not change while they only look at it, as they do `index`.
_HISTORY = frozenset(("HEAD", "config", "hooks", "objects", "packed-refs", "refs", "reftable"))
# Code points that some file systems ignore when they compare names; git's `is_hfs_dotgit`.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
# 8.3 names of NTFS and FAT; git's `is_ntfs_dotgit`.
_SHORT_NAME = re.compile(r"(git|ggen)~\d+")


class HistoryChange(NamedTuple):
    """A change below a `.git`."""

    # path of the `.git`
    repository: str
    # a name of `_HISTORY`; empty if the `.git` itself was removed or replaced
    part: str


@lru_cache(1 << 16)
def is_history_folder(name: str) -> bool:
    """Whether some file system resolves `name` to one of `HISTORY_FOLDERS`."""
    if name in HISTORY_FOLDERS:
        return True
    # NTFS ignores a stream's name after a colon, and dots and spaces at the end.
    plain = _IGNORED.sub("", name).casefold().partition(":")[0].rstrip(". ")
    return plain in HISTORY_FOLDERS or _SHORT_NAME.fullmatch(plain) is not None


def history_part(parts: Parts, outputs: Outputs) -> str:
    """The component of a path that is never written back, as it is spelled.

    Empty if there is none, or if an output spells it.
    """
    at = next((index for index, part in enumerate(parts) if is_history_folder(part)), None)
    return "" if at is None or outputs.name(parts, at + 1) else parts[at]


def history_change(change: Change, parts: Parts) -> HistoryChange | None:
    """The effect of a change below one of `HISTORY_FOLDERS` on a repository's history.

    None if it has none.

    Tools that only look at a repository write to it every time.
    """
    at = next(index for index, part in enumerate(parts) if part in HISTORY_FOLDERS)
    if parts[at] != ".git":
        return None
    inside = parts[at + 1 :]
    named = () if inside[:1] == ("logs",) else inside
    part = next((part for part in named if part in _HISTORY), "")
    if not part and (inside or change.kind == "directory"):
        return None
    return HistoryChange("/".join(parts[: at + 1]), part)


def repository_depth(parts: Parts, repositories: Collection[str]) -> int | None:
    """Depth of the one of `repositories` that the path is a part of; None if there is none."""
    if not repositories:
        return None
    depths = (depth for depth, part in enumerate(parts) if part.casefold() in _REPOSITORY)
    return next((depth for depth in depths if "/".join(parts[:depth]) in repositories), None)


def made_repositories(changes: Sequence[Change], exists: Callable[[str], bool]) -> frozenset[str]:
    """The changed folders that git would take for a repository once `changes` are applied.

    `exists` says whether the host has a path.
    """
    made: dict[str, set[str]] = {}
    gone: set[str] = set()
    for change in changes:
        parts = change.path.split("/")
        for depth, part in enumerate(parts):
            if part.casefold() in _REPOSITORY:
                names = made.setdefault("/".join(parts[:depth]), set())
                if change.kind == "deleted" and depth == len(parts) - 1:
                    gone.add(change.path)
                else:
                    names.add(part.casefold())

    def has(folder: str, name: str) -> bool:
        path = f"{folder}/{name}".lstrip("/")
        return name.casefold() in made[folder] or (path not in gone and exists(path))

    def is_repository(folder: str) -> bool:
        has_objects = has(folder, "objects") and has(folder, "refs")
        return has(folder, "HEAD") and (has_objects or has(folder, "commondir"))

    return frozenset(folder for folder in made if is_repository(folder))
