"""Calls of a scripted backend's operations: counted, delayed and failed as the script says."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel

from cleanroom.backends.memory.script import Script
from cleanroom.model.capability import Sample


class Calls:
    """The operations that were called on one backend, in order, and its script."""

    def __init__(self, script: Script | None, on_call: Callable[[str, int], None]) -> None:
        """`on_call` gets each operation's name, and how many there were with it."""
        self.script = script
        self.operations: list[str] = []
        # commands: the environment's identity, and argv
        self.executed: list[tuple[str, tuple[str, ...]]] = []
        self._on_call = on_call
        self._sampled = 0

    async def call(self, operation: str) -> None:
        """Count a call, and let the script delay or fail it. Every call can be cancelled here."""
        self.operations.append(operation)
        self._on_call(operation, len(self.operations))
        if self.script is not None:
            if operation in self.script.delays:
                await anyio.sleep(self.script.delays[operation])
            for fault in self.script.faults:
                count = self._count(fault.operation, operation)
                if count == fault.nth or (fault.for_good and count > fault.nth):
                    raise fault.error
        await anyio.lowlevel.checkpoint()

    def _count(self, awaited: str, operation: str) -> int:
        """How often a fault's operation was called, this call of `operation` included."""
        if awaited == "*":
            return len(self.operations)
        return self.operations.count(operation) if awaited == operation else 0

    def next_sample(self) -> Sample | None:
        """The script's samples in turn; the last one is repeated."""
        samples = self.script.samples if self.script else ()
        if not samples:
            return None
        self._sampled += 1
        return samples[min(self._sampled, len(samples)) - 1]
