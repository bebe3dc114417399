"""Merging copy-on-write layers into one, so that the kernel can still mount their number.

Only while no environment has them mounted.
Files in the layers are hostile: nothing here follows a link or opens a file.
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

# overlayfs takes 500 lower folders at most (OVL_MAX_STACK), and their names have to fit one page of
# mount options. A lookup of a missing name asks each of them.
LAYERS_MAX = 64


def merge(layers: Sequence[Path]) -> Path:
    """Merge layers (the oldest first) into the newest, remove the older ones, and return it.

    Raises:
        OSError: something could not be moved, such as a folder that is nested too deeply.
    """
    *older, newest = layers
    with Folder.at(newest / "upper") as above:
        for layer in reversed(older):
            with Folder.at(layer / "upper") as below:
                merge_below(below, above)
            remove_tree(layer)
    return newest


def merge_below(below: Folder, above: Folder) -> None:
    """Move entries of the layer `below` to `above`, unless that has the name or hides it."""
    pending = [""]
    with Tree(below.descriptor, ALL) as lowers, Tree(above.descriptor, ALL) as uppers:
        while pending:
            inside = pending.pop()
            for path, source in _move_missing(inside, lowers, uppers):
                folder = uppers.enter(path)
                if is_opaque(folder):
                    continue
                hidden = True
                if stat.S_ISDIR(source.st_mode):
                    pending.append(path)
                    hidden = is_opaque(lowers.enter(path))
                if hidden:
                    # What the lower folder hides stays hidden in the merged one.
                    os.setxattr(proc_path(folder), OPAQUE, b"y")


def _move_missing(inside: str, lowers: Tree, uppers: Tree) -> list[tuple[str, os.stat_result]]:
    """Move entries that are missing above; returns those that meet a folder there.

    They are (path, status in the lower layer).
    """
    lower, upper = lowers.enter(inside), uppers.enter(inside)
    before = os.fstat(upper)
    met = []
    for name, source in entries(lower):
        target = lstat_at(name, upper)
        if target is None:
            _move(name, source, lower, upper)
        elif stat.S_ISDIR(target.st_mode):
            met.append((f"{inside}/{name}" if inside else name, source))
    # rename(2) into a folder sets its mtime, and the mtime of an upper folder is what is shown.
    os.utime(proc_path(upper), ns=(before.st_atime_ns, before.st_mtime_ns))
    return met


def _move(name: str, source: os.stat_result, lower: int, upper: int) -> None:
    """Move one entry; rename(2) fails with EACCES for a folder that its owner may not write."""
    if not stat.S_ISDIR(source.st_mode) or source.st_mode & stat.S_IWUSR or os.geteuid() == 0:
        os.rename(name, name, src_dir_fd=lower, dst_dir_fd=upper)
        return
    folder = open_folder(name, lower)
    try:
        # A folder that gets another parent has its ".." rewritten, which needs the right to write
        # it (rename(2)).
        set_mode(folder, source.st_mode | stat.S_IWUSR)
        os.rename(name, name, src_dir_fd=lower, dst_dir_fd=upper)
        set_mode(folder, source.st_mode)
    finally:
        os.close(folder)
