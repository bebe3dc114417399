"""Writing a layer's changes back to the project on the host.

What somebody else changed there since the run began is never overwritten:
the phase's version goes to the run's `conflicts` folder instead.
Files are read and written through descriptors, and no link is followed.
Set-user-id, set-group-id and sticky bits are not written back.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem.changes import Entry, permissions, refuse_outward_links
from cleanroom.sandbox.filesystem.host_state import HostState
from cleanroom.sandbox.filesystem.project_files import Project, ProjectFiles
from cleanroom.sandbox.filesystem.project_removal import ProjectRemoval, Totals
from cleanroom.sandbox.filesystem.project_tree import Conflict, ProjectTree, Target
from cleanroom.sandbox.filesystem.saved_changes import DISK_ERRORS, SavedChanges
from cleanroom.sandbox.filesystem.trees import Tree

CONFLICTS = "conflicts"


class Outcome(NamedTuple):
    """The result for each kind of entry. Files include links; each name of a file counts."""

    files: int
    bytes: int
    # files and links that the project has no more, and folders that contained folders only
    deleted: int
    # paths that somebody else changed
    conflicts: tuple[str, ...]
    # deletions that were not written back because of a conflict
    unremoved: tuple[str, ...]
    # conflicts of which nothing is saved: the layer has only a deletion
    unkept: tuple[str, ...]
    refused: tuple[Entry, ...]
    # the disk did not take them
    failed: tuple[Entry, ...]


class ProjectWriter:
    """Applies layers' changes to one project during one run."""

    def __init__(self, folder: Folder, began_ns: int) -> None:
        """The folder stays the caller's, and has to stay open."""
        self.host = HostState(began_ns)
        # Root gives new files the owner of the project's folder; others cannot (EPERM, chown(2)).
        info = os.fstat(folder.descriptor)
        owner = (info.st_uid, info.st_gid) if os.geteuid() == 0 else None
        self._project = Project(folder, self.host, owner)

    def apply(
        self,
        upper: Folder,
        entries: Iterable[Entry],
        run: Folder,
        visible: Sequence[str] = (),
        conflicts: str = CONFLICTS,
    ) -> Outcome:
        """Write entries, as `changes.find_changes` gave them, to the project.

        The phase's version of a conflicting path goes to the folder `conflicts` of `run`.
        A link that would lead out once just these entries are applied is refused;
        `visible` as for `changes.find_changes`.
        """
        folder, host, owner = self._project
        host.detect_clock_step()
        with (
            Tree(upper.descriptor) as ours,
            ProjectTree(folder.descriptor, host, owner) as theirs,
            SavedChanges(run) as saved,
        ):
            totals = Totals()
            application = _Application(
                ours,
                theirs,
                host,
                ProjectFiles(ours, theirs, self._project, totals),
                ProjectRemoval(theirs, totals),
            )
            report = _Report(ours, saved, conflicts)
            for entry in refuse_outward_links(entries, folder, visible):
                _apply_or_report(entry, application, report)
            # Modes of folders come last: one may forbid to write in it.
            for path, error in theirs.restore_modes():
                report.add_error(path, error)
            return report.outcome(totals)


def _apply_or_report(entry: Entry, application: _Application, report: _Report) -> None:
    if entry.kind == "refused":
        report.refused.append(entry)
        return
    try:
        try:
            application.apply(entry)
        except Conflict as conflict:
            report.add_conflict(entry, conflict.paths)
    except OSError as error:
        report.add_error(entry.path, error)


class _Application:
    """Applies single entries of one layer."""

    def __init__(
        self,
        ours: Tree,
        theirs: ProjectTree,
        host: HostState,
        files: ProjectFiles,
        removal: ProjectRemoval,
    ) -> None:
        self._ours, self._theirs, self._host = ours, theirs, host
        self._files, self._removal = files, removal

    def apply(self, entry: Entry) -> None:
        """Apply one entry.

        Raises:
            Conflict: somebody else changed what it would replace.
            OSError: it could not be written.
        """
        target = self._theirs.target(entry.path)
        if entry.kind == "deleted":
            self._removal.clear(target)
        elif entry.kind == "directory":
            self._write_folder(target)
        elif entry.kind == "file":
            self._files.write_file(target)
        else:
            self._files.write_link(target, entry.target)

    def _write_folder(self, target: Target) -> None:
        """Make a folder, or note the mode that it gets when the layer is applied."""
        inside, _, name = target.path.rpartition("/")
        ours = os.stat(name, dir_fd=self._ours.enter(inside), follow_symlinks=False)
        if not stat.S_ISDIR(ours.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        wanted = permissions(ours)
        if target.before is not None and target.is_folder:
            mode = stat.S_IMODE(target.before.st_mode)
            if mode & 0o777 == wanted:
                return
            self._require_mode_may_change(target.path, target.before)
        else:
            self._removal.clear(target)
            folder = self._theirs.make_folder(target.name, target.at)
            mode = stat.S_IMODE(os.fstat(folder).st_mode)
            os.close(folder)
            self._theirs.times[target.path] = (ours.st_atime_ns, ours.st_mtime_ns)
        self._theirs.modes[target.path] = mode & ~0o777 | wanted

    def _require_mode_may_change(self, path: str, before: os.stat_result) -> None:
        if self._theirs.is_replaced or self._host.is_replaced(before):
            raise Conflict(path)
        if os.geteuid() not in (0, before.st_uid):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


class _Report:
    """Entries that were not applied, and why."""

    def __init__(self, ours: Tree, saved: SavedChanges, folder: str) -> None:
        """Conflicting entries are saved in the folder `folder` of the run."""
        self._ours, self._saved, self._folder = ours, saved, folder
        # path -> whether something is saved of it
        self._conflicts: dict[str, bool] = {}
        self._unremoved: list[str] = []
        self.refused: list[Entry] = []
        self._failed: list[Entry] = []

    def add_conflict(self, entry: Entry, changed: Sequence[str]) -> None:
        """Somebody else changed these paths: save the phase's version of the entry.

        Raises:
            OSError: it could not be saved.
        """
        has_content = entry.kind != "deleted"
        for path in changed:
            self._conflicts[path] = has_content or self._conflicts.get(path, False)
        if has_content:
            self._saved.save(f"{self._folder}/{entry.path}", entry, self._ours)
        else:
            self._unremoved.append(entry.path)

    def add_error(self, path: str, error: OSError) -> None:
        """The system did not let this path be written."""
        entries = self._failed if error.errno in DISK_ERRORS else self.refused
        reason = os.strerror(error.errno or errno.EIO)
        entries.append(Entry(path, "refused", reason=reason))

    def outcome(self, totals: Totals) -> Outcome:
        """The outcome of the whole layer."""
        return Outcome(
            files=totals.files,
            bytes=totals.bytes,
            deleted=totals.deleted,
            conflicts=tuple(self._conflicts),
            unremoved=tuple(self._unremoved),
            unkept=tuple(path for path, is_saved in self._conflicts.items() if not is_saved),
            refused=tuple(self.refused),
            failed=tuple(self._failed),
        )
