"""Folding copy-on-write layers into one, so that their number never reaches what the kernel can
mount.

Only while no environment has them mounted.
What lies in the layers is hostile: nothing here follows a link or opens a file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem.layers import OPAQUE, is_opaque
from cleanroom.sandbox.filesystem.tree_removal import remove_tree
from cleanroom.sandbox.filesystem.trees import (
    ALL,
    Tree,
    entries,
    lstat_at,
    open_folder,
    proc_path,
    set_mode,
)

# the kernel mounts 500 at most, and their names have to fit a page;
# few are also quicker to look through
LAYERS_MAX = 64


def fold(layers: Sequence[Path]) -> Path:
    """Move what is in the older layers (oldest first) below the newest into it, remove them,
    and return it.

    Raises:
        OSError: something could not be moved, such as a folder that is nested too deeply.
    """
    *older, newest = layers
    with Folder.at(newest / "upper") as above:
        for layer in reversed(older):
            with Folder.at(layer / "upper") as below:
                lay_under(below, above)
            remove_tree(layer)
    return newest


def lay_under(below: Folder, above: Folder) -> None:
    """Add what is in `below` to `above` wherever that has none of the name and hides nothing."""
    pending = [""]
    with Tree(below.descriptor, ALL) as lowers, Tree(above.descriptor, ALL) as uppers:
        while pending:
            inside = pending.pop()
            for path, source in _moved(inside, lowers, uppers):
                folder = uppers.enter(path)
                if is_opaque(folder):
                    continue
                hidden = True
                if stat.S_ISDIR(source.st_mode):
                    pending.append(path)
                    hidden = is_opaque(lowers.enter(path))
                if hidden:  # nothing further below shows through what was hidden already
                    os.setxattr(proc_path(folder), OPAQUE, b"y")


def _moved(inside: str, lowers: Tree, uppers: Tree) -> list[tuple[str, os.stat_result]]:
    """Move what is missing above; returns what meets a folder there, with what it is."""
    lower, upper = lowers.enter(inside), uppers.enter(inside)
    before = os.fstat(upper)
    met = []
    for name, source in entries(lower):
        target = lstat_at(name, upper)
        if target is None:
            _move(name, source, lower, upper)
        elif stat.S_ISDIR(target.st_mode):
            met.append((f"{inside}/{name}" if inside else name, source))
    os.utime(proc_path(upper), ns=(before.st_atime_ns, before.st_mtime_ns))
    return met


def _move(name: str, source: os.stat_result, lower: int, upper: int) -> None:
    """A folder that its owner may not write would not be moved: another parent is written in it."""
    if not stat.S_ISDIR(source.st_mode) or source.st_mode & stat.S_IWUSR or os.geteuid() == 0:
        os.rename(name, name, src_dir_fd=lower, dst_dir_fd=upper)
        return
    folder = open_folder(name, lower)
    try:
        set_mode(folder, source.st_mode | stat.S_IWUSR)
        os.rename(name, name, src_dir_fd=lower, dst_dir_fd=upper)
        set_mode(folder, source.st_mode)
    finally:
        os.close(folder)
