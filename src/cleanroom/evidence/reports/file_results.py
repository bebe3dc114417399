"""The files of a result: totals of what came back to the project, and where reports lie."""

from __future__ import annotations

from collections.abc import Mapping

from cleanroom.evidence.reports.result import AutorunResult, ChangeResult
from cleanroom.evidence.reports.violation_results import ROWS_MAX
from cleanroom.model.events import Artifact

# role of an artifact -> kind of a report
_REPORT_KINDS = {
    "report.json": "json",
    "report.junit": "junit",
    "report.html": "html",
    "report.sarif": "sarif",
    "events": "events",
    "trace": "trace",
    "audit": "audit",
}


class FileResults:
    """Takes artifacts."""

    def __init__(self) -> None:
        self.brought_back: dict[str, int] = {}
        self.autorun: list[AutorunResult] = []
        self.would_change: dict[tuple[str, str], ChangeResult] = {}  # by workspace and path
        self.reports: dict[str, str] = {}
        self.dependencies_sha256 = ""  # of the record of the fetch step; "" where there is none

    def add(self, event: Artifact) -> None:
        """Take an artifact; roles that are no part of a result are ignored."""
        if event.role == "changes":
            self._sum({"files": event.files, "bytes": event.bytes, "deleted": event.deleted})
        elif event.role == "autorun":
            self._sum({"autorun": event.files})
            self.autorun += _autorun_rows(event)[: ROWS_MAX - len(self.autorun)]
        elif event.role == "would_change":
            self.would_change |= _change_rows(event)
        elif event.role == "conflict":
            self._sum({"conflicts": event.files})
        elif event.role == "dependencies":
            self.dependencies_sha256 = event.sha256
        elif event.role in _REPORT_KINDS:
            self.reports[_REPORT_KINDS[event.role]] = event.path

    def _sum(self, numbers: Mapping[str, int]) -> None:
        for name, number in numbers.items():
            self.brought_back[name] = self.brought_back.get(name, 0) + number


def _change_rows(event: Artifact) -> dict[tuple[str, str], ChangeResult]:
    phase, workspace = event.subject.name, event.subject.workspace
    return {
        (workspace, path): ChangeResult(path=path, kind=kind, phase=phase, workspace=workspace)
        for path, kind in event.changes.items()
    }


def _autorun_rows(event: Artifact) -> list[AutorunResult]:
    phase, workspace = event.subject.name, event.subject.workspace
    return [
        AutorunResult(path=path, by=by, phase=phase, workspace=workspace)
        for path, by in event.autorun.items()
    ]
