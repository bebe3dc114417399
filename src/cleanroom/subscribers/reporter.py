"""Keeps the run's event log and turns its events into reports.

`evidence.reports.fold` makes the result; here is only the loop that feeds it, and the writing of
files:
`runs/<run_id>/events.jsonl` as events come, the reports atomically at the end,
once in the folder where people look for the newest and once beside the events they were made of.
The bill of materials is made of the record that the fetch step put beside the events.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio.to_thread
import msgspec

from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Subscription
from cleanroom.core.files import LineWriter, relative, write_atomic
from cleanroom.dependencies.model import RECORD, Fetched
from cleanroom.evidence.reports.fold import ResultBuilder
from cleanroom.evidence.reports.render import FILES, SBOM, makers, render
from cleanroom.evidence.reports.result import RunResult
from cleanroom.model.events import Assertion, encode_lines

EVENTS_FILE = "events.jsonl"
# The log is lossless: a disk that stops for some seconds under a flood must not end the run,
# and 200,000 envelopes are about 100 MB at their worst.
LIMIT = 200_000
# Of the record of dependencies: a thousand times that of a large project.
RECORD_BYTES = 1 << 30


class Reporter:
    """One run's reporter. `run` it until the bus closes, then `write` the final result."""

    def __init__(self, root: Path, run_folder: Folder, report_folder: Folder) -> None:
        self.root = root
        self.run_folder = run_folder
        self.report_folder = report_folder
        self._builder = ResultBuilder()
        self._loaded = False  # what makes the reports

    @property
    def events_path(self) -> Path:
        return self.run_folder.path / EVENTS_FILE

    async def run(self, inbox: Subscription) -> None:
        """Write every event to the log, and add it to the result.

        Raises:
            SubscriberLagged: events were lost to it.
            ArtifactError: the event log cannot be written.
        """
        async with LineWriter(self.run_folder, EVENTS_FILE) as log:
            while batch := await inbox.batch():
                await log.write(encode_lines(batch))
                for envelope in batch:
                    self._builder.add(envelope)
                if not self._loaded and any(isinstance(one.event, Assertion) for one in batch):
                    # An environment is proven: the engine waits for its first command meanwhile.
                    self._loaded = True
                    await anyio.to_thread.run_sync(makers)

    def result(self) -> RunResult:
        """The result of the events so far. Final once `run` has returned."""
        return self._builder.result()

    async def write(
        self, result: RunResult, further: Mapping[str, Path] | None = None
    ) -> RunResult:
        """Write every report of `result` and give it back with `reports` filled in.

        `further` are files that others wrote, such as trace and audit.

        Raises:
            ArtifactError: a report cannot be written.
        """
        sets = await anyio.to_thread.run_sync(
            read_sets, self.run_folder, self._builder.dependencies_sha256
        )
        paths = {
            **report_paths(self.report_folder.path, sets),
            "events": self.events_path,
            **(further or {}),
        }
        final = msgspec.structs.replace(
            result, reports={kind: relative(path, self.root) for kind, path in paths.items()}
        )
        folders = (self.report_folder, self.run_folder)
        await anyio.to_thread.run_sync(write_reports, final, folders, sets)
        return final


def report_paths(folder: Path, sets: Sequence[Fetched] | None = None) -> dict[str, Path]:
    """Where the reports of a run with these sets of dependencies lie in `folder`: kind -> path."""
    files = FILES if sets is None else {**FILES, **SBOM}
    return {kind: folder / name for kind, name in files.items()}


def read_sets(folder: Folder, sha256: str) -> tuple[Fetched, ...] | None:
    """The sets of dependencies of a run with this folder.

    `sha256` is the digest of their record, from the run's events.
    None where the run has no record, or where it is not as the run wrote it.
    """
    if not sha256:
        return None
    # Most runs have no dependencies.
    from cleanroom.evidence.reports.sbom import read_record

    try:
        with folder.reading(RECORD) as stream:
            return read_record(stream.read(RECORD_BYTES), sha256)
    except OSError:
        return None


def write_reports(
    result: RunResult, folders: Iterable[Folder], sets: Sequence[Fetched] | None = None
) -> None:
    """Every report into each of the folders; the bill of materials where there are sets.

    Raises:
        ArtifactError: one of them cannot be written.
    """
    rendered = render(result, sets)
    for folder in folders:
        for name, data in rendered.items():
            write_atomic(folder, name, data)
        for name in set(SBOM.values()) - set(rendered):
            # An earlier run's would stand beside this one's reports.
            with suppress(OSError):
                os.unlink(name, dir_fd=folder.descriptor)
