"""Projects of strangers that use pnpm: their phases pass without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.node_projects import MARKS, SOURCES, corepack, installed, lifecycle, passes
from support.strangers import Stranger

pytestmark = MARKS

MANIFEST = {
    "name": "p",
    "version": "1.0.0",
    "type": "module",
    "scripts": {"build": "tsc -p .", "test": "node --test test/*.js"},
    "dependencies": {"nanoid": "^5"},
    "devDependencies": {"typescript": "~5.9.3", "esbuild": "~0.25.0"},
}
MAKE = lifecycle(
    "pnpm install --frozen-lockfile --offline", "pnpm run build", "pnpm install && pnpm test"
)


def locked(root: Path, programs: Path, *further: str, **variables: str) -> None:
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **variables}
    command = ["pnpm", "install", "--ignore-scripts", *(further or ("--lockfile-only",))]
    subprocess.run(command, cwd=root, env=environment, check=True, timeout=180)


@pytest.mark.parametrize("version", ["8", "10", "12"])
def test_a_package_passes(tmp_path: Path, cache: Path, version: str):
    """Locks of version 6 and 9, and the three layouts of pnpm's store, beside a node_modules."""
    programs = installed(tmp_path / "tools", f"pnpm@{version}")
    if version == "12":
        # A program of its own, which the package's script would put in its place.
        (programs / "pnpm").unlink()
        (native,) = (tmp_path / "tools/node_modules/@pnpm").glob("exe.*/pnpm")
        (programs / "pnpm").symlink_to(native)
    files = {**SOURCES, "package.json": json.dumps(MANIFEST), "make.toml": MAKE}
    files["pnpm-workspace.yaml"] = "allowBuilds:\n  esbuild: false\n"
    if version == "8":
        del files["pnpm-workspace.yaml"]
    stranger = Stranger(tmp_path, files, cache)
    stranger.offer_all(programs)
    locked(stranger.root, programs)
    if version != "8":
        # What its authors installed names a store of theirs; pnpm 8 asks, and waits.
        locked(stranger.root, programs, "--force", npm_config_store_dir=str(tmp_path / "theirs"))
    passes(stranger)


@pytest.mark.skipif(shutil.which("corepack") is None, reason="corepack is not installed")
def test_a_workspace_passes_with_the_version_that_it_names(tmp_path: Path, cache: Path):
    """One lock for all packages; corepack finds the named version of pnpm in the store."""
    programs = corepack(tmp_path / "bin", "pnpm")
    library = {"name": "@p/lib", "version": "1.0.0", "dependencies": {"ms": "^2"}}
    app = {"name": "app", "version": "1.0.0", "dependencies": {"@p/lib": "workspace:*"}}
    app["scripts"] = {"test": "node app.js"}
    stranger = Stranger(
        tmp_path,
        {
            "package.json": json.dumps({"name": "p", "packageManager": "pnpm@9.15.8"}),
            "pnpm-workspace.yaml": "packages: ['packages/*']\n",
            "packages/lib/package.json": json.dumps(library),
            "packages/lib/index.js": "module.exports = require('ms');\n",
            "packages/app/package.json": json.dumps(app),
            "packages/app/app.js": "if (require('@p/lib')('1s') !== 1000) process.exit(1);\n",
            "make.toml": lifecycle(
                "pnpm --version > said.txt && pnpm install --frozen-lockfile",
                "true",
                "pnpm -r test",
            ),
            ".gitignore": "node_modules\n",
        },
        cache,
    )
    stranger.offer_all(programs)
    home = str(tmp_path / "corepack")
    locked(stranger.root, programs, COREPACK_HOME=home, COREPACK_INTEGRITY_KEYS="0")
    passes(stranger)
    assert (stranger.root / "said.txt").read_text() == "9.15.8\n"
