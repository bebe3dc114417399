"""Projects of strangers that use yarn: their phases pass without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.node_projects import MARKS, SOURCES, corepack, installed, lifecycle, passes
from support.strangers import Stranger

pytestmark = MARKS

MANIFEST: dict[str, Any] = {
    "name": "p",
    "version": "1.0.0",
    "type": "module",
    "scripts": {"build": "tsc -p .", "test": "node --test test/id.test.js"},
    "dependencies": {"nanoid": "^5"},
    "devDependencies": {"typescript": "~5.9.3", "esbuild": "~0.25.0"},
}
MAKE = lifecycle("yarn install --immutable", "yarn build", "yarn test")
IGNORED = "node_modules\ndist\n.yarn/*\n!.yarn/releases\n.pnp.*\n"


def locked(root: Path, yarn: Path) -> None:
    """The lock as yarn writes it for a project of these files."""
    (root / "yarn.lock").touch()
    variables = {**os.environ, "YARN_ENABLE_TELEMETRY": "0", "YARN_IGNORE_PATH": "1"}
    # Its own default is another name of npm's.
    variables["YARN_NPM_REGISTRY_SERVER"] = "https://registry.npmjs.org"
    variables["YARN_ENABLE_GLOBAL_CACHE"] = "1"
    command = ["node", str(yarn), "install", "--mode=update-lockfile"]
    subprocess.run(command, cwd=root, env=variables, check=True, timeout=300)
    (root / ".yarn/install-state.gz").unlink(missing_ok=True)


@pytest.mark.skipif(shutil.which("corepack") is None, reason="corepack is not installed")
@pytest.mark.parametrize("linker", ["node-modules", "pnp"])
def test_a_package_passes_with_the_version_that_it_names(tmp_path: Path, cache: Path, linker: str):
    """corepack finds it in the store; with the patch that yarn brings for typescript."""
    programs = corepack(tmp_path / "bin", "yarn")
    tools = installed(tmp_path / "tools", "@yarnpkg/cli-dist@4.17.1")
    stranger = Stranger(
        tmp_path,
        {
            **SOURCES,
            "package.json": json.dumps({**MANIFEST, "packageManager": "yarn@4.17.1"}),
            ".yarnrc.yml": f"nodeLinker: {linker}\n",
            ".gitignore": IGNORED,
            "make.toml": MAKE,
        },
        cache,
    )
    stranger.offer_all(programs)
    locked(stranger.root, tools / "yarn")
    passes(stranger)


def test_a_workspace_passes_with_the_yarn_in_its_repository(tmp_path: Path, cache: Path):
    """yarn 3 in `.yarn/releases` runs in the phases; the fetch has it from the registry."""
    tools = installed(tmp_path / "tools", "@yarnpkg/cli-dist@3", "yarn@npm:yarn@1")
    package = tmp_path / "tools/node_modules/@yarnpkg/cli-dist"
    version = json.loads((package / "package.json").read_text())["version"]
    release = f".yarn/releases/yarn-{version}.cjs"
    library = {"name": "@p/lib", "version": "1.0.0", "dependencies": {"ms": "^2"}}
    app = {"name": "app", "dependencies": {"@p/lib": "workspace:*"}}
    stranger = Stranger(
        tmp_path,
        {
            "package.json": json.dumps(
                {"name": "p", "private": True, "workspaces": ["packages/*"]}
            ),
            ".yarnrc.yml": f"nodeLinker: node-modules\nyarnPath: {release}\n",
            ".gitignore": IGNORED,
            "packages/lib/package.json": json.dumps(library),
            "packages/lib/index.js": "module.exports = require('ms');\n",
            "packages/app/package.json": json.dumps(app),
            "packages/app/app.js": "if (require('@p/lib')('1s') !== 1000) process.exit(1);\n",
            "make.toml": lifecycle(
                "yarn --version > said.txt && yarn install --immutable",
                "true",
                "yarn workspace app node app.js",
            ),
        },
        cache,
    )
    (stranger.root / release).parent.mkdir(parents=True)
    shutil.copyfile(package / "bin/yarn.js", stranger.root / release)
    locked(stranger.root, package / "bin/yarn.js")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "yarn").symlink_to(tmp_path / "tools/node_modules/yarn/bin/yarn.js")
    assert tools.is_dir()
    stranger.offer_all(programs)
    passes(stranger)
    assert (stranger.root / "said.txt").read_text() == f"{version}\n"


def test_a_package_of_yarn_1_passes(tmp_path: Path, cache: Path):
    """From a folder of packages, as they came from the registry."""
    programs = installed(tmp_path / "tools", "yarn@1")
    stranger = Stranger(
        tmp_path,
        {
            **SOURCES,
            "package.json": json.dumps(MANIFEST),
            "make.toml": lifecycle(
                "yarn install --frozen-lockfile", "yarn build", "yarn install && yarn test"
            ),
        },
        cache,
    )
    words = ["install", "--ignore-scripts", "--registry", "https://registry.npmjs.org"]
    command = [str(programs / "yarn"), *words, "--cache-folder", str(tmp_path / "theirs")]
    subprocess.run(command, cwd=stranger.root, check=True, timeout=300)
    stranger.remove("node_modules")
    stranger.offer_all(programs)
    passes(stranger)
