"""The account of one run: how many resources were made and removed, and which are left."""

from __future__ import annotations

from cleanroom.backends.base import Leftover


class Ledger:
    """Counts resources; lists those that could not be removed."""

    def __init__(self) -> None:
        self.created = 0
        self.removed = 0
        self._left: list[Leftover] = []

    def report_left(self, *left: Leftover) -> None:
        """Add what could not be removed."""
        self._left += left

    def withdraw(self, name: str) -> None:
        """Drop what was reported under this name, before removal is tried again."""
        self._left = [left for left in self._left if left.name != name]

    def totals(self) -> tuple[int, int, tuple[Leftover, ...]]:
        """Numbers of created and of removed resources, and what is left."""
        return self.created, self.removed, tuple(self._left)
