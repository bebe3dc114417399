"""Keys of a file that do nothing, here as in ggen."""

from __future__ import annotations

from cleanroom.model.plan import Ignored
from cleanroom.project.source import Node, Source, dotted


class IgnoredKeys:
    """Collects the keys of one file that its reader met and that have no effect."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._entries: list[Ignored] = []

    def add(self, node: Node, reason: str = "") -> None:
        """`node`'s key has no effect. `reason` says why, or names a key that has one."""
        line, _ = self._source.positions.key(node.path)
        self._entries.append(Ignored(dotted(node.path), line, reason))

    def by_line(self) -> tuple[Ignored, ...]:
        """All of them, in the order of their lines."""
        return tuple(sorted(self._entries, key=lambda entry: entry.line))
