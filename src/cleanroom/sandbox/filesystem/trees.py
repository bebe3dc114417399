"""Folders of a tree that others fill, reached one after the other through descriptors.

What lies in a layer, a copy or a project may be hostile, or be moved while it is looked at: no
link is followed, nothing is waited for, and what its owner may not enter is entered all the same,
for a moment. Descriptors of folders are such as cannot be read from (O_PATH).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from types import TracebackType
from typing import Self

# Descriptors that one tree holds open at most: a process has 1024 mostly. No build nests as deep.
DEPTH_MAX = 200
# What the owner of a folder needs to pass through it, to see what is in it (and its extended
# attributes), to change what is in it.
ENTER, LIST, CHANGE, ALL = 0o100, 0o500, 0o300, 0o700
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def lstat_at(name: str, at: int) -> os.stat_result | None:
    """What is there, a link being itself; None where nothing is.

    Raises:
        OSError: the folder may not be entered.
    """
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def open_folder(name: str, at: int) -> int:
    """Hold a folder in the folder `at`.

    Raises:
        OSError: it is not there, no folder, or a link.
    """
    return os.open(name, _FOLDER, dir_fd=at)


def open_file(name: str, at: int, *, force: bool = False) -> tuple[int, os.stat_result]:
    """Open a regular file for reading.

    `force`: also one of this user's own that nobody may read.

    Raises:
        OSError: EINVAL where it is something else, and whatever open(2) says.
    """
    try:
        descriptor = os.open(name, _FILE, dir_fd=at)
    except PermissionError:
        if not force:
            raise
        descriptor = _open_closed(name, at)
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return descriptor, info


def _open_closed(name: str, at: int) -> int:
    held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    try:
        mode = os.fstat(held).st_mode
        if not stat.S_ISREG(mode):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        set_mode(held, mode | stat.S_IRUSR)
        try:
            return os.open(proc_path(held), _FILE & ~os.O_NOFOLLOW)
        finally:
            set_mode(held, mode)
    finally:
        os.close(held)


def proc_path(descriptor: int) -> str:
    """A name for what a descriptor holds, for calls that take none of O_PATH."""
    return f"/proc/self/fd/{descriptor}"


def set_mode(descriptor: int, mode: int) -> None:
    """The mode of what an O_PATH descriptor holds, which fchmod(2) does not take.

    Raises:
        OSError: it is another's.
    """
    os.chmod(proc_path(descriptor), stat.S_IMODE(mode))


def entries(folder: int) -> list[tuple[str, os.stat_result]]:
    """What is in a folder and what each of it is, by name.

    Raises:
        OSError: it may not be listed.
    """
    listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(listed) as items:
            found = [(item.name, item.stat(follow_symlinks=False)) for item in items]
    finally:
        os.close(listed)
    return sorted(found, key=lambda pair: pair[0])


class Tree:
    """One folder below a top one is held open at a time, with those on the way to it.

    A folder that its owner (this user) may not use is given the `rights` that it takes, and gets
    its mode back in the end; without `rights` each stays as it is. What `modes` says of a path,
    its folder gets then.
    """

    def __init__(self, top: int, rights: int = ENTER) -> None:
        """The descriptor stays the caller's."""
        self._rights = rights
        self._path = ""
        self._names: list[str] = []
        self._held: list[int] = [top]
        self._privileged = os.geteuid() == 0
        self.modes: dict[str, int] = {}

    def enter(self, path: str) -> int:
        """A descriptor of the folder at this path below the top ("" is that), until the next call.

        Raises:
            OSError: ENOTDIR where a link or a file is on the way, ENAMETOOLONG deeper than
                DEPTH_MAX, and whatever open(2) says.
        """
        if path != self._path:
            self._go(path.split("/") if path else [])
        self._permit(self._rights)
        return self._held[-1]

    def entries(self, path: str) -> list[tuple[str, os.stat_result]]:
        """What is in the folder at this path and what each of it is, by name.

        Raises:
            OSError: as `enter`, and EACCES where it is another's.
        """
        folder = self.enter(path)
        if self._rights:
            self._permit(LIST)
        return entries(folder)

    def _go(self, names: list[str]) -> None:
        if len(names) > DEPTH_MAX:
            raise OSError(errno.ENAMETOOLONG, f"nested deeper than {DEPTH_MAX} folders")
        shared = 0
        for mine, wanted in zip(self._names, names, strict=False):
            if mine != wanted:
                break
            shared += 1
        while len(self._names) > shared:
            self._leave()
        for name in names[shared:]:
            self._permit(ENTER & self._rights)
            self._held.append(self._open(name, self._held[-1]))
            self._names.append(name)
            self._path = "/".join(self._names)
            self._entered(self._held[-1])

    def _permit(self, rights: int) -> None:
        if self._privileged:
            return
        mode = os.fstat(self._held[-1]).st_mode
        if mode & rights == rights:
            return
        # Another's stays as it is: whatever is tried in it then says so.
        with contextlib.suppress(PermissionError):
            set_mode(self._held[-1], mode | rights)
            self.modes.setdefault(self._path, stat.S_IMODE(mode))

    def _leave(self) -> None:
        self._left(self._held[-1])
        self._names.pop()
        os.close(self._held.pop())
        self._path = "/".join(self._names)

    # --- what another kind of tree does at these moments

    def _open(self, name: str, at: int) -> int:
        return open_folder(name, at)

    def _entered(self, folder: int) -> None:
        """A folder was opened, on the way or as the last one."""

    def _left(self, folder: int) -> None:
        """A folder is about to be closed."""

    # --- the end

    def forget(self, path: str) -> None:
        """The folder at this path is gone, with all below it."""
        for known in [known for known in self.modes if f"{known}/".startswith(f"{path}/")]:
            del self.modes[known]

    def settle(self) -> list[tuple[str, OSError]]:
        """Give each folder its mode, the innermost first: a parent may be closed by its own.

        Returns those that could not be given theirs, with what the system said.
        """
        unsettled = []
        for path in sorted(self.modes, reverse=True):
            mode = self.modes.pop(path)
            try:
                self._go(path.split("/") if path else [])
                set_mode(self._held[-1], mode)
            except OSError as error:
                unsettled.append((path, error))
        return unsettled

    def close(self) -> None:
        """Settle, and hold nothing any more."""
        try:
            self.settle()
        finally:
            while self._names:
                self._leave()
            self._left(self._held[0])

    def __enter__(self) -> Self:
        self._entered(self._held[0])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
