"""Resolves paths of an environment from outside, with the caller's root and /proc/self.

The canonical path has no link and no "..", so a link of the workspace that leads outside is judged
by its target.
"""

from __future__ import annotations

import ctypes
import errno
import os

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.kernel.syscall_numbers import NUMBERS

_OPENAT2 = NUMBERS.get("openat2", -1)
# struct open_how: flags, mode, resolve
_OPEN_HOW_BYTES = ctypes.c_size_t(24)
_HANDLE = (os.O_CLOEXEC | constants.O_PATH).to_bytes(8, "little") + bytes(8)
# RESOLVE_IN_ROOT (since 5.6): "/", absolute links and ".." stay below the descriptor (openat2(2))
_RESOLVE_PLAIN = constants.RESOLVE_IN_ROOT | constants.RESOLVE_NO_SYMLINKS
_HOW_PLAIN = _HANDLE + _RESOLVE_PLAIN.to_bytes(8, "little")
_HOW_IN_ROOT = _HANDLE + constants.RESOLVE_IN_ROOT.to_bytes(8, "little")
# errnos of lstat(2) where nothing is at a path
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


class Paths:
    """Resolves paths inside one environment.

    All its processes share one root, since chroot, pivot_root and setns are refused there.
    """

    def __init__(self) -> None:
        self._root = -1

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def canonical(
        self, caller: Caller, path: str, *, follow: bool, allowed: tuple[str, ...]
    ) -> str:
        """The target of the absolute `path`; empty for what is no file at all, as a pipe behind
        /proc/self/fd.

        The common case costs one call: a path below an `allowed` prefix without a link in it is
        canonical.
        """
        self._open_root(caller)
        below = path.startswith(allowed) and "/.." not in path
        if below and not self._has_links(os.fsencode(path)):
            return path
        return self._walk(caller, path, follow=follow)

    def plain(self, path: bytes) -> bool:
        """Whether no link is on the way of the absolute `path`, as far as that exists.

        False until the root was opened for a first caller.
        """
        return self._root >= 0 and not self._has_links(path)

    def reaches(self, caller: Caller, path: str) -> bool:
        """Whether the absolute `path` leads to anything, in one call.

        Not through the magic links of /proc, which have to be walked.
        """
        self._open_root(caller)
        return self._can_open(os.fsencode(path), _HOW_IN_ROOT)

    def root(self, caller: Caller) -> int:
        """A descriptor of the root that all processes share; it stays ours."""
        self._open_root(caller)
        return self._root

    def status(self, path: str | bytes) -> os.stat_result | None:
        """The status of what is at a canonical `path`; None where nothing is."""
        try:
            return os.stat(path[1:] or ".", dir_fd=self._root, follow_symlinks=False)
        # ValueError: the path has a NUL, which no file has
        except (OSError, ValueError):
            return None

    def identity(self, path: str) -> tuple[int, int]:
        """Device and inode of what is at a canonical `path`; zeros where nothing is."""
        found = self.status(path)
        return (found.st_dev, found.st_ino) if found is not None else (0, 0)

    def kind(self, path: str) -> int:
        """The mode of what is at a canonical `path`; 0 where nothing is."""
        found = self.status(path)
        return found.st_mode if found is not None else 0

    def exists(self, path: str) -> bool:
        """Whether anything is at a canonical `path`."""
        return self.kind(path) != 0

    def open_file(self, path: str) -> int:
        """A descriptor for reading what is at a canonical `path`.

        Raises:
            OSError: it may not be read, or has become a link meanwhile.
        """
        return syscalls.openat2(self._root, path, os.O_RDONLY | os.O_NONBLOCK, _RESOLVE_PLAIN)

    def on_host(self, path: str) -> bool:
        """Whether the host has something at a path of the environment; what this user may not
        access counts as there.
        """
        try:
            os.lstat(path)
        except OSError as error:
            return error.errno not in _NOT_THERE
        except ValueError:
            return False
        return True

    def parent_exists(self, path: str) -> bool:
        return self.exists(os.path.dirname(path))

    def _has_links(self, path: bytes) -> bool:
        """Whether the part of `path` that exists goes through a link."""
        # ELOOP: RESOLVE_NO_SYMLINKS met a link (openat2(2)); any other errno is no link
        return not self._can_open(path, _HOW_PLAIN) and ctypes.get_errno() == errno.ELOOP

    def _open_root(self, caller: Caller) -> None:
        if self._root < 0:
            self._root = caller.root()

    def _can_open(self, path: bytes, how: bytes) -> bool:
        # struct open_how was packed once: this runs for each path of each held call
        descriptor: int = syscalls.libc.syscall(_OPENAT2, self._root, path, how, _OPEN_HOW_BYTES)
        if descriptor >= 0:
            os.close(descriptor)
        return descriptor >= 0

    def _walk(self, caller: Caller, path: str, *, follow: bool) -> str:
        """Resolve part by part.

        A missing part is kept as it is written: nothing below it can be a link.
        """
        done = ""
        todo = path.split("/")[::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            step = f"{done}/{part}"
            if not follow and not any(todo):
                return step
            target = self._read_link(caller, step)
            if target is None:
                done = step
                continue
            links += 1
            # the kernel answers ELOOP (path_resolution(7))
            if links > constants.MAXSYMLINKS:
                return path
            # the target of a magic link is no path where the file has none (proc(5))
            if not target.startswith("/") and done.startswith("/proc/") and part.isdigit():
                # pipe:[1], socket:[2], anon_inode:...: there is no path behind the descriptor
                return ""
            # a file in memory is shown as /memfd:NAME, and lies below no folder (memfd_create(2))
            if target.startswith("/memfd:"):
                return ""
            if target.startswith("/"):
                done = ""
            todo += target.removesuffix(" (deleted)").split("/")[::-1]
        return done or "/"

    def _read_link(self, caller: Caller, step: str) -> str | None:
        """The target of the link at `step`, for the caller; None if it is no link."""
        # followed here they would lead to the recorder
        if step == "/proc/self":
            return caller.inner_numbers()[0]
        if step == "/proc/thread-self":
            return "{}/task/{}".format(*caller.inner_numbers())
        try:
            return os.readlink(step[1:], dir_fd=self._root)
        except (OSError, ValueError):
            return None
