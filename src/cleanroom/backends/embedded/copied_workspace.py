"""The workspace where no overlay can be mounted: one copy of the project for the run."""

from __future__ import annotations

import os
from pathlib import Path

from cleanroom.backends.base import WorkspaceSpec
from cleanroom.backends.embedded.workspace import HostWorkspace
from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import copied_tree
from cleanroom.sandbox.filesystem.changes import Entry


class CopiedWorkspace(HostWorkspace):
    """A copy of the project at `place`, which all environments of the run share."""

    def __init__(self, spec: WorkspaceSpec, place: Path, user: int) -> None:
        super().__init__(spec)
        self.place = place
        owner = (user, user) if os.geteuid() == 0 else None
        place.mkdir(mode=0o700)
        unread = copied_tree.copy(Path(spec.root), place, owner=owner, masked=spec.masked)
        self.unseen = tuple(unread[:3])
        # Nobody else's, whatever the project is; nor would its own mode come back.
        place.chmod(0o700)
        with Folder.at(place) as copied:
            self._snapshot = copied_tree.snapshot(copied, spec.masked)

    def _changed_folder(self) -> Path:
        return self.place

    def _find_changes(self, written: Folder) -> list[Entry]:
        after = copied_tree.snapshot(written, self.masked)
        before, self._snapshot = self._snapshot, after
        return copied_tree.find_changes(written, self._project, before, after, self._visible)
