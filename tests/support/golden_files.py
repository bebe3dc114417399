"""Comparison with files under `tests/golden/`; `GOLDEN=write` writes them instead,
for a person to read the difference.
"""

from __future__ import annotations

import os

from support.paths import TESTS

FOLDER = TESTS / "golden"


def golden(name: str, data: bytes) -> bytes:
    """The golden bytes to compare `data` with."""
    path = FOLDER / name
    if os.environ.get("GOLDEN") == "write":
        path.write_bytes(data)
    return path.read_bytes()
