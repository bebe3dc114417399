"""A service's folders and files on the host, and blocking context managers for those who must not
block.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread

from cleanroom.core.beneath import Folder


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[Path | None]) -> AsyncIterator[Path | None]:
    """A blocking context manager, entered and left in worker threads."""
    value = await anyio.to_thread.run_sync(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(
                manager.__exit__, type(error), error, error.__traceback__
            )
        raise
    await anyio.to_thread.run_sync(manager.__exit__, None, None, None)


def write_folders(folder: Path, files: Mapping[str, str]) -> None:
    """Make a service's folders, in one that was made for it, and its files."""
    with (
        Folder.at(folder.parent.parent) as around,
        around.folder(f"{folder.parent.name}/{folder.name}", make=True, mode=0o700) as held,
    ):
        for name in ("data", "private", "run"):
            held.folder(name, make=True, mode=0o700).close()
        for name, text in files.items():
            write_private(held, f"private/{name}", text)


def write_private(folder: Folder, path: str, text: str) -> None:
    """Make a file anew that only its owner reads; what stood in its place goes.

    Raises:
        OSError: a folder on the way is a link, or the file cannot be made.
    """
    drop_private(folder, path)
    around, name = os.path.split(path)
    with folder.folder(around) as held:
        descriptor = held.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)


def drop_private(folder: Folder, path: str) -> None:
    """Remove such a file, if it is there."""
    around, name = os.path.split(path)
    with folder.folder(around) as held, suppress(FileNotFoundError):
        os.unlink(name, dir_fd=held.descriptor)
