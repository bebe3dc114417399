"""Canaries' attempts on files: writing, modes, reading."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import Expectations


def write_outside(folder: str) -> None:
    path = f"{folder}/cleanroom-canary"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    # Reached only where the sandbox has failed.
    os.unlink(path)


def try_each_folder(expect: Expectations, action: Callable[[str], None]) -> None:
    """Try every folder; one that is writable outweighs the refusals of the others."""
    refusal: OSError | None = None
    for folder in expect["outside"]:
        try:
            action(folder)
        except OSError as error:
            refusal = error
            continue
        return
    if refusal is not None:
        raise refusal


def chmod_outside(folder: str) -> None:
    # The mode that it has: the attempt is a full chmod(2), and leaves no trace where it succeeds.
    os.chmod(folder, os.stat(folder).st_mode & 0o7777)


def chmod_open_file(path: str) -> None:
    """Change the mode of a file that was opened for reading only."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # fchmod(2) needs ownership, not a descriptor that may write.
        os.fchmod(descriptor, os.fstat(descriptor).st_mode & 0o7777)
    finally:
        os.close(descriptor)


def read(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def write_null(_: Expectations) -> None:
    descriptor = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    os.write(descriptor, b"x")
    os.close(descriptor)


def write_temporary(expect: Expectations) -> None:
    path = f"{expect['temporary']}/cleanroom-canary-{os.getpid()}"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    os.unlink(path)
