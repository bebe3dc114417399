"""Write-back: the changes of each phase, selected, written to the project and reported."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

import anyio.to_thread

from cleanroom.backends.base import Change, Workspace, WrittenBack
from cleanroom.engine.own_writes import tell_written
from cleanroom.engine.phases.host_facts import HostFacts, read_host_facts
from cleanroom.engine.phases.host_links import with_links
from cleanroom.engine.phases.ignore_files import HostIgnores
from cleanroom.engine.phases.phase_end import PhaseEnd
from cleanroom.engine.phases.selection import select
from cleanroom.engine.phases.write_back_report import WriteBackReport, reasons
from cleanroom.engine.supervision.context import RunContext
from cleanroom.model.errors import ArtifactError
from cleanroom.model.plan import Workspace as PlannedWorkspace

# Changed files whose facts are read on the event loop: that takes a millisecond.
FEW = 100


class WriteBackResult(NamedTuple):
    """What became of a phase's changes."""

    # selected to be written back
    paths: tuple[str, ...] = ()
    conflicts: int = 0
    # refused or withheld
    refused: int = 0


class WriteBack:
    """Writes back the changes of one run's phases."""

    def __init__(self, context: RunContext) -> None:
        """Make it before the first phase: ignore files that are changed later do not count."""
        self._context = context
        # The file system's clock: the bus's may be a test's.
        self._began_ns = time.time_ns()
        plan = context.plan
        self._files = with_links(plan.root, plan.files)
        self._named = with_links(plan.root, plan.named)
        # by path of the workspace
        self._ignores: dict[str, HostIgnores] = {}
        self._uncommitted: dict[str, set[str]] = {}

    def uncommitted_in(self, planned: PlannedWorkspace) -> tuple[str, ...]:
        """Paths that phases changed in a workspace and that were not written back."""
        return tuple(sorted(self._uncommitted.get(planned.path, ())))

    async def write_back(self, end: PhaseEnd, workspace: Workspace) -> WriteBackResult:
        """Write a phase's selected changes to the project, and report them; in a dry run report
        them only.

        Raises:
            ArtifactError: the disk, or who may write where, kept some from being written.
        """
        changes = await workspace.changes(end.tools)
        if not changes:
            return WriteBackResult()
        host = await self._host_facts(end, changes)
        selection = select(changes, passed=end.passed, outputs=end.phase.outputs, host=host)
        conflicts = self._conflicts_folder(end.planned)
        report = WriteBackReport(self._context, end, conflicts)
        report.report_selection(changes, selection)
        back = WrittenBack(files=0, bytes=0)
        if self._context.plan.dry_run:
            report.report_unwritten(changes, selection)
        elif selection.paths:
            back = await workspace.write_back(selection.paths, self._context.folder, conflicts)
            tell_written(end.planned.path, set(selection.paths) - set(back.conflicts))
            report.report_written(changes, selection, back)
        uncommitted = self._uncommitted.setdefault(workspace.root, set())
        uncommitted |= {change.path for change in changes if change.kind != "directory"}
        uncommitted -= set(selection.paths)
        await self._save_changes(end, workspace)
        if back.failed:
            raise _not_written(reasons(back.failed), "make room, and run again")
        refused = len(back.refused) + len(selection.withheld)
        return WriteBackResult(selection.paths, len(back.conflicts), refused)

    async def _host_facts(self, end: PhaseEnd, changes: Sequence[Change]) -> HostFacts:
        """Read host facts: of a few files at once, which takes less than starting a thread."""
        few = len(changes) <= FEW and all(change.kind == "file" for change in changes)
        if few and not end.spares_ignored:
            return self._read_host_facts(end, changes)
        return await anyio.to_thread.run_sync(self._read_host_facts, end, changes)

    def _read_host_facts(self, end: PhaseEnd, changes: Sequence[Change]) -> HostFacts:
        root = end.planned.path
        try:
            host = read_host_facts(root, changes, files=self._files, named=self._named)
        except OSError as error:
            hint = "put the folder back, and run again"
            raise _not_written(f"{root} ({error.strerror})", hint) from error
        if not end.spares_ignored:
            return host
        if root not in self._ignores:
            self._ignores[root] = HostIgnores(root, self._context.caller, self._began_ns)
        ignores = self._ignores[root]
        covered = ignores.covered(changes)
        above = ignores.folders_above(covered)
        return host._replace(ignored=covered, ignored_folders=above)

    async def _save_changes(self, end: PhaseEnd, workspace: Workspace) -> None:
        """Save the phase's changes in the run's folder, if the caller asked for that."""
        keep = self._context.keep
        if keep == "always" or (keep == "on-failure" and not end.passed):
            await workspace.save_changes(self._context.folder, f"diff/{end.environment.id}")

    def _conflicts_folder(self, planned: PlannedWorkspace) -> str:
        """Where a workspace's conflicts go in the run's folder.

        Folders lie in one another as the workspaces do: paths of two never meet.
        """
        root = os.path.realpath(self._context.plan.root)
        inside = os.path.relpath(os.path.realpath(planned.path), root)
        return os.path.normpath(os.path.join("conflicts", inside))


def _not_written(named: str, hint: str) -> ArtifactError:
    text = f"changes could not be written to the project: {named}"
    return ArtifactError("CR-WORKSPACE-004", text, hint=hint)
