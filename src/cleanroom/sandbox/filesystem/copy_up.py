"""Copying up ahead of a call, where overlayfs by itself would refuse or split.

overlayfs without `redirect_dir` answers EXDEV when a folder of a lower layer is renamed, and gives
a file of several names (hard links) a copy under the one name that is written to.
`redirect_dir` needs trusted.* attributes, which an ordinary user's mount cannot have, and the
kernel refuses it beside `userxattr` (EINVAL); `index` is turned off silently for such a user.

Runs in init, in the environment's Landlock domain and with no right that its processes lack:
nothing that they prepare makes it do more than they could do themselves.
What is seen afterwards is what was seen before; the call itself stays the caller's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from cleanroom.core.beneath import open_beneath
from cleanroom.sandbox.filesystem.trees import (
    ITSELF,
    entries,
    lstat_at,
    open_folder,
    proc_path,
    set_mode,
)

# Of one folder: some hundred times a package, a few times a node_modules.
ENTRIES_MAX = 200_000
BYTES_MAX = 4 << 30
# Two descriptors are open for each level, and RLIMIT_NOFILE is 1024.
DEPTH_MAX = 200
# How often a folder is emptied in which somebody makes files meanwhile.
_ROUNDS_MAX = 50
_OWNER = stat.S_IRWXU


def own_folder(path: str) -> None:
    """Make the folder at `path` one of the upper layer alone, so that it can be renamed.

    What is in it is moved to a new folder beside it, which then takes its place.

    Raises:
        OSError: it could not be done; the files are where they were.
    """
    parent, name = os.path.split(path)
    with _opened(parent) as at:
        before = os.fstat(at)
        try:
            _replace(name, at)
        finally:
            _set_times(at, before)


def join_names(names: Sequence[str]) -> None:
    """Copy up the file that has all these names, and keep it one file.

    Names that lead to another file by now are left as they are.

    Raises:
        OSError: one of the names could not be linked; those before it are.
    """
    first, *others = names
    wanted = os.lstat(first)
    for other in others:
        parent, name = os.path.split(other)
        with _opened(parent) as at:
            found = lstat_at(name, at)
            if (
                found is not None
                and stat.S_ISREG(found.st_mode)
                and os.path.samestat(found, wanted)
            ):
                _link_over(first, name, at)


def _link_over(first: str, name: str, at: int) -> None:
    before, temporary = os.fstat(at), _temporary_name()
    closed = not before.st_mode & stat.S_IWUSR
    if closed:
        set_mode(at, before.st_mode | stat.S_IWUSR)
    try:
        # link(2) replaces nothing, rename(2) does so in one step.
        os.link(first, temporary, dst_dir_fd=at, follow_symlinks=False)
        try:
            os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
        finally:
            # It is left where the rename failed, and where both were names of one file already.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=at)
        _set_times(at, before)
    finally:
        if closed:
            set_mode(at, before.st_mode)


def _replace(name: str, at: int) -> None:
    with _opened_at(name, at) as folder:
        _require_small(folder)
    temporary = _temporary_name()
    os.mkdir(temporary, 0o700, dir_fd=at)
    move = _Move()
    try:
        with _opened_at(name, at) as source, _opened_at(temporary, at) as target:
            try:
                for _ in range(_ROUNDS_MAX):
                    move.contents(source, target)
                    # Over a folder that is empty, unless a file was made in it meanwhile.
                    with _leaving_filled():
                        os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=at)
                        break
                else:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            except BaseException:
                _give_back(target, source)
                move.finish(source)
                raise
            move.finish(target)
    except BaseException:
        _remove_emptied(temporary, at)
        raise


def _remove_emptied(name: str, at: int) -> None:
    """Remove a folder and those in it, as far as there is nothing else in them.

    A file that could not be given back is better left over than lost.
    """
    with contextlib.suppress(OSError):
        with _opened_at(name, at) as folder:
            for inner, info in entries(folder):
                if stat.S_ISDIR(info.st_mode):
                    _remove_emptied(inner, folder)
        os.rmdir(name, dir_fd=at)


def _require_small(top: int) -> None:
    """Refuse a folder beyond the limits before anything is moved.

    Raises:
        OSError: EFBIG or ENAMETOOLONG.
    """
    count = size = 0
    pending = [""]
    while pending:
        inside = pending.pop()
        if inside.count("/") > DEPTH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        # A folder that may not be read yet is small, or the kernel says so later.
        with contextlib.suppress(PermissionError), _opened_below(inside, top) as folder:
            for name, info in entries(folder):
                count, size = count + 1, size + info.st_blocks * 512
                if stat.S_ISDIR(info.st_mode):
                    pending.append(f"{inside}/{name}" if inside else name)
        if count > ENTRIES_MAX or size > BYTES_MAX:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


@contextlib.contextmanager
def _leaving_filled() -> Iterator[None]:
    """Go on where a folder is not empty (rename(2), rmdir(2))."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


