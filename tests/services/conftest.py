"""One template cache for all tests of this room: preparing a PostgreSQL takes half a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from cleanroom.services.templates import TemplateCache


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> TemplateCache:
    return TemplateCache(tmp_path_factory.mktemp("templates"))


@pytest.fixture
def cache(tmp_path: Path) -> TemplateCache:
    return TemplateCache(tmp_path / "cache")
