"""Real programs for tests: there, or the test is skipped with the reason,
or fails where CLEANROOM_REQUIRE says that it has to be there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tools


def real_tool(name: str) -> Path:
    """The program, from PATH or the folder that CLEANROOM_TOOLS names."""
    found = tools.find(name)
    if found is None:
        require_or_skip(name, f"no {name} on PATH, and none in CLEANROOM_TOOLS")
    assert found is not None
    return found


def require_or_skip(name: str, reason: str) -> None:
    """Skip, or fail where CLEANROOM_REQUIRE (names with commas between) has `name`."""
    if name in os.environ.get("CLEANROOM_REQUIRE", "").split(","):
        pytest.fail(f"required, and not there: {reason}")
    pytest.skip(reason)
