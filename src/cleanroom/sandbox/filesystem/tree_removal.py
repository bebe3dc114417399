"""Removal of folder trees that hostile code may have filled.

Nothing here follows a link.
Mode-000 folders and nesting deeper than PATH_MAX are removed too.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem.trees import open_folder, set_mode

_READ_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(folder: Path) -> None:
    """Remove a folder whose parent only this user writes to; see `remove_beneath`."""
    with Folder.at(folder.parent) as parent:
        remove_beneath(parent.descriptor, folder.name)


def remove_beneath(parent: int, name: str) -> None:
    """Remove the folder `name` in the open folder `parent`.

    Raises:
        OSError: it is not there, is no folder, or holds something that may not be removed.
    """
    top = _open_to_change(parent, name)
    # Each inner folder is first moved to the top: no depth needs recursion, a path longer than
    # PATH_MAX, or more than three descriptors.
    prefix = f".{os.urandom(8).hex()}-"
    moved = 0
    pending: list[str] = [""]
    try:
        while pending:
            inside = pending.pop()
            inner = _open_to_change(top, inside) if inside else top
            try:
                for child, is_folder in _children(inner):
                    if not is_folder:
                        # unlink(2) needs the right to write the folder, and none on the file.
                        os.unlink(child, dir_fd=inner)
                        continue
                    # rename(2): EACCES for a folder that its owner may not write, since its ".."
                    # changes.
                    os.close(_open_to_change(inner, child))
                    moved += 1
                    os.rename(child, f"{prefix}{moved}", src_dir_fd=inner, dst_dir_fd=top)
                    pending.append(f"{prefix}{moved}")
            finally:
                if inner != top:
                    os.close(inner)
                    # It is empty by now: rmdir(2) fails with ENOTEMPTY otherwise.
                    os.rmdir(inside, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=parent)


def _open_to_change(at: int, name: str) -> int:
    """Open a folder for reading and give its owner every right on it."""
    try:
        folder = os.open(name, _READ_FOLDER, dir_fd=at)
    except PermissionError:
        # O_PATH needs no right on the folder itself (open(2)).
        held = open_folder(name, at)
        try:
            set_mode(held, 0o700)
            # An O_PATH descriptor cannot be listed, so the folder is opened once more through it.
            folder = os.open(".", _READ_FOLDER, dir_fd=held)
        finally:
            os.close(held)
    if stat.S_IMODE(os.fstat(folder).st_mode) & 0o700 != 0o700:
        os.fchmod(folder, 0o700)
    return folder


def _children(folder: int) -> list[tuple[str, bool]]:
    """Names in a folder, and whether each is a folder: `d_type` of readdir(3) saves a stat(2)."""
    with os.scandir(folder) as items:
        return [(item.name, item.is_dir(follow_symlinks=False)) for item in items]
