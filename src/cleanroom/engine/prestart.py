"""What takes long to come up and nearly every run needs,
started before the engine is even imported: the keeper, which looks at the kernel meanwhile.

Imports next to nothing.
The command calls it first of all and hands the engine what it got;
an engine that was handed nothing starts its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from cleanroom.backends.embedded.keeper_process import KeeperProcess, start_early
from cleanroom.core.locations import cache_folder

__all__ = ["KeeperProcess", "keeper"]


def keeper(backend: str | None, caller: Mapping[str, str]) -> KeeperProcess | None:
    """The keeper of a run on `backend` (None: as the project says), starting;
    None where there will be none.

    Whoever gets it lets an engine adopt it, or abandons it.
    """
    return None if caller.get("CLEANROOM_RUN_ID") else start_early(backend, cache_folder(caller))
