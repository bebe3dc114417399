"""Where a path of the environment really leads, decided outside it.

Paths are resolved for the caller: its root, its working directory, its /proc/self. What comes out is free of links and of "..", so that a
link of the workspace that leads outside is seen for what it is.
"""

from __future__ import annotations

import ctypes
import errno
import os

from cleanroom.sandbox import kernel
from cleanroom.sandbox.callers import Caller
from cleanroom.sandbox.syscalls import NUMBERS

_LINKS_MOST = 40  # the kernel's own limit
_HOW = (os.O_CLOEXEC | getattr(os, "O_PATH", 0)).to_bytes(8, "little") + bytes(8)
_HOW += (kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_SYMLINKS).to_bytes(8, "little")


class Paths:
    """Resolves paths inside one environment. All its processes share one root, since chroot, pivot_root and setns are refused there."""

    def __init__(self) -> None:
        self._root = -1

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def canonical(self, caller: Caller, path: str, *, follow: bool, allowed: tuple[str, ...]) -> str:
        """Where the absolute `path` leads; empty for what is no file at all, such as a pipe behind /proc/self/fd.

        The common case costs one call: a path that is written below an `allowed` prefix and has no link in it is what it says.
        """
        if self._root < 0:
            self._root = caller.root()
        if path.startswith(allowed) and "/.." not in path and not self._has_links(path):
            return path
        return self._walked(caller, path, follow=follow)

    def exists(self, path: str) -> bool:
        """Whether anything is at a canonical `path`."""
        try:
            os.stat(path[1:] or ".", dir_fd=self._root, follow_symlinks=False)
        except OSError:
            return False
        return True

    def parent_exists(self, path: str) -> bool:
        return self.exists(os.path.dirname(path))

    def _has_links(self, path: str) -> bool:
        """Whether the part of `path` that exists goes through a link."""
        name = os.fsencode(path)
        number = NUMBERS["openat2"]
        descriptor = int(kernel.libc.syscall(number, self._root, name, _HOW, ctypes.c_size_t(24)))
        if descriptor >= 0:
            os.close(descriptor)
            return False
        return ctypes.get_errno() == errno.ELOOP

    def _walked(self, caller: Caller, path: str, *, follow: bool) -> str:
        """Resolve step by step. A missing part is kept as it is written: nothing below it can be a link."""
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
            if links > _LINKS_MOST:
                return path
            if not target.startswith("/") and done.startswith("/proc/") and part.isdigit():
                return ""  # pipe:[1], socket:[2], anon_inode:...: there is no path behind the descriptor
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
