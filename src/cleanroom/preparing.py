"""A service's folders and files on the host, and blocking context managers for those who must not block."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[Path | None]) -> AsyncIterator[Path | None]:
    """A blocking context manager, entered and left in worker threads."""
    value = await anyio.to_thread.run_sync(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(manager.__exit__, type(error), error, error.__traceback__)
        raise
    await anyio.to_thread.run_sync(manager.__exit__, None, None, None)


def write_folders(folder: Path, files: Mapping[str, str]) -> None:
    for name in ("data", "private", "run"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in files.items():
        descriptor = os.open(folder / "private" / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
