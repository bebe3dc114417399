"""The limit of core files that every environment has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cleanroom.sandbox.protocol import CanaryResult

    Outcome = Callable[[], list[CanaryResult]]


# A core file of one byte is none, and with it the kernel starts no handler of the host's,
# which it does with 0.
CORE_BYTES = 1
