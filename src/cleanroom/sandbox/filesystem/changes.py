"""Changes: what differs between the project and a layer, or a copy, that a phase wrote.

The files that a phase wrote are hostile.
Nothing here follows a link, opens a device or a FIFO, or waits.
Regular files, folders, and links that stay inside become changes; everything else is refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import links
from cleanroom.sandbox.filesystem.layers import NEVER_WRITTEN_BACK, is_opaque
from cleanroom.sandbox.filesystem.trees import LIST, Tree, lstat_at

# Ten times a monorepo's node_modules; more is an attack or an accident.
ENTRIES_MAX = 500_000

Kind = Literal["file", "directory", "symlink", "deleted", "refused"]
Inode = tuple[int, int]


class Entry(NamedTuple):
    """One difference between a layer and the project.

    `path` is relative; kinds are those of `backends.base.Change`.
    """

    path: str
    kind: Kind
    bytes: int = 0
    reason: str = ""
    # of a symlink
    target: str = ""
    # another name of the project's file, of which the changed one was a hard link until now, or is
    # still where that name has a change too
    former_link: str = ""
    # of a file or folder: its permission bits
    mode: int = 0


class _Difference(NamedTuple):
    """An entry, and the status of its path in the layer and in the project."""

    entry: Entry
    ours: os.stat_result
    theirs: os.stat_result | None


def find_changes(upper: Folder, project: Folder, visible: Sequence[str] = ()) -> list[Entry]:
    """Differences between the upper folder of a layer and the project.

    Parents come before children.
    Links may lead to the folders `visible` outside.

    Raises:
        OSError: the layer cannot be read.
    """
    found: list[Entry] = []
    # inode in the project -> index of the entry that was a hard link of it
    broken_links: dict[Inode, int] = {}
    # inodes in the layer and in the project -> indexes of the entries that are names of both
    joined: dict[tuple[Inode, Inode], list[int]] = {}
    with Tree(upper.descriptor, LIST) as ours, Tree(project.descriptor, 0) as theirs:
        for entry, info, host in _differences(ours, theirs):
            if host is not None and entry.kind == "file" and _breaks_hard_link(info, host):
                broken_links[host.st_dev, host.st_ino] = len(found)
                both = (info.st_dev, info.st_ino), (host.st_dev, host.st_ino)
                joined.setdefault(both, []).append(len(found))
            found.append(entry)
            if len(found) >= ENTRIES_MAX:
                found.append(too_many_changes())
                break
    for indexes in joined.values():
        _name_each_other(found, indexes)
    _add_former_links(found, broken_links, project)
    return refuse_outward_links(found, project, visible)


def too_many_changes() -> Entry:
    """The entry that replaces all changes beyond ENTRIES_MAX."""
    return Entry("", "refused", reason=f"more than {ENTRIES_MAX} changes")


def _differences(ours: Tree, theirs: Tree) -> Iterator[_Difference]:
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
            host = project_status(path, theirs)
            entry = deletion(path, host) if _is_whiteout(info) else compare(path, info, host, at)
            if entry is not None:
                yield _Difference(entry, info, host)
            if stat.S_ISDIR(info.st_mode) and is_utf8(path):
                deeper.append((path, hidden))
        if hidden:
            # overlayfs writes no whiteouts for what an opaque folder hides.
            yield from _hidden_deletions(inside, theirs, {name for name, _ in here})
        pending += reversed(deeper)


def project_status(path: str, project: Tree) -> os.stat_result | None:
    """Status of a path in the project; None if it does not exist or may not be reached."""
    inside, _, name = path.rpartition("/")
    try:
        return lstat_at(name, project.enter(inside))
    except OSError:
        return None


def _is_whiteout(info: os.stat_result) -> bool:
    """Whether overlayfs marked a deletion: a character device 0/0."""
    # mknod(2) of that device needs no privilege since 5.8.
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def deletion(path: str, host: os.stat_result | None) -> Entry | None:
    """The deletion of a path; None if the project does not have it either."""
    if host is None:
        return None
    return Entry(path, "deleted") if is_utf8(path) else _refused_name(path)


def _hidden_deletions(inside: str, theirs: Tree, present: set[str]) -> Iterator[_Difference]:
    """Deletions in a folder that an opaque one of the layer hides, but for the names `present`."""
    with contextlib.suppress(OSError):
        for name, host in theirs.entries(inside):
            entry = None if name in present else deletion(f"{inside}/{name}", host)
            if entry is not None:
                yield _Difference(entry, host, host)


def compare(path: str, info: os.stat_result, host: os.stat_result | None, at: int) -> Entry | None:
    """The change that a path with the status `info`, in the open folder `at`, makes to the project.

    None if both are folders of one mode: their children are compared one by one.

    Raises:
        OSError: a link cannot be read.
    """
    if not is_utf8(path):
        return _refused_name(path)
    if stat.S_ISDIR(info.st_mode):
        mode = permissions(info)
        same = host is not None and stat.S_ISDIR(host.st_mode) and permissions(host) == mode
        return None if same else Entry(path, "directory", mode=mode)
    if stat.S_ISREG(info.st_mode):
        return Entry(path, "file", info.st_size, mode=permissions(info))
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(path.rpartition("/")[2], dir_fd=at)
        return Entry(path, "symlink", target=target)
    return Entry(path, "refused", reason=_kind_name(info.st_mode))


def permissions(info: os.stat_result) -> int:
    """Permission bits that are written back: no set-user-id, set-group-id or sticky bit."""
    return stat.S_IMODE(info.st_mode) & 0o777


def is_utf8(path: str) -> bool:
    """Whether a path can be encoded as UTF-8, as events and reports need it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refused_name(path: str) -> Entry:
    shown = path.encode(errors="surrogateescape").decode(errors="replace")
    return Entry(shown, "refused", reason="its name is not UTF-8")


