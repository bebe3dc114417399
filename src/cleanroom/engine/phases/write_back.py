"""Writing back to the project what a phase changed, and saying what came, what stayed, and why."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import anyio.to_thread

from cleanroom.backends.base import Change, EnvironmentSpec, Workspace, WrittenBack
from cleanroom.core.bus import Span
from cleanroom.engine.phases.ignore_files import HostIgnores
from cleanroom.engine.phases.selection import (
    Host,
    Selection,
    Withheld,
    look,
    selected,
    stayed_away,
    untouched,
    with_links,
)
from cleanroom.engine.supervision.context import RunContext
from cleanroom.model.errors import ArtifactError
from cleanroom.model.events import Artifact, Note, Subject
from cleanroom.model.plan import PhaseRun
from cleanroom.model.plan import Workspace as PlannedWorkspace

FEW = 100  # of changes: a millisecond
NAMED = 5  # of many things a message names so many
AUTORUN_MOST = 100  # of them an event names so many; the rest is counted


NoteLevel = Literal["info", "warning"]


class PhaseEnd(NamedTuple):
    """A phase whose commands have ended, as far as it decides what comes back."""

    phase: PhaseRun
    planned: PlannedWorkspace
    environment: EnvironmentSpec
    passed: bool
    broke_rule: bool
    span: Span

    @property
    def subject(self) -> Subject:
        return Subject("phase", self.phase.name, self.planned.name)

    @property
    def tools(self) -> tuple[str, ...]:
        """Folders outside that it was shown at their own paths: links may lead there."""
        mounts = self.environment.mounts
        return tuple(m.target for m in mounts if m.source == m.target and not m.writable)

    @property
    def spares_ignored(self) -> bool:
        """Does it bring back what nobody declared, though it did not pass?"""
        return self.phase.policy.returns_ignored and not self.passed and not self.broke_rule

    def __str__(self) -> str:
        name = self.phase.name
        return f"phase {self.planned.name}/{name}" if self.planned.name else f"phase {name}"


class WriteBackResult(NamedTuple):
    """What became of a phase's changes."""

    paths: tuple[str, ...] = ()  # chosen to come back
    conflicts: int = 0
    refused: int = 0  # and withheld


