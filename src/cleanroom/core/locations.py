"""Folders of the user in which the engine keeps files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(caller: Mapping[str, str]) -> Path:
    """The user's folder for caches: CLEANROOM_CACHE, else the platform's."""
    if given := caller.get("CLEANROOM_CACHE"):
        return Path(os.path.abspath(given))  # noqa: PTH100 -- links stay as they are said
    from platformdirs import user_cache_path

    return user_cache_path("cleanroom-engine", appauthor=False)
