"""A lock that is a file: one holder on this machine at a time, released by the kernel when its process ends, however it does.

On flock, through descriptors of our own: two threads of one process exclude each other as two processes do. The file stays, since whoever removed it could
take it from under the next one's hands; one that somebody removed all the same is made anew.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Busy(Exception):
    """Somebody else held it for the whole time."""


@contextmanager
def locked(path: Path, *, seconds: float, pause_seconds: float = 0.02, mode: int = 0o644) -> Iterator[None]:
    """Hold the lock `path`; its folder exists. Blocks for at most `seconds`, looking every `pause_seconds`.

    Raises:
        Busy: it was not free in that time.
        OSError: the file cannot be made or opened, or is a link.
    """
    deadline = time.monotonic() + seconds
    while (descriptor := taken(path, mode=mode)) is None:
        if time.monotonic() > deadline:
            raise Busy(str(path))
        time.sleep(pause_seconds)
    try:
        yield
    finally:
        os.close(descriptor)


def taken(path: Path, *, mode: int = 0o644) -> int | None:
    """A descriptor that holds the lock until it is closed; None while somebody else does. Raises OSError as `locked` does."""
    while True:
        descriptor = os.open(path, _OPEN, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed between the two calls
