"""Where a path of the environment really leads, decided outside it.

Paths are resolved for the caller: its root, its working directory, its /proc/self.
What comes out is free of links and of "..", so that a link of the workspace that leads outside is
seen for what it is.
"""

from __future__ import annotations

import ctypes
import errno
import os

from cleanroom.sandbox.kernel import constants, syscalls
from cleanroom.sandbox.kernel.caller import Caller
from cleanroom.sandbox.kernel.syscall_numbers import NUMBERS

_OPENAT2, _HOW_SIZE = NUMBERS.get("openat2", -1), ctypes.c_size_t(24)
_HANDLE = (os.O_CLOEXEC | constants.O_PATH).to_bytes(8, "little") + bytes(8)
_HOW = _HANDLE + (constants.RESOLVE_IN_ROOT | constants.RESOLVE_NO_SYMLINKS).to_bytes(8, "little")
_REACHES = _HANDLE + constants.RESOLVE_IN_ROOT.to_bytes(8, "little")
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


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
        """Where the absolute `path` leads; empty for what is no file at all,
        such as a pipe behind /proc/self/fd.

        The common case costs one call: a path that is written below an `allowed` prefix and has no
        link in it is what it says.
        """
        self._enter(caller)
        if (
            path.startswith(allowed)
            and "/.." not in path
            and not self._has_links(os.fsencode(path))
        ):
            return path
        return self._walked(caller, path, follow=follow)

    def plain(self, path: bytes) -> bool:
        """Whether no link is on the way of the absolute `path`, as far as that exists;
        False as long as nobody's path was resolved here.
        """
        return self._root >= 0 and not self._has_links(path)

    def reaches(self, caller: Caller, path: str) -> bool:
        """Whether the absolute `path` leads to anything, in one call;
        links of /proc into processes have to be walked, so not through those.
        """
        self._enter(caller)
        return self._opened(os.fsencode(path), _REACHES)

    def root(self, caller: Caller) -> int:
        """A descriptor of the root that they share; it stays ours."""
        self._enter(caller)
        return self._root

    def identity(self, path: str) -> tuple[int, int]:
        """Device and number of what is at a canonical `path`; zeros where nothing is."""
        try:
            found = os.stat(path[1:] or ".", dir_fd=self._root, follow_symlinks=False)
        except (OSError, ValueError):
            return 0, 0
        return found.st_dev, found.st_ino

    def kind(self, path: str) -> int:
        """The mode of what is at a canonical `path`; 0 where nothing is."""
        try:
            return os.stat(path[1:] or ".", dir_fd=self._root, follow_symlinks=False).st_mode
        except (OSError, ValueError):
            return 0

    def exists(self, path: str) -> bool:
        """Whether anything is at a canonical `path`."""
        return self.kind(path) != 0

    def open_file(self, path: str) -> int:
        """A descriptor for reading what is at a canonical `path`.

        Raises:
            OSError: it may not be read, or has become a link meanwhile.
        """
        return syscalls.openat2(
            self._root,
            path,
            os.O_RDONLY | os.O_NONBLOCK,
            constants.RESOLVE_IN_ROOT | constants.RESOLVE_NO_SYMLINKS,
        )

    def on_host(self, path: str) -> bool:
        """Whether the host has something at a path of the environment;
        what this user may not look at counts as there.
        """
        try:
            os.lstat(path)
        except OSError as error:
            return error.errno not in _NOWHERE
        except ValueError:
            return False
        return True

    def parent_exists(self, path: str) -> bool:
        return self.exists(os.path.dirname(path))

    def _has_links(self, path: bytes) -> bool:
        """Whether the part of `path` that exists goes through a link."""
        return not self._opened(path, _HOW) and ctypes.get_errno() == errno.ELOOP

    def _enter(self, caller: Caller) -> None:
        if self._root < 0:
            self._root = caller.root()

    def _opened(self, path: bytes, how: bytes) -> bool:
        descriptor: int = syscalls.libc.syscall(_OPENAT2, self._root, path, how, _HOW_SIZE)
        if descriptor >= 0:
            os.close(descriptor)
        return descriptor >= 0

    def _walked(self, caller: Caller, path: str, *, follow: bool) -> str:
        """Resolve step by step.

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
            target = self._link(caller, step)
            if target is None:
                done = step
                continue
            links += 1
            if links > constants.MAXSYMLINKS:
                return path
            if not target.startswith("/") and done.startswith("/proc/") and part.isdigit():
                # pipe:[1], socket:[2], anon_inode:...: there is no path behind the descriptor
                return ""
            if target.startswith("/memfd:"):
                return ""
            if target.startswith("/"):
                done = ""
            todo += target.removesuffix(" (deleted)").split("/")[::-1]
        return done or "/"

    def _link(self, caller: Caller, step: str) -> str | None:
        """What the link at `step` says, for the caller; None if it is none."""
        if step == "/proc/self":
            return caller.inner_numbers()[0]
        if step == "/proc/thread-self":
            return "{}/task/{}".format(*caller.inner_numbers())
        try:
            return os.readlink(step[1:], dir_fd=self._root)
        except (OSError, ValueError):
            return None
