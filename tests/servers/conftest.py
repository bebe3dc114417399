"""For tests of servers without a project."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def caller(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A cache that these tests share: preparing a PostgreSQL takes half a second."""
    return {"PATH": os.environ["PATH"], "CLEANROOM_CACHE": str(tmp_path_factory.mktemp("cache"))}