def _kind_name(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    )
    return next((name for matches, name in kinds if matches(mode)), "not a file, folder or link")


# --- links


def refuse_outward_links(
    entries: Iterable[Entry], project: Folder, visible: Sequence[str]
) -> list[Entry]:
    """The same entries, but links that would lead out of the project become refused.

    Each is followed as if all of `entries` were applied already.
    """
    found = list(entries)
    if not any(entry.kind == "symlink" for entry in found):
        return found
    planned = {entry.path: entry for entry in found}
    known: dict[str, str | None] = {}

    def link_at(path: str) -> str | None:
        if path in planned:
            entry = planned[path]
            return entry.target if entry.kind == "symlink" else None
        if path not in known:
            known[path] = _project_link(path, project)
        return known[path]

    def checked(entry: Entry) -> Entry:
        if entry.kind != "symlink":
            return entry
        root = str(project.path)
        reason = links.why_refused(entry.path, entry.target, root, visible, link_at)
        return Entry(entry.path, "refused", reason=reason) if reason else entry

    return [checked(entry) for entry in found]


def _project_link(path: str, project: Folder) -> str | None:
    """Target of a link of the project; None if the path is no link."""
    try:
        held = project.open(path, os.O_PATH)
    except OSError:
        return None
    try:
        # readlinkat(2): an empty path reads the link that an O_PATH descriptor holds.
        return os.readlink("", dir_fd=held) if stat.S_ISLNK(os.fstat(held).st_mode) else None
    finally:
        os.close(held)


# --- hard links


def _breaks_hard_link(ours: os.stat_result, theirs: os.stat_result) -> bool:
    """Whether a phase wrote to one of several names of a file.

    overlayfs copies up the one name that is written to: it is a file of its own from then on.
    """
    if not stat.S_ISREG(theirs.st_mode) or theirs.st_nlink < 2:
        return False
    # A copy-up for chmod(2) or link(2) keeps size and mtime.
    return (ours.st_size, ours.st_mtime_ns) != (theirs.st_size, theirs.st_mtime_ns)


def _name_each_other(found: list[Entry], indexes: Sequence[int]) -> None:
    """Set `former_link` of the names of one file in a circle.

    Where some of them are written to the project and some are not, one leads from here to there.
    """
    for index, following in zip(indexes, [*indexes[1:], *indexes[:1]], strict=True):
        if index != following:
            found[index] = found[index]._replace(former_link=found[following].path)


def _add_former_links(found: list[Entry], broken_links: dict[Inode, int], project: Folder) -> None:
    """Set `former_link` to an unchanged name of the same file; `broken_links` holds indexes."""
    if not broken_links:
        return
    changed = {entry.path for entry in found if entry.kind != "directory"}
    with Tree(project.descriptor, 0) as theirs:
        for path, info in _hard_links(theirs):
            index = broken_links.get((info.st_dev, info.st_ino))
            if index is not None and changed.isdisjoint(_path_and_parents(path)):
                found[index] = found[index]._replace(former_link=path)


def _path_and_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _hard_links(tree: Tree) -> Iterator[tuple[str, os.stat_result]]:
    """Files of a project with several names, among its first ENTRIES_MAX paths."""
    pending, seen = [""], 0
    while pending and seen < ENTRIES_MAX:
        inside = pending.pop()
        with contextlib.suppress(OSError):
            for name, info in tree.entries(inside):
                seen += 1
                path = f"{inside}/{name}" if inside else name
                if stat.S_ISDIR(info.st_mode) and name not in NEVER_WRITTEN_BACK:
                    pending.append(path)
                elif info.st_nlink > 1 and is_utf8(path):
                    yield path, info
