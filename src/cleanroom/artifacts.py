"""Files that are written so that a reader never sees half of one: replaced atomically, appended in whole lines, or bounded logs.

What the files mean belongs to those who write them. Every failure is an `ArtifactError` that names the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from cleanroom import disk
from cleanroom.errors import ArtifactError, ProjectError

if TYPE_CHECKING:
    from types import TracebackType

    from aiofiles.threadpool.binary import AsyncBufferedIOBase

LOG_LIMIT_BYTES = 256 << 20  # per log file: far beyond what a person reads, small beside any disk
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_LIKE_A_DIGEST = re.compile(r"(^|-)[0-9a-f]{8}$")
_NAME_CHARACTERS = 100  # leaves room for digest and suffix in the 255 bytes that file systems allow


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data` so that at any moment, also after a power cut, it holds either the old bytes or the new ones.

    Makes the folder if it is not there. A symbolic link at `path` is replaced, not followed.

    Raises:
        ArtifactError: it could not be written; `path` is as it was and nothing is left beside it.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    with _named("CR-FILE-001", "write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = disk.here.create(temporary, mode)
            try:
                write_all(descriptor, data)
                disk.here.sync(descriptor)
            finally:
                os.close(descriptor)
            disk.here.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                disk.here.remove(temporary)
            raise
        disk.here.sync_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[disk.here.write(descriptor, view) :]


OWN_FOLDERS = (".ggen", *(f".ggen/cleanroom{inner}" for inner in ("", "/runs", "/audit", "/reports")))


def check_own_folders(root: Path) -> None:
    """Refuse a project that brings a link, or a file, in the place of a folder that we write to: a link could lead our writing anywhere.

    Raises:
        ProjectError: it names the first one.
    """
    for name in OWN_FOLDERS:
        folder = root / name
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ProjectError("CR-STATE-003", "expected a folder, found a link or a file", hint="remove it", where=f"{name}:1:1")


def open_to_read(path: Path) -> BufferedReader:
    """`path`, open for reading. A pipe or a device in its place holds nobody up.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(descriptor, "rb")


class LineWriter:
    """Appends lines to a file, a batch at a time, without holding up the event loop.

    Made for one task. A batch that has begun is finished although the task is cancelled, so a file has no torn line unless its disk is full or
    its process is killed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: AsyncBufferedIOBase | None = None

    async def __aenter__(self) -> LineWriter:
        import aiofiles

        with _named("CR-FILE-002", "append to", self.path), anyio.CancelScope(shield=True):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = await aiofiles.open(self.path, "ab")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._file is not None
        with _named("CR-FILE-002", "append to", self.path), anyio.CancelScope(shield=True):
            await self._file.close()

    async def write(self, lines: bytes, *, sync: bool = False) -> None:
        """Append whole lines: one write for all, then one fdatasync where `sync` asks for it.

        Raises:
            ArtifactError: the disk is full or gone; the last line may be torn.
        """
        if not lines:
            return
        assert self._file is not None
        with _named("CR-FILE-002", "append to", self.path), anyio.CancelScope(shield=True):
            await self._file.write(lines)
            await self._file.flush()
            if sync:
                await anyio.to_thread.run_sync(os.fdatasync, self._file.fileno())


class LogFiles:
    """The raw output of phases and services, one bounded file each in `folder`, opened at its first bytes.

    `write` goes straight to the kernel: cheap enough for the event loop, and a killed engine loses nothing that was said.
    """

    def __init__(self, folder: Path, *, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._open: dict[str, tuple[int, int]] = {}  # name -> descriptor, bytes left

    def __enter__(self) -> LogFiles:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def path(self, name: str) -> Path:
        """Where the log of `name` is, or will be."""
        return self.folder / f"{safe_name(name)}.log"

    def write(self, name: str, data: bytes) -> None:
        """Add `data` to the log of `name`. Past the limit a marker line is written once and the rest is dropped.

        Raises:
            ArtifactError: the log cannot be opened or written.
        """
        with _named("CR-FILE-003", "log to", self.path, name):
            descriptor, room = self._open[name] if name in self._open else self._opened(name)
            if room < 0:
                return
            write_all(descriptor, data[:room])
            if len(data) > room:
                write_all(descriptor, f"\n[cleanroom: cut after {self.limit_bytes} bytes]\n".encode())
            self._open[name] = (descriptor, room - len(data))

    def close(self) -> None:
        """Close every file. What is written afterwards opens it again and adds to it."""
        opened, self._open = self._open, {}
        for descriptor, _ in opened.values():
            os.close(descriptor)

    def _opened(self, name: str) -> tuple[int, int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path(name), flags, 0o644)
        return descriptor, self.limit_bytes - os.fstat(descriptor).st_size


def safe_name(name: str) -> str:
    """`name` as a file name of its own: readable, no separators, and different names stay different."""
    plain = _UNSAFE.sub("_", name)[:_NAME_CHARACTERS].lstrip(".")
    if plain and plain == name and not _LIKE_A_DIGEST.search(name):
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest


def relative(path: Path, root: Path) -> str:
    """`path` as the project's people write it: from `root` where it lies inside, else whole."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


@contextmanager
def _named(code: str, doing: str, path: Path | Callable[[str], Path], *name: str) -> Iterator[None]:
    """Translate what the system says into an error that names the file."""
    try:
        yield
    except OSError as error:
        place = path if isinstance(path, Path) else path(*name)
        reason = error.strerror or str(error)
        raise ArtifactError(code, f"cannot {doing} {place}: {reason}", hint="check free space, ownership and mode of its folder") from error
