"""Changes that the project does not get, saved in the run's folder for a person to read."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator

from cleanroom.core.beneath import Folder, give_to_owner, open_given
from cleanroom.sandbox.filesystem.changes import Entry
from cleanroom.sandbox.filesystem.file_copy import copy_content
from cleanroom.sandbox.filesystem.trees import NEW_FILE, Tree, open_file, open_folder, set_mode

# The disk or the process is at fault, not the path.
DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENFILE,
    errno.EMFILE,
    errno.ENOMEM,
)


def save(upper: Folder, entries: Iterable[Entry], run: Folder, inside: str) -> None:
    """Copy files, folders and links of a layer to the folder `inside` of `run`.

    A file that cannot be read is left out.

    Raises:
        OSError: the disk does not take the copies.
    """
    with Tree(upper.descriptor) as ours, SavedChanges(run) as saved:
        for entry in entries:
            try:
                saved.save(f"{inside}/{entry.path}", entry, ours)
            except OSError as error:
                if error.errno in DISK_ERRORS:
                    raise


class SavedChanges(Tree):
    """Folders of the run's own folder; missing ones are made."""

    def __init__(self, run: Folder) -> None:
        """The folder stays the caller's, and says whose root's new files become."""
        super().__init__(run.descriptor)
        self._inherit_owner = run.inherit_owner

    def save(self, path: str, entry: Entry, ours: Tree) -> None:
        """Copy what the layer `ours` has for `entry` to `path`, writable by its owner only.

        A link becomes a file with a text; of a deletion nothing is saved.

        Raises:
            OSError: the layer cannot be read, or the copy cannot be written.
        """
        inside, _, name = path.rpartition("/")
        folder, _, source = entry.path.rpartition("/")
        if entry.kind == "file":
            reading, info = open_file(source, ours.enter(folder), force=True)
            try:
                with self._new_file(inside, name, info.st_mode & 0o755 | 0o600) as sink:
                    copy_content(reading, sink, info)
            finally:
                os.close(reading)
        elif entry.kind == "directory":
            mode = os.fstat(ours.enter(entry.path)).st_mode
            set_mode(self.enter(path), mode & 0o755 | 0o700)
        elif entry.kind == "symlink":
            with self._new_file(inside, name, 0o644) as sink:
                os.write(sink, f"a link to {entry.target}\n".encode(errors="surrogateescape"))

    @contextlib.contextmanager
    def _new_file(self, inside: str, name: str, mode: int) -> Iterator[int]:
        """A new file in place of an older one; `mode` is set when it is complete."""
        at = self.enter(inside)
        # O_EXCL opens no file that exists, and follows no link.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=at)
        sink = os.open(name, NEW_FILE, 0o600, dir_fd=at)
        try:
            if self._inherit_owner:
                give_to_owner(sink, at)
            yield sink
            # open(2) reduces a mode by the umask, fchmod(2) does not.
            os.fchmod(sink, mode)
        finally:
            os.close(sink)

    def _open(self, name: str, at: int) -> int:
        try:
            return open_folder(name, at)
        except FileNotFoundError:
            os.mkdir(name, 0o777, dir_fd=at)
            if self._inherit_owner:
                os.close(open_given(at, name))
            return open_folder(name, at)
