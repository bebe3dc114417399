"""A workspace of the memory backend: files in layers over the project's folder."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path, PurePosixPath

from cleanroom.backends.base import CONFLICTS, Change, Renewed, WorkspaceSpec, WrittenBack
from cleanroom.core.beneath import Folder

# counts, delays or fails the operation of this name
Call = Callable[[str], Awaitable[None]]


class MemoryWorkspace:
    """Layers of files over the project's folder; None in a layer is a deletion."""

    def __init__(self, call: Call, spec: WorkspaceSpec) -> None:
        self._call = call
        self.root = spec.root
        self.unchangeable: tuple[str, ...] = ()
        self.unseen: tuple[str, ...] = ()
        self.upper: dict[str, bytes | None] = {}
        self._lower: dict[str, bytes | None] = {}
        self._began_ns = time.time_ns()
        self._ours: dict[str, int] = {}  # path -> ctime of our last write

    def read(self, path: str) -> bytes | None:
        for layer in (self.upper, self._lower):
            if path in layer:
                return layer[path]
        file = Path(self.root, path)
        return file.read_bytes() if file.is_file() else None

    def fresh_layer(self) -> None:
        """What the next environment does lies above what earlier ones did."""
        self._lower |= self.upper
        self.upper = {}

    async def finish_home(self, keep: bool) -> None:
        """Its homes keep nothing."""

    async def changes(self, tools: Sequence[str] = ()) -> tuple[Change, ...]:
        await self._call("changes")
        return tuple(
            Change(path=path, kind="deleted")
            if data is None
            else Change(path=path, kind="file", bytes=len(data))
            for path, data in sorted(self.upper.items())
        )

    async def write_back(
        self, paths: Sequence[str] | None, run: Folder, conflicts: str = CONFLICTS
    ) -> WrittenBack:
        await self._call("write_back")
        chosen = [
            p
            for p in sorted(self.upper)
            if (
                p in paths
                if paths is not None
                else PurePosixPath(p).parts[0] not in (".git", ".ggen")
            )
        ]
        conflicting = [path for path in chosen if self._changed_on_host(path)]
        files, size, deleted = 0, 0, 0
        for path in chosen:
            data = self.upper[path]
            if path in conflicting:
                if data is not None:
                    _write(run.path / conflicts / path, data)
                continue
            _write(Path(self.root, path), data)
            if data is None:
                deleted += 1
            else:
                files, size = files + 1, size + len(data)
                self._ours[path] = _changed_ns(Path(self.root, path))
        unremoved = tuple(path for path in conflicting if self.upper[path] is None)
        return WrittenBack(
            files=files,
            bytes=size,
            deleted=deleted,
            conflicts=tuple(conflicting),
            unkept=unremoved,
            unremoved=unremoved,
        )

    def add_own_interval(self, began_ns: int, ended_ns: int) -> None:
        self._began_ns = ended_ns

    async def renew(self, since_ns: int) -> Renewed:
        await self._call("renew")
        self.upper = {}
        self._began_ns = time.time_ns()
        return Renewed(possible=True)

    async def save_changes(self, run: Folder, inside: str) -> None:
        await self._call("save_changes")
        for path, data in self.upper.items():
            if data is not None:
                _write(run.path / inside / path, data)

    def _changed_on_host(self, path: str) -> bool:
        file = Path(self.root, path)
        if not file.exists():
            return False
        changed = _changed_ns(file)
        return changed > self._began_ns and changed != self._ours.get(path)


def _changed_ns(file: Path) -> int:
    return file.lstat().st_ctime_ns


def _write(file: Path, data: bytes | None) -> None:
    if data is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
