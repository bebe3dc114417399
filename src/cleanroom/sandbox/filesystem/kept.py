"""What a phase made and the project does not get, kept in the run's folder for a person to read."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem.file_copy import copy_content
from cleanroom.sandbox.filesystem.overlay import Entry
from cleanroom.sandbox.filesystem.trees import Tree, open_file, open_folder, set_mode

# Not the path's own fault.
DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENFILE,
    errno.EMFILE,
    errno.ENOMEM,
)
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def keep(upper: Folder, found: Iterable[Entry], run: Folder, inside: str) -> None:
    """Copy the files among `found` to the folder `inside` of `run`, for a person to read.

    Raises:
        OSError: the disk does not take them. What cannot be read is left out.
    """
    with Tree(upper.descriptor) as ours, Kept(run.descriptor) as kept:
        for entry in found:
            try:
                kept.put(f"{inside}/{entry.path}", entry, ours)
            except OSError as error:
                if error.errno in DISK_ERRORS:
                    raise


class Kept(Tree):
    """Folders of the run's own, for what a person is to read. Missing ones are made."""

    def put(self, path: str, entry: Entry, ours: Tree) -> None:
        """A copy of what `entry` is in the layer: nobody but its owner can write it.

        A link is put down as a text. A deletion has nothing that could be kept.

        Raises:
            OSError: it cannot be read or written.
        """
        inside, _, name = path.rpartition("/")
        folder, _, source = entry.path.rpartition("/")
        if entry.kind == "file":
            reading, info = open_file(source, ours.enter(folder), insist=True)
            try:
                with self._written(inside, name, info.st_mode & 0o755 | 0o600) as sink:
                    copy_content(reading, sink, info)
            finally:
                os.close(reading)
        elif entry.kind == "directory":
            mode = os.fstat(ours.enter(entry.path)).st_mode
            set_mode(self.enter(path), mode & 0o755 | 0o700)
        elif entry.kind == "symlink":
            with self._written(inside, name, 0o644) as sink:
                os.write(sink, f"a link to {entry.target}\n".encode(errors="surrogateescape"))

    @contextlib.contextmanager
    def _written(self, inside: str, name: str, mode: int) -> Iterator[int]:
        at = self.enter(inside)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=at)
        sink = os.open(name, _NEW_FILE, 0o600, dir_fd=at)
        try:
            yield sink
            os.fchmod(sink, mode)
        finally:
            os.close(sink)

    def _open(self, name: str, at: int) -> int:
        try:
            return open_folder(name, at)
        except FileNotFoundError:
            os.mkdir(name, 0o777, dir_fd=at)
            return open_folder(name, at)
