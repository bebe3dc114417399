"""The container backends keep the protocol that every backend keeps."""

from __future__ import annotations

import pytest

from cleanroom.backends.containers.client import EngineName
from cleanroom.testing import CHECK_RUN_ID, CHECKS, Check, check_backend
from support.container_harness import ENGINES, IMAGE, backend, require

# a busy machine starts twenty containers in a minute
pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_container_backend_passes(engine: EngineName, check: Check):
    """The suite of all backends holds for containers of this engine."""
    require(engine)
    await check_backend(
        lambda scratch: backend(engine, CHECK_RUN_ID, scratch, scratch.parent / "journal.jsonl"),
        [check],
        image=IMAGE,
    )
