"""Entries of the phase cache on disk.

    cache/PHASE/KEY.json      what the phase's result depended on, its outputs, and the run

Everything blocks.
"""

from __future__ import annotations

import os

import msgspec

from cleanroom.core import disk
from cleanroom.core.beneath import Folder
from cleanroom.core.files import safe_name, write_atomic
from cleanroom.engine.own_folder import CACHE
from cleanroom.engine.phase_cache.key_parts import PlannedPhase
from cleanroom.engine.phase_cache.keys import Entry

ENTRIES_MAX = 8  # per phase: a few branches that somebody goes to and fro between
ENTRY_BYTES_MAX = 64 << 20


class Entries:
    """The entries of one project. One that is torn or another phase's is as one that is missing."""

    def __init__(self, root: Folder) -> None:
        """`root` is the project's folder."""
        self._root = root

    def read(self, planned: PlannedPhase, key: str) -> Entry | None:
        """The phase's entry with this key."""
        entry = self._read(planned, f"{_folder_of(planned)}/{key}.json")
        return entry if entry is not None and entry.key == key else None

    def newest(self, planned: PlannedPhase) -> Entry | None:
        """The phase's newest entry, whatever its key."""
        place = _folder_of(planned)
        try:
            with self._root.folder(place) as folder:
                names = _newest_first(folder)
        except OSError:
            return None
        found = (self._read(planned, f"{place}/{name}") for name in names)
        return next((entry for entry in found if entry), None)

    def write(self, planned: PlannedPhase, key: str, entry: Entry) -> None:
        """Write an entry; the phase's oldest ones beyond `ENTRIES_MAX` are removed.

        Raises:
            ArtifactError, ProjectError, OSError: it cannot be written.
        """
        with self._root.folder(_folder_of(planned), make=True) as folder:
            write_atomic(folder, f"{key}.json", msgspec.json.encode(entry))
            for old in _newest_first(folder)[ENTRIES_MAX:]:
                disk.here.remove(folder, old)

    def _read(self, planned: PlannedPhase, file: str) -> Entry | None:
        try:
            with self._root.reading(file) as stream:
                entry = msgspec.json.decode(stream.read(ENTRY_BYTES_MAX), type=Entry)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            return None
        names = (planned.phase.name, planned.workspace.name)
        return entry if (entry.phase, entry.workspace) == names else None


def _folder_of(planned: PlannedPhase) -> str:
    workspace, phase = planned
    name = f"{workspace.name}/{phase.name}" if workspace.name else phase.name
    return f"{CACHE}/{safe_name(name)}"


def _newest_first(folder: Folder) -> list[str]:
    """Names of the entries.

    Raises:
        OSError: the folder cannot be read.
    """
    times = {
        name: os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False).st_mtime_ns
        for name in folder.names()
        if name.endswith(".json")
    }
    return sorted(times, key=lambda name: (times[name], name), reverse=True)