class WriteBack:
    """Everything that one run writes to its project."""

    def __init__(self, context: RunContext) -> None:
        """Make it before the first phase: what is changed later was not there before the run."""
        self._context = context
        # As file systems count: the bus's clock may be a test's.
        self._began_ns = time.time_ns()
        plan = context.plan
        self._files = with_links(plan.root, plan.files)
        self._named = with_links(plan.root, plan.named)
        self._ignores: dict[str, HostIgnores] = {}  # by workspace's path
        self._uncommitted: dict[str, set[str]] = {}  # by workspace's path

    def uncommitted_in(self, planned: PlannedWorkspace) -> tuple[str, ...]:
        """What phases changed there and did not bring back."""
        return tuple(sorted(self._uncommitted.get(planned.path, ())))

    async def write_back(self, end: PhaseEnd, workspace: Workspace) -> WriteBackResult:
        """Write the chosen changes to the project.

        Raises:
            ArtifactError: the disk, or who may write where, kept some from being written.
        """
        changes = await workspace.changes(end.tools)
        if not changes:
            return WriteBackResult()
        host = await self._looked(end, changes)
        choice = selected(changes, passed=end.passed, outputs=end.phase.outputs, host=host)
        if choice.withheld:
            text = f"{end} may not bring back {_reasons(choice.withheld)}"
            text += _proposal(end.phase.outputs, [change.spelled for change in choice.withheld])
            self._note(end, text, "CR-WORKSPACE-006")
        if not end.passed:
            self._tell_stayed(end, stayed_away(changes, choice))
            # It may be why: the commands saw two files where the project has one.
            parted = _parted(changes)
            inside = sorted(parted.keys() - set(choice.paths))
            self._tell_parted(end, {path: parted[path] for path in inside}, "in this run")
        back = WrittenBack(files=0, bytes=0)
        if choice.paths:
            conflicts = self._conflicts(end.planned)
            back = await workspace.write_back(choice.paths, self._context.folder, conflicts)
            self._tell(end, changes, choice, back)
        uncommitted = self._uncommitted.setdefault(workspace.root, set())
        uncommitted |= {change.path for change in changes if change.kind != "directory"}
        uncommitted -= set(choice.paths)
        await self._keep(end, workspace)
        if back.failed:
            raise _unwritten(_reasons(back.failed), "make room, and run again")
        stayed = len(back.refused) + len(choice.withheld)
        return WriteBackResult(choice.paths, len(back.conflicts), stayed)

    async def _looked(self, end: PhaseEnd, changes: Sequence[Change]) -> Host:
        """A few files are looked at sooner than a thread begins; a folder may be large."""
        few = len(changes) <= FEW and all(change.kind == "file" for change in changes)
        if few and not end.spares_ignored:
            return self._look(end, changes)
        return await anyio.to_thread.run_sync(self._look, end, changes)

    def _look(self, end: PhaseEnd, changes: Sequence[Change]) -> Host:
        """What the host has where the changes would be written. Blocks."""
        root = end.planned.path
        try:
            host = look(root, changes, files=self._files, named=self._named)
        except OSError as error:
            hint = "put the folder back, and run again"
            raise _unwritten(f"{root} ({error.strerror})", hint) from error
        if not end.spares_ignored:
            return host
        if root not in self._ignores:
            self._ignores[root] = HostIgnores(root, self._context.caller, self._began_ns)
        return host._replace(ignored=self._ignores[root].covered(changes))

    async def _keep(self, end: PhaseEnd, workspace: Workspace) -> None:
        keep = self._context.keep
        if keep == "always" or (keep == "on-failure" and not end.passed):
            await workspace.save_changes(self._context.folder, f"diff/{end.environment.id}")

    def _conflicts(self, planned: PlannedWorkspace) -> str:
        """Where they go in the run's folder: as the workspaces lie in the project,
        so that those of two never meet.
        """
        root = os.path.realpath(self._context.plan.root)
        inside = os.path.relpath(os.path.realpath(planned.path), root)
        return os.path.normpath(os.path.join("conflicts", inside))

    def _tell(
        self,
        end: PhaseEnd,
        changes: Sequence[Change],
        choice: Selection,
        back: WrittenBack,
    ) -> None:
        """What came, what stayed, and why."""
        stayed = {*back.conflicts, *(change.path for change in (*back.refused, *back.failed))}
        if back.files or back.deleted:
            self._artifact(
                end,
                Artifact(
                    subject=end.subject,
                    path=".",
                    role="changes",
                    bytes=back.bytes,
                    files=back.files,
                    deleted=back.deleted,
                ),
            )
        if back.refused:
            text = f"{end} could not bring back {_reasons(back.refused)}"
            self._note(end, text, "CR-WORKSPACE-002")
        if back.conflicts:
            self._tell_conflicts(end, back)
        parted = _parted(changes)
        came = untouched(parted.keys() & set(choice.paths), stayed)
        self._tell_parted(end, {path: parted[path] for path in sorted(came)}, "now")
        opened = sorted(untouched(choice.opened, stayed))
        if opened:
            text = f"{end} brought back what can now be written by others: {_some(opened)}"
            self._note(end, text, "CR-WORKSPACE-008")
        came = untouched([path for path, _ in choice.autorun], stayed)
        self._tell_autorun(end, [found for found in choice.autorun if found[0] in came])

    def _tell_conflicts(self, end: PhaseEnd, back: WrittenBack) -> None:
        unkept = set(back.unkept)
        kept = [path for path in back.conflicts if path not in unkept]
        if kept:
            place = self._context.shown(self._context.folder.path / self._conflicts(end.planned))
            meanwhile = "did not overwrite what was changed on the host meanwhile"
            text = f"{end} {meanwhile}: {_some(kept)}; its own is in {place}"
            self._conflict(end, place, len(kept), text)
        if back.unkept:
            named, changed = _some(back.unremoved), _some(back.unkept)
            why = f"{changed} changed on the host meanwhile"
            nothing = "the run had removed this, so nothing of its own is kept"
            text = f"{end} did not remove {named}: {why}; {nothing}"
            self._conflict(end, ".", len(back.unkept), text)

    def _conflict(self, end: PhaseEnd, place: str, count: int, text: str) -> None:
        self._artifact(end, Artifact(subject=end.subject, path=place, role="conflict", files=count))
        self._note(end, text, "CR-WORKSPACE-001")

    def _tell_stayed(self, end: PhaseEnd, stayed: Sequence[str]) -> None:
        """What a phase that did not pass made for nothing."""
        if not stayed:
            return
        some = f"{len(stayed)} of its changes did not come back: {_some(stayed)}"
        text = f"{end} did not pass, so {some}"
        if end.phase.outputs is None:
            text += "; what `outputs` names comes back all the same"
        self._note(end, text, level="info")

    def _tell_parted(self, end: PhaseEnd, parted: Mapping[str, str], where: str) -> None:
        """A file with several names is copied up by the one that is written to."""
        if not parted:
            return
        named = _some([f"{path} (of {other})" for path, other in parted.items()])
        several = "wrote to one name of several (a hard link)"
        text = f"{end} {several}, which is a file of its own {where}: {named}"
        self._note(end, text, "CR-WORKSPACE-007")

    def _tell_autorun(self, end: PhaseEnd, came: Sequence[tuple[str, str]]) -> None:
        """What came back and starts by itself, the topmost first, where most tools look."""
        if not came:
            return
        found = sorted(came, key=lambda pair: pair[0].count("/"))
        some = dict(found[:AUTORUN_MOST])
        self._artifact(
            end,
            Artifact(subject=end.subject, path=".", role="autorun", files=len(found), autorun=some),
        )
        named = _some([f"{path} ({by})" for path, by in found])
        text = f"{end} brought back what the host's tools start or read by themselves: {named}"
        self._note(end, text, "CR-WORKSPACE-005", "info")

    def _artifact(self, end: PhaseEnd, event: Artifact) -> None:
        self._context.bus.publish(event, end.span.context)

    def _note(
        self,
        end: PhaseEnd,
        text: str,
        code: str = "",
        level: NoteLevel = "warning",
    ) -> None:
        note = Note(subject=end.subject, level=level, text=text, code=code)
        self._context.bus.publish(note, end.span.context)


def _parted(changes: Sequence[Change]) -> dict[str, str]:
    """Paths that were other names of a file of the project, each with one of these."""
    return {change.path: change.former_link for change in changes if change.former_link}


def _some(names: Sequence[str]) -> str:
    """A few of them, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _proposal(declared: Sequence[str] | None, spelled: Iterable[str]) -> str:
    """Which outputs bring back what was withheld, and what else they then mean."""
    missing = [json.dumps(path, ensure_ascii=False) for path in dict.fromkeys(spelled) if path]
    if not missing:
        return ""
    if declared is not None:
        return f"; where it is meant to, add to its cleanroom.outputs: {_some(missing)}"
    outputs = f'cleanroom.outputs = [".", {", ".join(missing[:NAMED])}]'
    means = 'outputs stand in the place of every change ("."), and come from a failed phase too'
    return f"; where it is meant to, declare {outputs}: {means}"


def _reasons(changes: Iterable[Change | Withheld]) -> str:
    return _some([f"{change.path} ({change.reason})" for change in changes])


def _unwritten(named: str, hint: str) -> ArtifactError:
    text = f"changes could not be written to the project: {named}"
    return ArtifactError("CR-WORKSPACE-004", text, hint=hint)
