"""The embedded backend keeps the protocol that every backend keeps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cleanroom.backends.embedded.backend import EmbeddedBackend
from cleanroom.model.capability import unmet
from cleanroom.model.policy import Level
from cleanroom.testing import CHECK_RUN_ID, CHECKS, Check, check_backend
from support.open_folders import journal_at

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_embedded_backend_passes(check: Check, tmp_path: Path):
    """The suite of all backends holds for real environments."""
    async with EmbeddedBackend(
        CHECK_RUN_ID, tmp_path / "probe", journal_at(tmp_path / "probe.jsonl")
    ) as backend:
        if lacking := unmet(await backend.probe(Level.MEDIUM), Level.MEDIUM):
            pytest.skip(f"this machine cannot hold Medium: {lacking[0].rule}: {lacking[0].why}")
    await check_backend(
        lambda scratch: EmbeddedBackend(
            CHECK_RUN_ID, scratch, journal_at(scratch.parent / "journal.jsonl")
        ),
        [check],
    )
