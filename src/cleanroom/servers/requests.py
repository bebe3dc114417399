"""What both kinds of servers ask of their callers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cleanroom.core.arguments import PATH, TEXT, TEXTS, VARIABLES, Expected, check, optional

EXEC_SECONDS = 60.0
ARGV = Expected(
    "a list of texts, the program first", lambda value: TEXTS.holds(value) and len(value) > 0
)


class Place(NamedTuple):
    """Where a server is started, and for whom."""

    folder: str | Path | None
    caller: Mapping[str, str]


def place(called: str, version: Any, folder: Any, caller: Any) -> Place:
    """The arguments that every kind of server has, checked.

    Raises:
        UsageError: one is not what it has to be.
    """
    check(f"{called}: version", version, TEXT)
    check(f"{called}: folder", folder, optional(PATH))
    check(f"{called}: caller", caller, optional(VARIABLES))
    return Place(folder, dict(os.environ) if caller is None else caller)
