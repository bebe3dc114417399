"""Copy-on-write layers on the host's side: making them, telling what a phase changed,
removing them.

A layer is the upper folder of an overlay. Files in it were written by the code under test and are
hostile: nothing here follows a link, opens a device or a FIFO, or waits. Only regular files,
folders and links that stay inside come out, by `write_back`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import links
from cleanroom.sandbox.filesystem.trees import LIST, Tree, named, open_folder, set_mode, status

OPAQUE = "user.overlay.opaque"
# a monorepo's node_modules is a tenth of it; more is an attack or an accident
ENTRIES_MAX = 500_000
NEVER = (".git", ".ggen")
BLOCK_BYTES = 4096


Kind = Literal["file", "directory", "symlink", "deleted", "refused"]


class Entry(NamedTuple):
    """One difference between a layer and the project.

    `path` is relative; kinds are those of `backends.base.Change`.
    """

    path: str
    kind: Kind
    bytes: int = 0
    reason: str = ""
    target: str = ""  # of a symlink
    parted_from: str = ""  # another name of the project's file, which it was and no longer is
    mode: int = 0  # of a file or folder: its permission bits


def make(folder: Path, like: Path, owner: tuple[int, int] | None = None) -> None:
    """Create an empty layer whose root looks like the project's own folder and belongs to `owner`
    (user, group) where one is given.
    """
    (folder / "work").mkdir(parents=True)
    (folder / "upper").mkdir()
    os.chmod(folder / "upper", stat.S_IMODE(like.stat().st_mode) | 0o700)
    if owner is not None:
        os.chown(folder / "upper", *owner)


def foreign(project: Path, entries_max: int = 5000, most: int = 3) -> list[str]:
    """Some files of the project that an ordinary user cannot copy up:
    of another owner or group, which no id map of theirs can name.
    """
    found: list[str] = []
    pending, seen = [str(project)], 0
    while pending and seen < entries_max and len(found) < most:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as items:
            for item in items:
                seen += 1
                info = item.stat(follow_symlinks=False)
                if info.st_uid != os.geteuid() or info.st_gid != os.getegid():
                    found.append(os.path.relpath(item.path, project))
                elif stat.S_ISDIR(info.st_mode) and item.name not in NEVER:
                    pending.append(item.path)
    return found[:most]


def changes(upper: Folder, project: Folder, visible: Sequence[str] = ()) -> list[Entry]:
    """What differs, parents before children, deletions where they happened.

    `visible` are folders outside to which links may lead.

    Raises:
        OSError: the layer cannot be read.
    """
    found: list[Entry] = []
    parted: dict[tuple[int, int], int] = {}
    with Tree(upper.descriptor, LIST) as ours, Tree(project.descriptor, 0) as theirs:
        for entry, info, host in _differences(ours, theirs):
            if host is not None and entry.kind == "file" and _parts(info, host):
                parted[host.st_dev, host.st_ino] = len(found)
            found.append(entry)
            if len(found) >= ENTRIES_MAX:
                found.append(too_many())
                break
    _name_parted(found, parted, project)
    return judged_links(found, project, visible)


def too_many() -> Entry:
    """What stands in the place of all further changes."""
    return Entry("", "refused", reason=f"more than {ENTRIES_MAX} changes")


class _Difference(NamedTuple):
    """An entry, and what the layer and the project have at its path."""

    entry: Entry
    ours: os.stat_result
    theirs: os.stat_result | None


def _differences(ours: Tree, theirs: Tree) -> Iterator[_Difference]:
    """Folder by folder."""
    pending = [("", False)]
    while pending:
        inside, hidden = pending.pop()
        try:
            at = ours.enter(inside)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            refused = Entry(inside, "refused", reason=error.strerror or "")
            yield _Difference(refused, os.fstat(ours.enter("")), None)
            continue
        hidden = hidden or (bool(inside) and is_opaque(at))
        here = ours.entries(inside)
        deeper = []
        for name, info in here:
            path = f"{inside}/{name}" if inside else name
            host = host_status(path, theirs)
            entry = deletion(path, host) if _is_whiteout(info) else difference(path, info, host, at)
            if entry is not None:
                yield _Difference(entry, info, host)
            if stat.S_ISDIR(info.st_mode) and is_told(path):
                deeper.append((path, hidden))
        if hidden:
            yield from _hidden(inside, theirs, {name for name, _ in here})
        pending += reversed(deeper)


def host_status(path: str, theirs: Tree) -> os.stat_result | None:
    """What the project has at this path; nothing where it cannot be seen."""
    inside, _, name = path.rpartition("/")
    try:
        return status(name, theirs.enter(inside))
    except OSError:
        return None


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def deletion(path: str, host: os.stat_result | None) -> Entry | None:
    """Nothing where it is gone already."""
    if host is None:
        return None
    return Entry(path, "deleted") if is_told(path) else _untold(path)


def _hidden(inside: str, theirs: Tree, kept: set[str]) -> Iterator[_Difference]:
    """What the project still has in a folder whose layer hides it."""
    with contextlib.suppress(OSError):
        for name, host in theirs.entries(inside):
            entry = None if name in kept else deletion(f"{inside}/{name}", host)
            if entry is not None:
                yield _Difference(entry, host, host)


def difference(
    path: str, info: os.stat_result, host: os.stat_result | None, at: int
) -> Entry | None:
    """What something in the folder `at` is to what the project has at its path.

    Nothing where both are folders of one mode: what is in them is looked at by itself.

    Raises:
        OSError: a link cannot be read.
    """
    if not is_told(path):
        return _untold(path)
    if stat.S_ISDIR(info.st_mode):
        same = host is not None and stat.S_ISDIR(host.st_mode) and rights(host) == rights(info)
        return None if same else Entry(path, "directory", mode=rights(info))
    if stat.S_ISREG(info.st_mode):
        return Entry(path, "file", info.st_size, mode=rights(info))
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(path.rpartition("/")[2], dir_fd=at)
        return Entry(path, "symlink", target=target)
    return Entry(path, "refused", reason=_kind(info.st_mode))


def is_told(path: str) -> bool:
    """Whether a path can be written down."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _untold(path: str) -> Entry:
    shown = path.encode(errors="surrogateescape").decode(errors="replace")
    return Entry(shown, "refused", reason="its name is not UTF-8")


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    )
    return next((name for matches, name in kinds if matches(mode)), "not a file, folder or link")


