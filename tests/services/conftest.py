"""One template cache for all tests of this room: preparing a PostgreSQL takes half a second."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cleanroom.services.templates import TemplateCache

# In a plain test looptime asks for the thread's event loop,
# which on Python 3.11 makes one that nobody closes; the warning then fails whatever
# test the garbage collector runs in. With the loop set to none it is not made.
asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> TemplateCache:
    return TemplateCache(tmp_path_factory.mktemp("templates"))


@pytest.fixture
def cache(tmp_path: Path) -> TemplateCache:
    return TemplateCache(tmp_path / "cache")
