"""Paths below an open folder: resolved from its descriptor, through no link, never out of it.

A phase, a service or another user may replace any path below a project, a cache or a run's folder
by a link or another folder, at any moment.
So code that writes there opens the folder once, at the start, and resolves all other paths from
its descriptor.
The engine and the sandbox both use this module: standard library only, no effect on import.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from types import TracebackType

# macOS has no O_PATH: there a folder has to be readable to be passed through.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(folder: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` below the folder of this descriptor; no component of it may be a link.

    `mode`, less the umask, counts only with O_CREAT. The descriptor is closed on exec. With O_PATH
    a link at the end of the path is opened itself.

    Raises:
        OSError: ENOTDIR or ELOOP where a component is a link, EXDEV where the path leads out (`..`,
            an absolute path), and whatever open(2) says.
    """
    *inner, last = _parts(path) or ["."]
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC
    if not inner:
        return os.open(last, flags, mode, dir_fd=folder)
    at = os.open(".", _FOLDER, dir_fd=folder)
    try:
        # A folder that is open stays itself, wherever it is moved to meanwhile: each step is taken
        # from it, and none goes up.
        for name in inner:
            at, passed = os.open(name, _FOLDER, dir_fd=at), at
            os.close(passed)
        return os.open(last, flags, mode, dir_fd=at)
    finally:
        os.close(at)


