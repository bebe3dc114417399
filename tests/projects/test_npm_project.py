"""A project of a stranger that uses npm: its phases pass without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.node_projects import MARKS, SOURCES, lifecycle, passes
from support.strangers import Stranger

pytestmark = MARKS

MANIFEST = {
    "name": "p",
    "version": "1.0.0",
    "type": "module",
    "scripts": {"build": "tsc -p . && npx esbuild dist/index.js --outfile=dist/small.js --minify"},
    "dependencies": {"nanoid": "^5"},
    "devDependencies": {"typescript": "~5.9.3", "esbuild": "~0.25.0"},
}


@pytest.mark.parametrize("install", ["npm ci", "npm install"])
def test_a_package_passes(tmp_path: Path, cache: Path, install: str):
    """esbuild's own install script runs in the phase, and not in the fetch."""
    stranger = Stranger(
        tmp_path,
        {
            **SOURCES,
            "package.json": json.dumps(MANIFEST),
            "make.toml": lifecycle(install, "npm run build", "node --test test/id.test.js"),
        },
        cache,
    )
    stranger.prepare("npm install --package-lock-only --ignore-scripts --silent")
    passes(stranger)
