"""Locks between processes: flock(2) on a folder that is held open, or on a file of ours in it.

The kernel releases a lock at the end of its process.
A library that opens a lock file by its path would follow, and truncate, a link in its place.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cleanroom.core.beneath import Folder

PAUSE_SECONDS = 0.005  # between two tries; a holder of such a lock writes for milliseconds


def try_lock(folder: Folder, name: str) -> int | None:
    """A descriptor that holds the lock until it is closed; None where another process has it.

    Raises:
        OSError: the file cannot be made, or something else stands in its place (`Misplaced`).
    """
    descriptor = folder.open_own(name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(folder: Folder, name: str, *, seconds: float) -> Iterator[None]:
    """Hold the lock while the block runs. Blocks until it is acquired.

    Raises:
        TimeoutError: another process held it for so long.
        OSError: as `try_lock`.
    """
    deadline = time.monotonic() + seconds
    while (descriptor := try_lock(folder, name)) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} is held by another process")
        time.sleep(PAUSE_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def in_use(folder: Folder) -> Iterator[None]:
    """Let `is_in_use` say of this folder that it is, while the block runs.

    Any number of processes may do so; none waits. Where the file system has no locks of folders,
    as NFS, nothing is said.
    """
    descriptor = _opened(folder)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def is_in_use(folder: Folder) -> bool:
    """Whether a living process is within `in_use` of this folder.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = _opened(folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no locks of folders here
    finally:
        os.close(descriptor)
    return False


def _opened(folder: Folder) -> int:
    # The folder's own descriptor may be one of O_PATH, which cannot be locked.
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder.descriptor)
