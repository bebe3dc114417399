"""The key of a TOML text that stands twice, which `tomllib` refuses and of which it tells one
place at most.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from cleanroom.project.positions import KeyPath, Positions, TooDeep

# dotted: a table that keys with dots in them have made
_Kind = Literal["value", "table", "dotted"]


class Repeated(NamedTuple):
    """The key, and line and column of both places."""

    path: KeyPath
    first: tuple[int, int]
    second: tuple[int, int]


def repeated_key(text: str) -> Repeated | None:
    """The first key or table that stands a second time; None where none does."""
    try:
        return _Declarations(text).repeated
    except TooDeep:
        return None


class _Declarations(Positions):
    """Notes where each key and table was declared."""

    def __init__(self, text: str) -> None:
        self.repeated: Repeated | None = None
        self._declared: dict[KeyPath, tuple[int, _Kind]] = {}
        super().__init__(text)

    def _header(self, at: int) -> tuple[KeyPath, int]:
        path, end = super()._header(at)
        for length in range(1, len(path)):
            self._refuse(path[:length], at, ("value",))
        self._declare(path, at, "table")
        return path, end

    def _pair(self, base: KeyPath, at: int, depth: int) -> int:
        parts, _ = self._dotted(at)
        path = base
        for part, _ in parts[:-1]:
            path = (*path, part)
            self._refuse(path, at, ("value", "table"))
            self._declared.setdefault(path, (at, "dotted"))
        self._declare((*path, parts[-1][0]), at, "value")
        return super()._pair(base, at, depth)

    def _declare(self, path: KeyPath, at: int, kind: _Kind) -> None:
        self._refuse(path, at, ("value", "table", "dotted"))
        self._declared.setdefault(path, (at, kind))

    def _refuse(self, path: KeyPath, at: int, kinds: tuple[_Kind, ...]) -> None:
        first, kind = self._declared.get(path, (0, ""))
        if kind in kinds and self.repeated is None:
            self.repeated = Repeated(path, self.place(first), self.place(at))
