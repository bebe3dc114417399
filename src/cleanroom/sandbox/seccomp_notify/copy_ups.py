"""Held calls ahead of which something is copied up, so that they act as on a plain file system.

A folder of a lower layer that is renamed becomes one of the upper layer, and a file of several
names (hard links) is copied up under all of them; `sandbox/filesystem/copy_up.py` says why.
Init does it, and the call continues when init is done, whether it worked or not: the kernel answers
then.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cleanroom.sandbox.filesystem.layer_stack import LayerStack
from cleanroom.sandbox.kernel.constants import O_PATH, O_WRITING, RENAME_EXCHANGE, RENAME_NOREPLACE
from cleanroom.sandbox.kernel.syscall_numbers import NUMBERS
from cleanroom.sandbox.seccomp.filters import FILE_CHANGES
from cleanroom.sandbox.seccomp_notify.files import Files
from cleanroom.sandbox.seccomp_notify.held_call import HeldCall
from cleanroom.sandbox.seccomp_notify.paths import Paths

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import CopyUp

# call -> index of the flags of renameat2(2); -1: it has none
_RENAMES = {"rename": -1, "renameat": -1, "renameat2": 4}
_LINKS = ("link", "linkat")
# call -> index of the flags of open(2)
_OPENS = {"open": 1, "openat": 2}
# what copies up the file at its path, beside the names and the opens above
_NAMES = frozenset((*_RENAMES, *_LINKS, *FILE_CHANGES, *_OPENS))
_Found = tuple[str, os.stat_result | None]
# More names than a message has room for, in a tree that a package manager linked: left split.
# As JSON, where a character takes up to twelve bytes.
BYTES_MAX = 120_000


class CopyUps:
    """Chooses the calls of one environment, and knows which of them wait for init."""

    def __init__(self, stacks: Sequence[LayerStack], send: Callable[[CopyUp], None]) -> None:
        """`send` passes an order to init."""
        # the innermost mount first
        self._stacks = sorted(stacks, key=lambda stack: len(stack.prefix), reverse=True)
        self._send = send
        # The notifications whose calls wait, and their orders. Init is given one at a time: it
        # makes held calls itself, so the warden must never wait for room in its channel.
        self._waiting: deque[tuple[int, CopyUp]] = deque()
        # number of a call here -> its name
        self._names = {NUMBERS[name]: name for name in _NAMES if name in NUMBERS and self._stacks}
        self._paused = False

    def close(self) -> None:
        for stack in self._stacks:
            stack.close()

    def concerns(
        self, number: int, arguments: Sequence[int], paths: Sequence[bytes], known: Paths
    ) -> bool:
        """Whether `begin` could have something to do for such a call, in as few steps as possible.

        Nearly every call is about a folder that is not renamed, or a file with one name.
        """
        name = self._names.get(number)
        if name is None or name in _LINKS:
            return name is not None
        if not _may_change(name, arguments):
            return False
        renames = name in _RENAMES
        for path in paths:
            info = known.status(path)
            if info is None:
                continue
            if stat.S_ISDIR(info.st_mode):
                if renames:
                    return True
            elif info.st_nlink > 1:
                return True
        return False

    def begin(
        self, call: HeldCall, paths: Sequence[bytes] | None, files: Files, known: Paths
    ) -> bool:
        """Whether init copies something up before this call continues.

        `paths` are those that it changes, without links; None: they are not known yet.

        Raises:
            OSError: a layer may not be looked at, or init is gone.
        """
        if (
            call.name not in _NAMES
            or not self._stacks
            or not _may_change(call.name, call.arguments)
        ):
            return False
        if self._paused:
            return False
        if call.name in _LINKS:
            found = [files.linked_path(call)]
        elif paths is None:
            found = files.changed_paths(call)
        else:
            found = [os.fsdecode(path) for path in paths]
        folders, names = self._needed(call, found, known)
        if not folders and not names:
            return False
        order: CopyUp = {"op": "copy_up", "folders": folders, "names": names}
        if not self._waiting:
            self._send(order)
        self._waiting.append((call.identifier, order))
        return True

    @property
    def busy(self) -> bool:
        """Whether init is at work, so that an end of the environment would leave half of it."""
        return bool(self._waiting)

    def pause(self) -> list[int]:
        """Begin no more until `resume`; the notifications that init has not been told of."""
        self._paused = True
        told = 1 if self._waiting else 0
        ended = [identifier for identifier, _ in list(self._waiting)[told:]]
        while len(self._waiting) > told:
            self._waiting.pop()
        return ended

    def resume(self) -> None:
        self._paused = False

    def end(self) -> list[int]:
        """The notifications whose calls may continue, since init has done what it was told last.

        More than one where a next order cannot be sent.
        """
        ended = [self._waiting.popleft()[0]]
        while self._waiting:
            # Whatever a caller has prepared: it must not hold up the others.
            with contextlib.suppress(OSError, ValueError):
                self._send(self._waiting[0][1])
                break
            ended.append(self._waiting.popleft()[0])
        return ended

    def _needed(
        self, call: HeldCall, paths: Sequence[str], known: Paths
    ) -> tuple[list[str], list[list[str]]]:
        """Folders to own, and files by all of their names."""
        found = [(path, known.status(path) if path else None) for path in map(_normal, paths)]
        if call.name in _RENAMES:
            found = _moved(call, found)
        folders: list[str] = []
        names: list[list[str]] = []
        for path, info in found:
            stack = self._stack(path)
            if info is None or stack is None:
                continue
            inside = path.removeprefix(stack.prefix)
            if stat.S_ISDIR(info.st_mode):
                if call.name in _RENAMES and stack.is_merged(inside):
                    folders.append(path)
                    names += _joined(stack, stack.linked_below(inside))
            elif stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
                names += _joined(stack, [[inside, *stack.other_names(inside)]])
        return folders, names

    def _stack(self, path: str) -> LayerStack | None:
        return next((s for s in self._stacks if path.startswith(s.prefix)), None)


def _joined(stack: LayerStack, groups: Sequence[list[str]]) -> list[list[str]]:
    """Paths of the files with these names, as many as a message has room for."""
    found: list[list[str]] = []
    room = BYTES_MAX
    for names in groups:
        paths = [stack.prefix + name for name in names]
        size = sum(len(json.dumps(path)) for path in paths)
        if len(paths) > 1 and size <= room:
            room -= size
            found.append(paths)
    return found


def _normal(path: str) -> str:
    """Without the slashes and dots that the kernel passes over; there is no ".." in it."""
    # normpath keeps two slashes at the beginning, which mean one on Linux
    return os.path.normpath(path).replace("//", "/") if path else ""


def _may_change(name: str, arguments: Sequence[int]) -> bool:
    """Whether an open writes to a file that is there already."""
    if name not in _OPENS:
        return True
    flags = arguments[_OPENS[name]]
    made = flags & os.O_CREAT and flags & os.O_EXCL
    return bool(flags & O_WRITING) and not made and not flags & O_PATH


def _moved(call: HeldCall, found: list[_Found]) -> list[_Found]:
    """Of a rename: what gets another name, or nothing where the kernel will refuse."""
    index = _RENAMES[call.name]
    flags = call.arguments[index] if index >= 0 else 0
    if flags & RENAME_EXCHANGE:
        return found
    (old, info), (new, replaced) = found
    # EINVAL: into itself
    if info is None or not new or f"{new}/".startswith(f"{old}/"):
        return []
    if replaced is None:
        return [(old, info)]
    is_folder = stat.S_ISDIR(info.st_mode)
    # EEXIST, ENOTDIR or EISDIR
    if flags & RENAME_NOREPLACE or is_folder != stat.S_ISDIR(replaced.st_mode):
        return []
    return [(old, info)]