def open_own(
    folder: int, path: str, flags: int, mode: int = 0o644, *, inherit_owner: bool = False
) -> int:
    """Open a file below to change it in place: to append to it, to lock it.

    `inherit_owner`: a file that root makes becomes the folder's owner's.

    A name in the right folder may still be another file of another user: a hard link to it, or the
    file itself, moved there.
    Opening a FIFO or a device could block.

    Raises:
        Misplaced: it is no regular file, has a second name, or belongs to a third.
        OSError: as `open_beneath`.
    """
    # Regular files do not know O_NONBLOCK, nothing else is used.
    flags |= os.O_NONBLOCK | os.O_NOCTTY
    if inherit_owner and flags & os.O_CREAT:
        descriptor = _open_or_make(folder, path, flags, mode)
    else:
        descriptor = open_beneath(folder, path, flags, mode)
    try:
        found, around = os.fstat(descriptor), os.fstat(folder)
        if not stat.S_ISREG(found.st_mode):
            raise Misplaced(errno.EINVAL, "it is no regular file", path)
        if found.st_nlink > 1:
            raise Misplaced(errno.EMLINK, "it has a second name, a hard link", path)
        if found.st_uid not in (0, os.geteuid(), around.st_uid):
            raise Misplaced(errno.EPERM, f"it belongs to user {found.st_uid}", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unix_address(descriptor: int, name: str = "") -> str:
    """The address of the unix socket `name` in the folder of this descriptor.

    Without `name`: of the socket that the descriptor itself holds, opened with O_PATH.
    unix(7): sun_path holds 107 bytes, and folders of ours may lie deeper. Through /proc the address
    is short, and no link is in it.
    """
    through = f"/proc/self/fd/{descriptor}"
    return f"{through}/{name}" if name else through


class Misplaced(OSError):
    """Another object occupies the path of a file of ours."""


# The errors for a link, for a file in a folder's place and a folder in a file's; ENXIO is that for
# a socket, or a FIFO without a reader.
_MISPLACED = (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO, errno.EXDEV)


def is_misplaced(error: OSError) -> bool:
    """Whether the object at the path is the reason, and not a lack of space or permissions."""
    return isinstance(error, Misplaced) or error.errno in _MISPLACED


def make_folders(folder: int, path: str, mode: int = 0o777, *, inherit_owner: bool = False) -> int:
    """Make what is missing of the folders of `path`; returns a descriptor of the last one (O_PATH).

    `mode`, less the umask, is that of each folder made. `inherit_owner`: those that root makes
    become the owner's of the folder around them.

    Raises:
        OSError: as `open_beneath`, and what mkdir(2) says.
    """
    at = os.open(".", _FOLDER, dir_fd=folder)
    for name in _parts(path):
        try:
            deeper = _made(at, name, mode, inherit_owner)
        finally:
            os.close(at)
        at = deeper
    return at


class Folder:
    """A folder held open. `path` is for messages only: nothing is reached by it.

    With `inherit_owner`, what root makes in it and below becomes the owner's of the folder around.
    """

    def __init__(self, descriptor: int, path: Path, *, inherit_owner: bool = False) -> None:
        """Takes the descriptor over."""
        self.descriptor = descriptor
        self.path = path
        self.inherit_owner = inherit_owner

    @classmethod
    def at(cls, path: Path, *, inherit_owner: bool = False) -> Folder:
        """Hold the folder that is at `path` now.

        Links on the way are followed: the path is the caller's own word, not something found.

        Raises:
            OSError: it is not there, or no folder.
        """
        descriptor = os.open(path, _FOLDER & ~os.O_NOFOLLOW)
        return cls(descriptor, path, inherit_owner=inherit_owner)

    def folder(self, path: str, *, make: bool = False, mode: int = 0o777) -> Folder:
        """Hold a folder below; `make` makes what is missing, with `mode` less the umask.

        Raises:
            OSError: as `open_beneath` and `make_folders`.
        """
        inherit = self.inherit_owner
        if make:
            descriptor = make_folders(self.descriptor, path, mode, inherit_owner=inherit)
        else:
            descriptor = self.open(path, _FOLDER)
        return Folder(descriptor, self.path / path, inherit_owner=inherit)

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """A descriptor of something below, as `open_beneath` has it."""
        descriptor = open_beneath(self.descriptor, path, flags, mode)
        # with O_EXCL it was made by this very call
        if self.inherit_owner and flags & os.O_CREAT and flags & os.O_EXCL:
            give_to_owner(descriptor, self.descriptor)
        return descriptor

    def open_own(self, path: str, flags: int, mode: int = 0o644) -> int:
        """A descriptor of a file of ours below, as `open_own` has it."""
        return open_own(self.descriptor, path, flags, mode, inherit_owner=self.inherit_owner)

    def reading(self, path: str) -> BufferedReader:
        """A regular file below, open for reading. Nothing in its place holds anybody up.

        Raises:
            Misplaced: it is no regular file.
            OSError: as `open_beneath`.
        """
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = open_beneath(self.descriptor, path, flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Misplaced(errno.EINVAL, "it is no regular file", path)
        return os.fdopen(descriptor, "rb")

    def set_owner_and_mode(self, mode: int, owner: tuple[int, int] | None) -> None:
        """Set its mode, and its user and group where they are given."""
        opened = self.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if owner is not None:
                os.fchown(opened, *owner)
            os.fchmod(opened, mode)
        finally:
            os.close(opened)

    def names(self) -> list[str]:
        """The names of its entries, sorted.

        Raises:
            OSError: the folder may not be read.
        """
        listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.descriptor)
        try:
            return sorted(os.listdir(listed))  # noqa: PTH208 -- by descriptor
        finally:
            os.close(listed)

    def close(self) -> None:
        """Close the descriptor. Closing twice is no error."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        raise OSError(errno.EXDEV, "leads out of the folder", path)
    return [part for part in parts if part not in ("", ".")]


def _made(at: int, name: str, mode: int, inherit_owner: bool) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=at)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, mode, dir_fd=at)
    except FileExistsError:
        # another process was faster; the open fails unless it is a folder
        return os.open(name, _FOLDER, dir_fd=at)
    return open_given(at, name) if inherit_owner else os.open(name, _FOLDER, dir_fd=at)


def open_given(at: int, name: str) -> int:
    """The folder that was just made; one that root made becomes the owner's of that around it.

    The owner may have put another in its place meanwhile: one of root's, from the same folder, is
    given away only if it is empty, as a new one is, and on the same file system.
    """
    if os.geteuid():
        return os.open(name, _FOLDER, dir_fd=at)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    made = os.open(name, flags, dir_fd=at)
    try:
        found, around = os.fstat(made), os.fstat(at)
        is_new = not found.st_uid and found.st_dev == around.st_dev
        if is_new and not os.listdir(made):  # noqa: PTH208 -- by descriptor
            give_to_owner(made, at)
        return os.open(".", _FOLDER, dir_fd=made)
    finally:
        os.close(made)


def _open_or_make(folder: int, path: str, flags: int, mode: int) -> int:
    """Open a file, or make it: only with O_EXCL is it certain that this call made it."""
    try:
        return open_beneath(folder, path, flags & ~os.O_CREAT, mode)
    except FileNotFoundError:
        pass
    try:
        descriptor = open_beneath(folder, path, flags | os.O_EXCL, mode)
    except FileExistsError:
        # another process was faster, or it is a link, which is refused here
        return open_beneath(folder, path, flags & ~os.O_CREAT, mode)
    give_to_owner(descriptor, folder)
    return descriptor


def give_to_owner(made: int, around: int) -> None:
    """Make what root has just made the owner's of the folder around it."""
    owner = os.fstat(around)
    if os.geteuid() or not owner.st_uid:
        return
    # a server of files or a user namespace may not know the owner: then it stays root's
    with suppress(OSError):
        os.fchown(made, owner.st_uid, owner.st_gid)
