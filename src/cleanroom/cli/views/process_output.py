"""What processes print, cut into lines that no display can take for its own.

Pure. Every line stands behind `NAME | `, so that nothing a phase prints can pass for one of ours.
"""

from __future__ import annotations

from cleanroom.cli.views.text import overwritten, safe
from cleanroom.cli.views.words import Line, qualified_name
from cleanroom.model.events import Output, Subject

# A line without an end is shown in pieces of this size, so that it cannot fill the memory.
_LINE_MAX = 64 * 1024


class OutputLines:
    """Joins pieces of output to lines. `last_lines` has the last line of each phase."""

    def __init__(self, *, show_phases: bool, show_services: bool) -> None:
        self.last_lines: dict[Subject, str] = {}
        self._show_phases = show_phases
        self._show_services = show_services
        self._partial: dict[tuple[Subject, str], str] = {}

    def lines(self, event: Output) -> list[Line]:
        """The lines that this piece completes."""
        owner = phase_of(event.subject)
        key = (owner, event.stream)
        text = self._partial.pop(key, "") + event.text
        *complete, rest = text.split("\n")
        while len(rest) > _LINE_MAX:
            complete.append(rest[:_LINE_MAX])
            rest = rest[_LINE_MAX:]
        if rest:
            self._partial[key] = rest
        if event.cut:
            complete.append("[cut: the rest is not kept]")
        return self._fenced(owner, complete)

    def flush(self, subject: Subject) -> list[Line]:
        """The lines that `subject` left without an end."""
        owner = phase_of(subject)
        return [
            line
            for stream in ("stdout", "stderr")
            if (rest := self._partial.pop((owner, stream), ""))
            for line in self._fenced(owner, [rest])
        ]

    def _fenced(self, owner: Subject, texts: list[str]) -> list[Line]:
        shown = [safe(overwritten(text)) for text in texts]
        if owner.kind == "phase":
            self.last_lines.update((owner, text) for text in shown if text.strip())
            if not self._show_phases:
                return []
            return [
                Line(f"{qualified_name(owner)} | {text}", out=True, fenced=True) for text in shown
            ]
        if not self._show_services:
            return []
        return [
            Line(f"{qualified_name(owner)} | {text}", tone="dim", fenced=True) for text in shown
        ]


def phase_of(subject: Subject) -> Subject:
    """The phase that a command belongs to, else the subject itself."""
    if subject.kind == "command":
        return Subject("phase", subject.name.rpartition("#")[0] or subject.name, subject.workspace)
    return subject
