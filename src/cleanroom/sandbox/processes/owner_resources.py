"""Resources of the keeper's owner, announced before they are made, and removed should it die."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.sandbox import journal
from cleanroom.sandbox.filesystem import tree_removal

if TYPE_CHECKING:
    from cleanroom.sandbox.processes.container_cleanup import Containers
    from cleanroom.sandbox.protocol import TrackContainer


class _Folder(NamedTuple):
    """`parent` is a descriptor of the parent folder, which nobody can replace by another one."""

    parent: int
    name: str


class OwnerResources:
    """Folders and containers of one run, with the journal that names them.

    Lock files are open here too: as long as they are, others see that the run is not over, so they
    stay open until the last resource is gone.
    """

    def __init__(self) -> None:
        self._folders: dict[str, _Folder] = {}
        self._containers: Containers | None = None
        self._journal: journal.Journal | None = None
        self._lock_files: list[int] = []

    def use_journal(self, descriptor: int) -> None:
        """Write removals into the journal that is open as `descriptor`."""
        self._journal = journal.Journal(descriptor)

    def keep_locks(self, descriptors: list[int]) -> None:
        """Take over descriptors of lock files."""
        self._lock_files += descriptors

    def add_folder(self, path: str, parent: int, name: str) -> None:
        """Remove `name` in the folder that `parent` is open on; the journal calls it `path`."""
        self._folders[path] = _Folder(parent, name)

    def forget_folder(self, path: str) -> None:
        """The owner has removed it."""
        folder = self._folders.pop(path, None)
        if folder is not None:
            os.close(folder.parent)

    def track_container(self, order: TrackContainer) -> None:
        """Follow a step in the life of one container."""
        if self._containers is None:
            # Speaking HTTP costs more than the rest of the keeper's start.
            from cleanroom.sandbox.processes.container_cleanup import Containers

            self._containers = Containers()
        self._containers.track(order)

    def remove(self) -> None:
        """Remove every resource, and record each removal in the journal."""
        if self._containers is not None:
            self._containers.remove(self._record_removal)
        for path, folder in self._folders.items():
            # Fails for a folder within another one, which is gone with it.
            with contextlib.suppress(OSError):
                # Another user's folder was announced, and somebody else made it.
                if _owner_of(folder) == os.geteuid():
                    tree_removal.remove_beneath(folder.parent, folder.name)
            if _owner_of(folder) is None:
                self._record_removal("folder", path)

    def _record_removal(self, kind: str, name: str) -> None:
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.gone(journal.Resource(kind, name))


def _owner_of(folder: _Folder) -> int | None:
    """The uid that owns the folder; None where there is none."""
    try:
        # Relative to a descriptor and without following a link: the path cannot lead elsewhere.
        return os.stat(folder.name, dir_fd=folder.parent, follow_symlinks=False).st_uid
    except OSError:
        return None
