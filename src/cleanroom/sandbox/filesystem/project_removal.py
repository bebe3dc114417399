"""Removal from the project: deletions that a phase made, and what a change replaces."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from cleanroom.sandbox.filesystem.project_tree import Conflict, ProjectTree, Target


class Totals:
    """Numbers of what was written to the project so far; see `write_back.Outcome`."""

    def __init__(self) -> None:
        self.files = 0
        self.bytes = 0
        self.deleted = 0


class ProjectRemoval:
    """Removes unmodified files, links and folders of a project, and counts them."""

    def __init__(self, project: ProjectTree, totals: Totals) -> None:
        self._project = project
        self._totals = totals

    def clear(self, target: Target) -> None:
        """Remove what is at the target.

        Raises:
            Conflict: somebody else changed it, or something in it; nothing is removed.
            OSError: something could not be removed.
        """
        if target.before is None:
            return
        if not target.is_folder:
            self._project.require_unmodified(target)
            self._unlink(target)
            self._totals.deleted += 1
            return
        doomed = [(target.path, target.before), *self._descendants(target.path)]
        filled = _with_files(doomed)
        # Children come first: rmdir(2) fails with ENOTEMPTY otherwise.
        for path, info in reversed(doomed):
            self._remove(path, info)
            # A folder counts only if no file in it does.
            if path not in filled:
                self._totals.deleted += 1

    def _descendants(self, top: str) -> list[tuple[str, os.stat_result]]:
        """Everything below a folder, parents first.

        Raises:
            Conflict: with each path that somebody else put there or changed.
        """
        found: list[tuple[str, os.stat_result]] = []
        changed: list[str] = []
        pending = [top]
        while pending:
            inside = pending.pop()
            children = self._project.entries(inside)
            if self._project.is_replaced:
                changed.append(inside)
                continue
            for name, info in children:
                path = f"{inside}/{name}"
                if stat.S_ISDIR(info.st_mode):
                    pending.append(path)
                elif not self._project.is_unmodified(info):
                    changed.append(path)
                found.append((path, info))
        if changed:
            raise Conflict(*sorted(changed))
        return found

    def _remove(self, path: str, info: os.stat_result) -> None:
        inside, _, name = path.rpartition("/")
        at = self._project.enter(inside)
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(name, dir_fd=at)
            self._project.forget(path)
        else:
            self._unlink(Target(path, name, at, info))

    def _unlink(self, target: Target) -> None:
        with self._project.recording_links(target):
            # A link is removed itself (unlink(2)).
            os.unlink(target.name, dir_fd=target.at)


def _with_files(found: Sequence[tuple[str, os.stat_result]]) -> set[str]:
    """The folders among these that contain something else than folders, at any depth."""
    filled: set[str] = set()
    for path, info in found:
        folder = "" if stat.S_ISDIR(info.st_mode) else path.rpartition("/")[0]
        while folder and folder not in filled:
            filled.add(folder)
            folder = folder.rpartition("/")[0]
    return filled
