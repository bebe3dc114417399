"""What a phase's write-back publishes: artifacts, and notes for people.

Messages and codes are those of `model/codes/workspace.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from cleanroom.backends.base import Change, WrittenBack
from cleanroom.core.text import written_out_on_one_line
from cleanroom.engine.phases.phase_end import PhaseEnd
from cleanroom.engine.phases.selection import Selection, Withheld, fully_written, unreported
from cleanroom.engine.supervision.context import RunContext
from cleanroom.model.events import Artifact, Note

# Of many paths a message names so many, and an event so many that start by themselves.
NAMED = 5
AUTORUN_MAX = 100
WOULD_CHANGE_MAX = 1000

NoteLevel = Literal["info", "warning"]


class WriteBackReport:
    """Reports what became of one phase's changes."""

    def __init__(self, context: RunContext, end: PhaseEnd, conflicts: str) -> None:
        """`conflicts`: folder of the run in which conflicting changes are saved."""
        self._context = context
        self._end = end
        self._conflicts = conflicts

    def report_selection(self, changes: Sequence[Change], selection: Selection) -> None:
        """Report changes that are withheld, and those that a failed phase made in vain."""
        end = self._end
        if selection.withheld:
            text = f"{end} may not bring back {reasons(selection.withheld)}"
            text += _proposal(end.phase.outputs, [change.spelled for change in selection.withheld])
            self._note(text, "CR-WORKSPACE-006")
        if end.passed:
            return
        self._report_unselected(unreported(changes, selection), selection.incomplete)
        # It may be why the phase failed: its commands saw two files where the project has one.
        former = _former_links(changes)
        unselected = sorted(former.keys() - set(selection.paths))
        changed = {change.path for change in changes}
        parted = {path: former[path] for path in unselected if former[path] not in changed}
        self._report_broken_links(parted, "in this run")

    def report_unwritten(self, changes: Sequence[Change], selection: Selection) -> None:
        """Report what a dry run would have brought back."""
        selected = set(selection.paths)
        found = [change for change in changes if change.path in selected]
        if not found:
            return
        deleted = sum(change.kind == "deleted" for change in found)
        artifact = Artifact(
            subject=self._end.subject,
            path=".",
            role="would_change",
            bytes=sum(change.bytes for change in found),
            files=len(found) - deleted,
            deleted=deleted,
            changes={change.path: change.kind for change in found[:WOULD_CHANGE_MAX]},
        )
        self._publish(artifact)

    def report_written(
        self, changes: Sequence[Change], selection: Selection, back: WrittenBack
    ) -> None:
        """Report what was written, conflicts, refusals, and what the project's users should see."""
        end = self._end
        missing = {*back.conflicts, *(change.path for change in (*back.refused, *back.failed))}
        if back.files or back.deleted:
            artifact = Artifact(
                subject=end.subject,
                path=".",
                role="changes",
                bytes=back.bytes,
                files=back.files,
                deleted=back.deleted,
            )
            self._publish(artifact)
        if back.refused:
            text = f"{end} could not bring back {reasons(back.refused)}"
            self._note(text, "CR-WORKSPACE-002")
        if back.conflicts:
            self._report_conflicts(back)
        former = _former_links(changes)
        written = fully_written(former.keys() & set(selection.paths), missing)
        parted = {path: former[path] for path in sorted(written) if former[path] not in written}
        self._report_broken_links(parted, "now")
        opened = sorted(fully_written(selection.opened_to_others, missing))
        if opened:
            text = f"{end} brought back what can now be written by others: {_some(opened)}"
            self._note(text, "CR-WORKSPACE-008")
        written = fully_written([path for path, _ in selection.autorun], missing)
        self._report_autorun([found for found in selection.autorun if found[0] in written])

    def _report_conflicts(self, back: WrittenBack) -> None:
        unsaved = set(back.unkept)
        saved = [path for path in back.conflicts if path not in unsaved]
        if saved:
            place = self._context.shown(self._context.folder.path / self._conflicts)
            meanwhile = "did not overwrite what was changed on the host meanwhile"
            text = f"{self._end} {meanwhile}: {_some(saved)}; its own is in {place}"
            self._report_conflict(place, len(saved), text)
        if back.unkept:
            named, changed = _some(back.unremoved), _some(back.unkept)
            why = f"{changed} changed on the host meanwhile"
            nothing = "the run had removed this, so nothing of its own is kept"
            text = f"{self._end} did not remove {named}: {why}; {nothing}"
            self._report_conflict(".", len(back.unkept), text)

    def _report_conflict(self, place: str, count: int, text: str) -> None:
        subject = self._end.subject
        self._publish(Artifact(subject=subject, path=place, role="conflict", files=count))
        self._note(text, "CR-WORKSPACE-001")

    def _report_unselected(self, paths: Sequence[str], incomplete: frozenset[str]) -> None:
        """Report the changes of a failed phase that were dropped."""
        if not paths:
            return
        some = f"{len(paths)} of its changes did not come back: {_some(paths)}"
        text = f"{self._end} did not pass, so {some}"
        if incomplete:
            text += "; a git-ignored folder comes back whole or not at all"
        if self._end.phase.outputs is None:
            text += "; what `outputs` names comes back all the same"
        self._note(text, level="info")

    def _report_broken_links(self, former: Mapping[str, str], where: str) -> None:
        """Report hard links that overlayfs broke: it copies up the name that is written to."""
        if not former:
            return
        named = _some([f"{path} (of {other})" for path, other in former.items()])
        several = "wrote to one name of several (a hard link)"
        text = f"{self._end} {several}, which is a file of its own {where}: {named}"
        self._note(text, "CR-WORKSPACE-007")

    def _report_autorun(self, written: Sequence[tuple[str, str]]) -> None:
        """Report files that start by themselves, the topmost first, where most tools look."""
        if not written:
            return
        found = sorted(written, key=lambda pair: pair[0].count("/"))
        some = dict(found[:AUTORUN_MAX])
        artifact = Artifact(
            subject=self._end.subject, path=".", role="autorun", files=len(found), autorun=some
        )
        self._publish(artifact)
        named = _some([f"{path} ({by})" for path, by in found])
        text = f"{self._end} brought back what the host's tools start or read by themselves"
        self._note(f"{text}: {named}", "CR-WORKSPACE-005", "info")

    def _publish(self, event: Artifact) -> None:
        self._context.bus.publish(event, self._end.span.context)

    def _note(self, text: str, code: str = "", level: NoteLevel = "warning") -> None:
        # A phase chose the paths: their line ends would be lines that the engine seems to say.
        text = written_out_on_one_line(text)
        note = Note(subject=self._end.subject, level=level, text=text, code=code)
        self._context.bus.publish(note, self._end.span.context)


def reasons(changes: Iterable[Change | Withheld]) -> str:
    """Some paths, each with its reason."""
    return _some([f"{change.path} ({change.reason})" for change in changes])


def _former_links(changes: Sequence[Change]) -> dict[str, str]:
    """Paths that were or are hard links of a file of the project, each with another name of it."""
    return {change.path: change.former_link for change in changes if change.former_link}


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
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
