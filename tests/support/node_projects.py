"""Projects of strangers that use Node.js, and the tools for them, from npm's registry."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.strangers import Stranger

MARKS = [
    pytest.mark.sandbox,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]
TSCONFIG = """{"compilerOptions": {"target": "es2022", "module": "nodenext", "outDir": "dist",
  "strict": true, "skipLibCheck": true, "types": []}, "include": ["src"]}
"""
# What a package with TypeScript has beside its package.json.
SOURCES = {
    "tsconfig.json": TSCONFIG,
    "src/index.ts": "import { nanoid } from 'nanoid';\n"
    "export const id = (): string => nanoid(8);\n",
    "test/id.test.js": "import test from 'node:test';\nimport assert from 'node:assert';\n"
    "import { id } from '../dist/index.js';\ntest('id', () => assert.equal(id().length, 8));\n",
    ".gitignore": "node_modules\ndist\n",
}


def lifecycle(init: str, build: str, test: str) -> str:
    """A make.toml as its authors would write it."""
    commands = {"init": init, "build": build, "test": test}
    phases = (f'[lifecycle.{name}]\ncommand = "{text}"\n' for name, text in commands.items())
    return '[project]\nname = "p"\n' + "".join(phases)


def installed(folder: Path, *packages: str) -> Path:
    """The folder of programs of packages from npm's registry."""
    words = ["npm", "install", "--silent", "--no-audit", "--ignore-scripts", "--prefix"]
    subprocess.run([*words, str(folder), *packages], check=True, timeout=300)
    return folder / "node_modules/.bin"


def corepack(folder: Path, program: str) -> Path:
    """The folder of the program that corepack puts in the place of a package manager."""
    folder.mkdir()
    command = ["corepack", "enable", "--install-directory", str(folder), program]
    subprocess.run(command, check=True, timeout=60)
    return folder


def passes(stranger: Stranger) -> None:
    """It passes, with every package installed anew each time, and nothing was missing."""
    # No cache of the caller's own tools, nor versions that corepack has.
    stranger.caller["HOME"] = str(stranger.root.parent / "home")
    for ran in stranger.passes(("init", "build", "test"), anew=("node_modules",)):
        assert "CR-FETCH" not in ran.err
