"""For the tests of strangers' projects."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine's cache folder, for all projects of a process.

    Go's standard library is compiled once for all of them, and servers are prepared once.
    """
    return tmp_path_factory.mktemp("cache")