class _Move:
    """Moves what is in one folder to another, which becomes like it."""

    def __init__(self) -> None:
        # path below the folder -> its status before
        self._before: dict[str, os.stat_result] = {}

    def contents(self, source: int, target: int, inside: str = "") -> None:
        """Move all that is in `source`, also what was made in it since the last time.

        Raises:
            OSError: what the kernel says.
        """
        if inside not in self._before:
            before = self._before[inside] = os.fstat(source)
            _copy_owner(before, target)
            if before.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                set_mode(source, before.st_mode | stat.S_IRWXU)
            _copy_attributes(source, target)
        for name, info in entries(source):
            if not stat.S_ISDIR(info.st_mode) or not _is_kept(name, source, target):
                continue
            path = f"{inside}/{name}" if inside else name
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=target)
            with _opened_at(name, source) as deeper, _opened_at(name, target) as copy:
                self.contents(deeper, copy, path)
            with _leaving_filled():
                os.rmdir(name, dir_fd=source)
        for name, info in entries(source):
            if not stat.S_ISDIR(info.st_mode):
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)

    def finish(self, folder: int) -> None:
        """Give the folders at and below `folder` the modes and times they had, innermost first."""
        for path in sorted(self._before, reverse=True):
            with contextlib.suppress(OSError), _opened_below(path, folder) as held:
                _set_times(held, self._before[path])
                set_mode(held, self._before[path].st_mode)


def _is_kept(name: str, source: int, target: int) -> bool:
    """Whether a folder cannot be moved in one step, since it has a part in a lower layer."""
    try:
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    except OSError as error:
        # EACCES: its own mode forbids writing. The others: it is in the target already.
        if error.errno in (errno.EXDEV, errno.EACCES, errno.ENOTEMPTY, errno.EEXIST):
            return True
        raise
    return False


def _give_back(target: int, source: int) -> None:
    """Move what `source` lacks back from `target`, as far as that is possible."""
    with contextlib.suppress(OSError):
        for name, info in entries(target):
            there = lstat_at(name, source)
            if stat.S_ISDIR(info.st_mode) and there is not None:
                with _opened_at(name, target) as copy, _opened_at(name, source) as deeper:
                    _give_back(copy, deeper)
            elif there is None:
                with contextlib.suppress(OSError):
                    os.rename(name, name, src_dir_fd=target, dst_dir_fd=source)
            elif not stat.S_ISDIR(info.st_mode):
                # Somebody has made it anew meanwhile.
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=target)


def _copy_owner(info: os.stat_result, target: int) -> None:
    """Give a new folder the group of the one with the status `info`, whose owner it has.

    Raises:
        PermissionError: it belongs to another user, or to a group that this user is not in.
    """
    made = os.fstat(target)
    if info.st_uid != made.st_uid:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    if info.st_gid != made.st_gid:
        os.chown(proc_path(target), -1, info.st_gid)


def _copy_attributes(source: int, target: int) -> None:
    """Copy extended attributes; a file system may have none, or not let them be set."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(proc_path(source)):
            value = os.getxattr(proc_path(source), name)
            os.setxattr(proc_path(target), name, value)


def _set_times(folder: int, info: os.stat_result) -> None:
    with contextlib.suppress(OSError):
        os.utime(proc_path(folder), ns=(info.st_atime_ns, info.st_mtime_ns))


def _temporary_name() -> str:
    return f".cleanroom-{os.urandom(6).hex()}"


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    held = os.open(path, ITSELF | os.O_DIRECTORY)
    try:
        yield held
    finally:
        os.close(held)


@contextlib.contextmanager
def _opened_below(path: str, folder: int) -> Iterator[int]:
    held = open_beneath(folder, path, ITSELF | os.O_DIRECTORY)
    try:
        yield held
    finally:
        os.close(held)


@contextlib.contextmanager
def _opened_at(name: str, at: int) -> Iterator[int]:
    held = open_folder(name, at)
    try:
        yield held
    finally:
        os.close(held)
