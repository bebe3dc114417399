"""The run area: folders of the host for environments that have no namespaces.

As root the environments' user could not pass through a private folder such as /root,
so the area is a folder of the run in /var/tmp.
An ordinary user's lies in the run's own scratch.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from cleanroom.backends.base import Mount
from cleanroom.backends.run_folders import run_areas
from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import copied_tree, tree_removal

# Bytes of a unix socket's address (107, unix(7)) for its folder; the rest is a service's own.
_SOCKET_FOLDER_BYTES = 60


def area_paths(run_id: str, scratch: Path) -> tuple[Path, Path]:
    """The folder for everything of a run's environments, and one with a short name."""
    large, short = run_areas(run_id)
    return (large, large) if os.geteuid() == 0 else (scratch, short)


def make_area_folder(parent: Folder, name: str, user: int) -> Folder:
    """Make a run's folder in one that other users write to, such as /tmp.

    Only root enters it, and the environments' user as its group, who may not change it.

    Raises:
        FileExistsError: somebody made a folder of this name, which nobody may use.
    """
    os.mkdir(name, 0o700, dir_fd=parent.descriptor)
    folder = parent.folder(name)
    if os.geteuid() == 0:
        folder.set_owner_and_mode(0o710, (0, user))
    return folder


class RunArea:
    """Folders of one run's environments on the host."""

    def __init__(self, top: Folder, short: Folder, user: int) -> None:
        """`short` holds links with short names, for the addresses of unix sockets."""
        self.path = top.path
        self._top, self.short = top, short
        self._owner = (user, user) if os.geteuid() == 0 else None
        # source of a mount -> the path that stands for it
        self._host_paths: dict[str, Path] = {}
        # of copies and links; a number is never used again, since something may still use the name
        self._numbers = itertools.count()
        self._links: dict[Path, Path] = {}

    def private_folder(self, *parts: str) -> Path:
        """Make a folder that only the environments' user enters."""
        with self.open_private_folder(*parts) as folder:
            return folder.path

    def open_private_folder(self, *parts: str) -> Folder:
        """Make a folder that only the environments' user enters, and hold it open."""
        folder = self._top.folder("/".join(parts), make=True, mode=0o711)
        folder.set_owner_and_mode(0o700, self._owner)
        return folder

    def host_path(self, mount: Mount) -> Path:
        """The folder of the host that stands for a mount.

        It is the mount's source if the environments' user can get there,
        else a copy that lives as long as the run.
        """
        known = self._host_paths.get(mount.source)
        if known is not None:
            return known
        source = Path(mount.source)
        if self._owner is None:
            if mount.above:
                # A folder of the run that overlays would have made.
                source.mkdir(parents=True, exist_ok=True, mode=0o700)
                if not any(source.iterdir()):
                    copied_tree.copy(Path(mount.above), source)
            self._host_paths[mount.source] = source
            return source
        place = self.private_folder("moved", str(next(self._numbers)))
        copied_tree.copy(Path(mount.above) if mount.above else source, place, owner=self._owner)
        self._host_paths[mount.source] = place
        return place

    def copy_back(self, mount: Mount) -> None:
        """Move what an environment prepared in a copy to the mount's source, an empty folder."""
        place, source = self._host_paths.get(mount.source), Path(mount.source)
        is_prepared = not mount.names_paths and not mount.target.startswith("/run/")
        if place is None or self._owner is None or not is_prepared:
            return
        copied_tree.copy(place, source, owner=(os.geteuid(), os.getegid()))
        del self._host_paths[mount.source]
        tree_removal.remove_tree(place)

    def short_path(self, folder: Path) -> str:
        """A path of the folder that leaves room for the names of sockets in it."""
        if len(str(folder)) < _SOCKET_FOLDER_BYTES:
            return str(folder)
        if folder not in self._links:
            name = str(next(self._numbers))
            os.symlink(folder, name, dir_fd=self.short.descriptor)
            self._links[folder] = self.short.path / name
        return str(self._links[folder])
