"""The workspace where no overlay can be mounted: one copy of the project for the run."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cleanroom.backends.base import Renewed, WorkspaceSpec
from cleanroom.backends.embedded.workspace import HostWorkspace
from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import copied_tree, tree_removal
from cleanroom.sandbox.filesystem.changes import Entry


class CopiedWorkspace(HostWorkspace):
    """A copy of the project at `place`, which all environments of the run share."""

    def __init__(self, spec: WorkspaceSpec, place: Path, user: int) -> None:
        super().__init__(spec)
        self.place = place
        self._owner = (user, user) if os.geteuid() == 0 else None
        # Changes that the project does not have: of all environments, and before the last one.
        self._uncommitted = self._uncommitted_before = False
        self._copy()

    def _copy(self) -> None:
        self.place.mkdir(mode=0o700)
        root = Path(self.root)
        unread = copied_tree.copy(root, self.place, owner=self._owner, masked=self.masked)
        self.unseen = tuple(unread[:3])
        # Nobody else's, whatever the project is; nor would its own mode come back.
        self.place.chmod(0o700)
        with Folder.at(self.place) as copied:
            self._snapshot = copied_tree.snapshot(copied, self.masked)

    def _renew(self, since_ns: int) -> Renewed:
        # Another copy has nothing of what is in this one alone.
        if self._uncommitted:
            return Renewed(possible=False)
        tree_removal.remove_tree(self.place)
        self._copy()
        self.add_own_interval(since_ns, time.time_ns())
        return Renewed(possible=True)

    def _forget_changes(self) -> None:
        super()._forget_changes()
        self._uncommitted = self._uncommitted_before

    def _changed_folder(self) -> Path:
        return self.place

    def _find_changes(self, written: Folder) -> list[Entry]:
        after = copied_tree.snapshot(written, self.masked)
        before, self._snapshot = self._snapshot, after
        found = copied_tree.find_changes(written, self._project, before, after, self._visible)
        self._uncommitted_before = self._uncommitted
        self._uncommitted = self._uncommitted or bool(found)
        return found
