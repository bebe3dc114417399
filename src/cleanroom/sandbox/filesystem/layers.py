"""Layers: upper folders of an overlay on the host's side, which hold what a phase wrote.

Files in a layer were written by the code under test and are hostile.
`changes` compares a layer with the project, `write_back` applies it, `merge_layers` merges several,
`tree_removal` removes them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from cleanroom.sandbox.filesystem.trees import proc_path

# With the mount option `userxattr` overlayfs marks an opaque folder in the user namespace.
OPAQUE = "user.overlay.opaque"
# Folders of a project that are written back only if an output declares them.
NEVER_WRITTEN_BACK = (".git", ".ggen")
BLOCK_BYTES = 4096


def make(folder: Path, like: Path, owner: tuple[int, int] | None = None) -> None:
    """Create an empty layer with the mode of the folder `like`.

    It belongs to `owner` (user, group) if one is given.
    """
    # overlayfs prepares files in "work", on the same file system, and renames them into "upper".
    (folder / "work").mkdir(parents=True)
    (folder / "upper").mkdir()
    os.chmod(folder / "upper", stat.S_IMODE(like.stat().st_mode) | 0o700)
    if owner is not None:
        os.chown(folder / "upper", *owner)


def foreign_files(project: Path, entries_max: int = 5000, found_max: int = 3) -> list[str]:
    """Some files of the project that overlayfs cannot copy up for an ordinary user.

    They have another owner or group, and no id map of an ordinary user contains that id.
    """
    found: list[str] = []
    pending, seen = [str(project)], 0
    while pending and seen < entries_max and len(found) < found_max:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as items:
            for item in items:
                seen += 1
                info = item.stat(follow_symlinks=False)
                if info.st_uid != os.geteuid() or info.st_gid != os.getegid():
                    found.append(os.path.relpath(item.path, project))
                elif stat.S_ISDIR(info.st_mode) and item.name not in NEVER_WRITTEN_BACK:
                    pending.append(item.path)
    return found[:found_max]


def is_opaque(folder: int) -> bool:
    """Whether a folder of a layer hides the folders below it; an O_PATH descriptor will do."""
    try:
        # fgetxattr(2) fails with EBADF on O_PATH. ENODATA: the folder has no such mark.
        return os.getxattr(proc_path(folder), OPAQUE) == b"y"
    except OSError:
        return False


def size_of(folder: Path) -> int:
    """Bytes that a layer holds on disk.

    An entry without a block of its own counts as one block: empty files use up inodes.
    """
    total = 0
    pending = [str(folder)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as items:
            for item in items:
                info = item.stat(follow_symlinks=False)
                # st_blocks counts units of 512 bytes on every file system (stat(3type)).
                total += max(info.st_blocks * 512, BLOCK_BYTES)
                if stat.S_ISDIR(info.st_mode):
                    pending.append(item.path)
    return total
