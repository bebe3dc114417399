"""A project, layers above it, and what brings them back: what tests of layers share."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from cleanroom.core.beneath import Folder
from cleanroom.sandbox.filesystem import changes, layers
from cleanroom.sandbox.filesystem.write_back import Outcome, ProjectWriter

LONG_AGO = 0
LATER = 2**62  # later than any change on the host, so that nothing conflicts


class LayeredProject:
    """`project` is below `base`, whose folder `conflicts` takes what is set aside."""

    def __init__(self, base: Path, began_ns: int = LATER) -> None:
        self.base, self.project = base, base / "project"
        self.project.mkdir(exist_ok=True)
        self.held = Folder.at(self.project)
        self.writer = ProjectWriter(self.held, began_ns)
        self._layers = 0

    def begin(self) -> None:
        """A run begins now: after all that is in the project, and before all that comes."""
        there = [self.project, *self.project.rglob("*")]
        began_ns = max(path.lstat().st_ctime_ns for path in there)
        self.writer = ProjectWriter(self.held, began_ns)
        probe = self.base / "probe"
        probe.touch()
        # The kernel's clock for changes goes in ticks.
        while probe.stat().st_ctime_ns <= began_ns:
            probe.chmod(0o600)

    def layer(self) -> Path:
        """The upper folder of a new one."""
        self._layers += 1
        layers.make(self.base / f"layer-{self._layers}", self.project)
        return self.base / f"layer-{self._layers}/upper"

    def changes(self, upper: Path, visible: Collection[str] = ()) -> list[changes.Entry]:
        with Folder.at(upper) as layer:
            return changes.find_changes(layer, self.held, tuple(visible))

    def write_back(self, upper: Path, only: Collection[str] | None = None) -> Outcome:
        """All changes of a layer, or those of some paths."""
        found = [e for e in self.changes(upper) if only is None or e.path in only]
        with Folder.at(upper) as layer, Folder.at(self.base) as run:
            return self.writer.apply(layer, found, run)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Each path with type, mode, and content, target or the names of the same file."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[tuple[int, int], list[str]] = {}
    for where, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(where, name)
            inside, info = str(path.relative_to(root)), path.lstat()
            kind = stat.S_IFMT(info.st_mode)
            if stat.S_ISLNK(kind):
                found[inside] = (kind, os.readlink(path))
            elif stat.S_ISREG(kind):
                same = names.setdefault((info.st_dev, info.st_ino), [])
                same.append(inside)
                found[inside] = (kind, stat.S_IMODE(info.st_mode), path.read_bytes(), same)
            else:
                found[inside] = (kind, stat.S_IMODE(info.st_mode))
    for same in names.values():
        same.sort()
    return found


def open_up(root: Path) -> None:
    """Let whoever cleans up after a test into each folder."""
    for where, folders, _ in os.walk(root):
        for name in folders:
            if not (path := Path(where, name)).is_symlink():
                path.chmod(0o700)
