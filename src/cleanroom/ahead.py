"""What takes long to come up and nearly every run needs, started before the engine is even imported: the keeper, which looks at the kernel meanwhile.

Imports next to nothing. The command calls it first of all and hands the engine what it got; an engine that was handed nothing starts its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cleanroom.backends.keeper import KeeperProcess, ahead

__all__ = ["KeeperProcess", "cache_folder", "keeper"]


def keeper(backend: str | None, caller: Mapping[str, str]) -> KeeperProcess | None:
    """The keeper of a run on `backend` (None: as the project says), starting; None where there will be none. Whoever gets it lets an engine adopt it, or abandons it."""
    return None if caller.get("CLEANROOM_RUN_ID") else ahead(backend, cache_folder(caller))


def cache_folder(caller: Mapping[str, str]) -> Path:
    """The user's folder for caches: CLEANROOM_CACHE, else the platform's."""
    if given := caller.get("CLEANROOM_CACHE"):
        return Path(os.path.abspath(given))  # noqa: PTH100 -- links stay as they are said
    from platformdirs import user_cache_path

    return user_cache_path("cleanroom-engine", appauthor=False)
