"""Starting the keeper before the engine is imported: it probes the kernel meanwhile.

This module imports next to nothing.
The command calls it first of all and passes the keeper to the engine; an engine without one starts
its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from cleanroom.backends.embedded.keeper_process import KeeperProcess, start_early
from cleanroom.core.locations import cache_folder

__all__ = ["KeeperProcess", "keeper"]


def keeper(backend: str | None, caller: Mapping[str, str]) -> KeeperProcess | None:
    """Start the keeper of a run on `backend` (None: as the project says).

    None if the run needs no keeper.
    Pass the result to `Engine.adopt`, or call its `abandon`.
    """
    return None if caller.get("CLEANROOM_RUN_ID") else start_early(backend, cache_folder(caller))
