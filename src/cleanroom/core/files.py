"""Files that are written so that a reader never sees half of one:
replaced atomically, appended in whole lines, or bounded logs.

What the files mean belongs to those who write them.
Every failure is an `ArtifactError` that names the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from cleanroom.core import disk
from cleanroom.core.beneath import Folder, is_misplaced
from cleanroom.model.errors import ArtifactError, ProjectError

if TYPE_CHECKING:
    from types import TracebackType

    from aiofiles.threadpool.binary import AsyncBufferedIOBase

LOG_LIMIT_BYTES = 256 << 20  # per log file: far beyond what a person reads, small beside any disk
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_LIKE_A_DIGEST = re.compile(r"(^|-)[0-9a-f]{8}$")
_NAME_CHARACTERS = 100  # leaves room for digest and suffix in the 255 bytes that file systems allow


def write_atomic(
    folder: Folder, name: str, data: bytes, *, mode: int = 0o644, durable: bool = True
) -> None:
    """Replace the file `name` of the folder by `data`.

    At any moment, also after a power cut, it holds either the old bytes or the new ones. A symbolic
    link in its place is replaced, not followed.
    Where it is not `durable` nothing waits for the disk, and a power cut may leave no bytes.

    Raises:
        ArtifactError: it could not be written; it is as it was and nothing is left beside it.
    """
    replace_file(folder, name, (data,), mode=mode, durable=durable)


def replace_file(
    folder: Folder, name: str, pieces: Iterable[bytes], *, mode: int = 0o644, durable: bool = True
) -> None:
    """As `write_atomic`, for what is too much to hold in memory.

    Raises:
        ArtifactError: as `write_atomic`.
    """
    temporary = f".{secrets.token_hex(8)}.tmp"
    with named("CR-FILE-001", "write", folder.path / name):
        try:
            descriptor = disk.here.create(folder, temporary, mode)
            try:
                for piece in pieces:
                    write_all(descriptor, piece)
                if durable:
                    disk.here.sync(descriptor)
            finally:
                os.close(descriptor)
            disk.here.rename(folder, temporary, name)
        except BaseException:
            with suppress(OSError):
                disk.here.remove(folder, temporary)
            raise
        if durable:
            disk.here.sync_folder(folder)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[disk.here.write(descriptor, view) :]


def hold(path: Path) -> Folder:
    """Hold the folder that a person named, for files of ours in it; made where it is not there.

    Raises:
        ArtifactError: it cannot be made, or is no folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        return Folder.at(path)
    except OSError as error:
        raise _failure("CR-FILE-001", "write to", path, error) from error


def is_there(path: Path) -> bool:
    """Whether something is there, of which nobody may be told where nobody may look."""
    return os.path.exists(path)  # noqa: PTH110 -- `Path.exists` raises PermissionError


def is_folder(path: Path) -> bool:
    """Whether it is a folder or a link to one; not so where nobody may look."""
    return os.path.isdir(path)  # noqa: PTH112 -- as above


def is_file(path: Path) -> bool:
    """Whether it is a file or a link to one; not so where nobody may look."""
    return os.path.isfile(path)  # noqa: PTH113 -- as above


def is_missing(path: Path) -> bool:
    """Whether certainly nothing is there: what cannot be looked at is for those to tell who open
    it.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


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

    Made for one task.
    A batch that has begun is finished although the task is cancelled,
    so a file has no torn line unless its disk is full or its process is killed.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self.path = folder.path / name
        self._folder = folder
        self._name = name
        self._file: AsyncBufferedIOBase | None = None

    async def __aenter__(self) -> LineWriter:
        import aiofiles

        with named("CR-FILE-002", "append to", self.path), anyio.CancelScope(shield=True):
            descriptor = self._folder.open_own(self._name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self._file = await aiofiles.open(descriptor, "ab")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._file is not None
        with named("CR-FILE-002", "append to", self.path), anyio.CancelScope(shield=True):
            await self._file.close()

    async def write(self, lines: bytes, *, sync: bool = False) -> None:
        """Append whole lines: one write for all, then one fdatasync where `sync` asks for it.

        Raises:
            ArtifactError: the disk is full or gone; the last line may be torn.
        """
        if not lines:
            return
        assert self._file is not None
        with named("CR-FILE-002", "append to", self.path), anyio.CancelScope(shield=True):
            await self._file.write(lines)
            await self._file.flush()
            if sync:
                await anyio.to_thread.run_sync(os.fdatasync, self._file.fileno())


class LogFiles:
    """The raw output of phases and services, one bounded file each in `folder`,
    opened at its first bytes.

    The folder stays whoever's it is.
    `write` goes straight to the kernel: cheap enough for the event loop,
    and a killed engine loses nothing that was said.
    """

    def __init__(self, folder: Folder, *, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._open: dict[str, tuple[int, int]] = {}  # name -> descriptor, bytes left

    def __enter__(self) -> LogFiles:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def path(self, name: str) -> Path:
        """Where the log of `name` is, or will be."""
        return self.folder.path / _log(name)

    def write(self, name: str, data: bytes) -> None:
        """Add `data` to the log of `name`.

        Past the limit a marker line is written once and the rest is dropped.

        Raises:
            ArtifactError: the log cannot be opened or written.
        """
        with named("CR-FILE-003", "log to", self.path(name)):
            descriptor, room = self._open[name] if name in self._open else self._opened(name)
            if room < 0:
                return
            write_all(descriptor, data[:room])
            if len(data) > room:
                write_all(
                    descriptor, f"\n[cleanroom: cut after {self.limit_bytes} bytes]\n".encode()
                )
            self._open[name] = (descriptor, room - len(data))

    def close(self) -> None:
        """Close every file. What is written afterwards opens it again and adds to it."""
        opened, self._open = self._open, {}
        for descriptor, _ in opened.values():
            os.close(descriptor)

    def _opened(self, name: str) -> tuple[int, int]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = self.folder.open_own(_log(name), flags)
        return descriptor, self.limit_bytes - os.fstat(descriptor).st_size


def _log(name: str) -> str:
    return f"{safe_name(name)}.log"


def safe_name(name: str) -> str:
    """`name` as a file name of its own: readable, no separators,
    and different names stay different.
    """
    plain = _UNSAFE.sub("_", name)[:_NAME_CHARACTERS].lstrip(".")
    if plain and plain == name and not _LIKE_A_DIGEST.search(name):
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest


def relative(path: Path, root: Path) -> str:
    """`path` as the project's people write it: from `root` where it lies inside, else whole."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


@contextmanager
def named(code: str, doing: str, path: Path) -> Iterator[None]:
    """Translate what the system says into an error that names the file.

    Raises:
        ProjectError: something else stands in its place.
        ArtifactError: the rest.
    """
    try:
        yield
    except OSError as error:
        if is_misplaced(error):
            raise misplaced(path, error.strerror or str(error)) from error
        raise _failure(code, doing, path, error) from error


def _failure(code: str, doing: str, path: Path, error: OSError) -> ArtifactError:
    said = f"cannot {doing} {path}: {error.strerror or error}"
    return ArtifactError(code, said, hint="check free space, ownership and mode of its folder")


def misplaced(path: Path | str, reason: str) -> ProjectError:
    """The error that says that something which is not ours stands in a place of ours."""
    said = f"expected a folder or file of ours, found something else: {reason}"
    return ProjectError("CR-STATE-003", said, hint="remove it", where=f"{path}:1:1")
