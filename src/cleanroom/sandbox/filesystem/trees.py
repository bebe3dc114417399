"""Folder trees that others fill, walked through descriptors.

Files in a layer, a copy or a project may be hostile, and may be moved during the walk.
No link is followed and nothing blocks.
A folder that its owner may not enter is given the missing rights for a moment.
Descriptors of folders are O_PATH ones, which need no right to read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from types import TracebackType
from typing import Self

# Descriptors that one tree holds open at most: RLIMIT_NOFILE is 1024 mostly.
DEPTH_MAX = 200
# Rights of a folder's owner: to pass through it, to list it (and its extended attributes),
# to change its entries.
ENTER, LIST, CHANGE, ALL = 0o100, 0o500, 0o300, 0o700
# Opens a file, folder or link itself; a link is not followed.
ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# O_PATH with O_NOFOLLOW opens a link itself; O_DIRECTORY refuses it (ENOTDIR, open(2)).
_FOLDER = ITSELF | os.O_DIRECTORY
# open(2) of a FIFO without a writer, or of a terminal, would block or attach: these do neither.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def lstat_at(name: str, at: int) -> os.stat_result | None:
    """Status of a name in the folder `at`, a link's own; None if there is none.

    Raises:
        OSError: the folder may not be entered.
    """
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def open_folder(name: str, at: int) -> int:
    """Open a folder in the folder `at`.

    Raises:
        OSError: it is not there, no folder, or a link.
    """
    return os.open(name, _FOLDER, dir_fd=at)


def open_file(name: str, at: int, *, force: bool = False) -> tuple[int, os.stat_result]:
    """Open a regular file for reading.

    `force`: also one of this user's own whose mode forbids reading.

    Raises:
        OSError: EINVAL if it is something else, and whatever open(2) says.
    """
    try:
        descriptor = os.open(name, _FILE, dir_fd=at)
    except PermissionError:
        if not force:
            raise
        descriptor = _open_unreadable(name, at)
    # Judged after open(2), on the descriptor: a name could be exchanged between the two.
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return descriptor, info


def _open_unreadable(name: str, at: int) -> int:
    held = os.open(name, ITSELF, dir_fd=at)
    try:
        mode = os.fstat(held).st_mode
        if not stat.S_ISREG(mode):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        set_mode(held, mode | stat.S_IRUSR)
        try:
            # O_NOFOLLOW would fail with ELOOP on the link in /proc/self/fd (open(2)). It leads to
            # the open file itself, whatever has its name by now.
            return os.open(proc_path(held), _FILE & ~os.O_NOFOLLOW)
        finally:
            set_mode(held, mode)
    finally:
        os.close(held)


def proc_path(descriptor: int) -> str:
    """A path for a descriptor, for calls that fail with EBADF on O_PATH; see proc_pid_fd(5)."""
    return f"/proc/self/fd/{descriptor}"


def set_mode(descriptor: int, mode: int) -> None:
    """Change the mode of an O_PATH descriptor, on which fchmod(2) fails with EBADF.

    Raises:
        OSError: it belongs to another user.
    """
    os.chmod(proc_path(descriptor), stat.S_IMODE(mode))


def entries(folder: int) -> list[tuple[str, os.stat_result]]:
    """Names in a folder with their status, sorted.

    Raises:
        OSError: it may not be listed.
    """
    # getdents(2) fails with EBADF on O_PATH.
    listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        with os.scandir(listed) as items:
            found = [(item.name, item.stat(follow_symlinks=False)) for item in items]
    finally:
        os.close(listed)
    # The kernel gives names in the order of the file system, which differs between machines.
    return sorted(found, key=lambda pair: pair[0])


class Tree:
    """A walk below a top folder: one folder is open at a time, with its parents.

    A folder of this user's that lacks the rights `needed` is given them, and gets its mode back in
    the end; with 0 every folder stays as it is.
    A mode in `modes` is what the folder at that path gets in the end.
    """

    def __init__(self, top: int, needed: int = ENTER) -> None:
        """The descriptor stays the caller's."""
        self._needed = needed
        self._path = ""
        self._names: list[str] = []
        self._descriptors: list[int] = [top]
        self._privileged = os.geteuid() == 0
        self.modes: dict[str, int] = {}

    def enter(self, path: str) -> int:
        """A descriptor of the folder at `path` below the top ("" is the top), until the next call.

        Raises:
            OSError: ENOTDIR where a link or a file is on the way, ENAMETOOLONG deeper than
                DEPTH_MAX, and whatever open(2) says.
        """
        if path != self._path:
            self._walk_to(path.split("/") if path else [])
        self._add_rights(self._needed)
        return self._descriptors[-1]

    def entries(self, path: str) -> list[tuple[str, os.stat_result]]:
        """Names in the folder at `path` with their status, sorted.

        Raises:
            OSError: as `enter`, and EACCES if it belongs to another user.
        """
        folder = self.enter(path)
        if self._needed:
            self._add_rights(LIST)
        return entries(folder)

    def forget(self, path: str) -> None:
        """Drop the modes of a folder that was removed, and of all below it."""
        for known in [known for known in self.modes if f"{known}/".startswith(f"{path}/")]:
            del self.modes[known]

    def restore_modes(self) -> list[tuple[str, OSError]]:
        """Give each folder its mode, the innermost first: a parent's mode may forbid to enter it.

        Returns the folders whose mode could not be set, with the errors.
        """
        failed = []
        for path in sorted(self.modes, reverse=True):
            mode = self.modes.pop(path)
            try:
                self._walk_to(path.split("/") if path else [])
                set_mode(self._descriptors[-1], mode)
            except OSError as error:
                failed.append((path, error))
        return failed

    def close(self) -> None:
        """Restore modes and close every descriptor but the top's."""
        try:
            self.restore_modes()
        finally:
            while self._names:
                self._close_innermost()
            self._closing(self._descriptors[0])

    def __enter__(self) -> Self:
        self._opened(self._descriptors[0])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- hooks for other kinds of trees

    def _open(self, name: str, at: int) -> int:
        return open_folder(name, at)

    def _opened(self, folder: int) -> None:
        """A folder was opened, as a parent or as the last one."""

    def _closing(self, folder: int) -> None:
        """A folder is about to be closed."""

    # --- the walk

    def _walk_to(self, names: list[str]) -> None:
        if len(names) > DEPTH_MAX:
            raise OSError(errno.ENAMETOOLONG, f"nested deeper than {DEPTH_MAX} folders")
        shared = 0
        for here, wanted in zip(self._names, names, strict=False):
            if here != wanted:
                break
            shared += 1
        while len(self._names) > shared:
            self._close_innermost()
        for name in names[shared:]:
            self._add_rights(ENTER & self._needed)
            self._descriptors.append(self._open(name, self._descriptors[-1]))
            self._names.append(name)
            self._path = "/".join(self._names)
            self._opened(self._descriptors[-1])

    def _add_rights(self, rights: int) -> None:
        """Add rights to the open folder, unless CAP_DAC_OVERRIDE makes them needless."""
        if self._privileged:
            return
        mode = os.fstat(self._descriptors[-1]).st_mode
        if mode & rights == rights:
            return
        # Another user's folder stays as it is: the next call in it fails with EACCES.
        with contextlib.suppress(PermissionError):
            set_mode(self._descriptors[-1], mode | rights)
            self.modes.setdefault(self._path, stat.S_IMODE(mode))

    def _close_innermost(self) -> None:
        self._closing(self._descriptors[-1])
        self._names.pop()
        os.close(self._descriptors.pop())
        self._path = "/".join(self._names)
