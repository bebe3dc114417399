"""Folding copy-on-write layers into one, so that their number never reaches what the kernel can mount.

Only while no environment has them mounted. What lies in the layers is hostile: nothing here follows a link or opens a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cleanroom.sandbox.layers import OPAQUE, is_opaque, remove_tree

LAYERS_MAX = 64  # the kernel mounts 500 at most, and their names have to fit a page; few are also quicker to look through


def fold(layers: Sequence[Path]) -> Path:
    """Move what is in the older layers (oldest first) below the newest into it, remove them, and return it.

    Raises:
        OSError: something could not be moved, such as a folder that is nested deeper than a path can name.
    """
    *older, newest = layers
    for layer in reversed(older):
        lay_under(layer / "upper", newest / "upper")
        remove_tree(layer)
    return newest


def lay_under(below: Path, above: Path) -> None:
    """Add the entries of the folder `below` to `above` wherever that has none of the name and does not hide what is below it."""
    pending = [(below, above)]
    while pending:
        lower, upper = pending.pop()
        info = upper.lstat()
        os.chmod(lower, 0o700)
        os.chmod(upper, 0o700)
        for name in os.listdir(lower):
            source, target = lower / name, upper / name
            if not os.path.lexists(target):
                source.rename(target)
            elif _is_folder(target) and not is_opaque(target):
                if _is_folder(source):
                    pending.append((source, target))
                if not _is_folder(source) or is_opaque(source):
                    os.setxattr(target, OPAQUE, b"y")  # nothing further below shows through what was hidden already
        os.chmod(upper, stat.S_IMODE(info.st_mode))
        os.utime(upper, ns=(info.st_atime_ns, info.st_mtime_ns))


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)
