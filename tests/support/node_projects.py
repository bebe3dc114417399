"""Projects of strangers that use Node.js, and the tools for them, from npm's registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


def write(root: Path, files: dict[str, str]) -> Path:
    """The project."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def passes_twice(root: Path, cache: Path, programs: Path | None = None, home: str = "") -> str:
    """From an empty store, and offline; its files stay as they were. Returns what was said."""
    before = {
        path: path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "node_modules" not in path.parts
    }
    path = os.environ["PATH"] if programs is None else f"{programs}:{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "CLEANROOM_CACHE": str(cache)}
    if home:
        variables["HOME"] = home
    said = ""
    for further in ((), ("--offline",)):
        command = [sys.executable, "-m", "cleanroom", "pipeline", "init", "build", "test"]
        done = subprocess.run(
            [*command, *further],
            cwd=root,
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        said += done.stdout + done.stderr
        assert done.returncode == 0, said
        assert "CR-FETCH" not in said
        # Installed anew the second time too.
        shutil.rmtree(root / "node_modules", ignore_errors=True)
    assert [path for path, content in before.items() if path.read_bytes() != content] == []
    return said