def judged_links(found: Iterable[Entry], project: Folder, visible: Sequence[str]) -> list[Entry]:
    """The same with each link refused that would lead out once all of `found` were there."""
    entries_found = list(found)
    if not any(entry.kind == "symlink" for entry in entries_found):
        return entries_found
    planned = {entry.path: entry for entry in entries_found}
    known: dict[str, str | None] = {}

    def link_at(path: str) -> str | None:
        if path in planned:
            entry = planned[path]
            return entry.target if entry.kind == "symlink" else None
        if path not in known:
            known[path] = _host_link(path, project)
        return known[path]

    def judged(entry: Entry) -> Entry:
        if entry.kind != "symlink":
            return entry
        root = str(project.path)
        reason = links.why_refused(entry.path, entry.target, root, visible, link_at)
        return Entry(entry.path, "refused", reason=reason) if reason else entry

    return [judged(entry) for entry in entries_found]


def _host_link(path: str, project: Folder) -> str | None:
    try:
        held = project.open(path, os.O_PATH)
    except OSError:
        return None
    try:
        return os.readlink("", dir_fd=held) if stat.S_ISLNK(os.fstat(held).st_mode) else None
    finally:
        os.close(held)


def _parts(ours: os.stat_result, theirs: os.stat_result) -> bool:
    """Was one of several names of a file written to? It is a file of its own from then on."""
    if not stat.S_ISREG(theirs.st_mode) or theirs.st_nlink < 2:
        return False
    return (ours.st_size, ours.st_mtime_ns) != (theirs.st_size, theirs.st_mtime_ns)


def _name_parted(found: list[Entry], parted: dict[tuple[int, int], int], project: Folder) -> None:
    """Put a name that stays behind beside each entry that parts from it;
    `parted` are their numbers by inode.
    """
    if not parted:
        return
    changed = {entry.path for entry in found if entry.kind != "directory"}
    with Tree(project.descriptor, 0) as theirs:
        for path, info in _files(theirs):
            number = parted.get((info.st_dev, info.st_ino))
            if number is not None and not _is_changed(path, changed):
                found[number] = found[number]._replace(parted_from=path)


def _is_changed(path: str, changed: set[str]) -> bool:
    """Is it one of these, or below one?"""
    return any(
        path == other or path.startswith(f"{other}/") for other in _above(path) if other in changed
    )


def _above(path: str) -> Iterator[str]:
    """The path, and the folders above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _files(tree: Tree) -> Iterator[tuple[str, os.stat_result]]:
    """Files of a project with more than one name; of the first ENTRIES_MAX paths,
    and not of what never comes back.
    """
    pending, seen = [""], 0
    while pending and seen < ENTRIES_MAX:
        inside = pending.pop()
        with contextlib.suppress(OSError):
            for name, info in tree.entries(inside):
                seen += 1
                path = f"{inside}/{name}" if inside else name
                if stat.S_ISDIR(info.st_mode) and name not in NEVER:
                    pending.append(path)
                elif info.st_nlink > 1 and is_told(path):
                    yield path, info


def is_opaque(folder: int) -> bool:
    """Does a folder of a layer hide what is below it? Takes an O_PATH descriptor too."""
    try:
        return os.getxattr(named(folder), OPAQUE) == b"y"
    except OSError:
        return False


def rights(info: os.stat_result) -> int:
    """What of a mode comes back: no set-user-id, set-group-id or sticky bit."""
    return stat.S_IMODE(info.st_mode) & 0o777


def remove_tree(folder: Path) -> None:
    """Remove a folder that lies where nobody but this user puts anything. As `remove_beneath`."""
    with Folder.at(folder.parent) as around:
        remove_beneath(around.descriptor, folder.name)


def remove_beneath(around: int, name: str) -> None:
    """Remove a folder that hostile code may have filled: mode-000 folders,
    nesting deeper than a path can name.

    Never follows a link.

    Each inner folder is first moved to the top, so that no depth needs recursion,
    a long path or many descriptors.
    """
    top = _entered(around, name)
    prefix = f".{os.urandom(8).hex()}-"
    moved = 0
    pending: list[str] = [""]
    try:
        while pending:
            inside = pending.pop()
            inner = _entered(top, inside) if inside else top
            try:
                for name_inside, is_folder in _listed(inner):
                    if not is_folder:
                        os.unlink(name_inside, dir_fd=inner)
                        continue
                    # one that may not be written cannot be moved
                    os.close(_entered(inner, name_inside))
                    moved += 1
                    os.rename(name_inside, f"{prefix}{moved}", src_dir_fd=inner, dst_dir_fd=top)
                    pending.append(f"{prefix}{moved}")
            finally:
                if inner != top:
                    os.close(inner)
                    os.rmdir(inside, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=around)


def _entered(at: int, name: str) -> int:
    """A descriptor of a folder, which its owner may list and change from now on,
    whatever its mode was.
    """
    reading = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        folder = os.open(name, reading, dir_fd=at)
    except PermissionError:
        held = open_folder(name, at)
        try:
            set_mode(held, 0o700)
            folder = os.open(".", reading, dir_fd=held)
        finally:
            os.close(held)
    if stat.S_IMODE(os.fstat(folder).st_mode) & 0o700 != 0o700:
        os.fchmod(folder, 0o700)
    return folder


def _listed(folder: int) -> list[tuple[str, bool]]:
    """Names in a folder, and which are folders; what the folder itself says saves a look at
    each.
    """
    with os.scandir(folder) as items:
        return [(item.name, item.is_dir(follow_symlinks=False)) for item in items]


def size_of(folder: Path) -> int:
    """Bytes that a layer holds on disk.

    An entry without a block of its own counts as one, or empty files would use up the inodes
    unseen.
    """
    total = 0
    pending = [str(folder)]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as items:
            for item in items:
                info = item.stat(follow_symlinks=False)
                total += max(info.st_blocks * 512, BLOCK_BYTES)
                if stat.S_ISDIR(info.st_mode):
                    pending.append(item.path)
    return total
