"""Peers that the benchmark of containers measures beside the product:
`make peers` (`python scripts/peers.py`) says where they are, and makes those that are not.

Docker Compose v2 is `docker-compose` on PATH, else docker-compose-VERSION.xz in the folder
CLEANROOM_TOOLS, else it is built from its Go module (3 to 6 minutes on two processors,
once per user). testcontainers-python gets a virtual environment of its own,
so it is no dependency of anything here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import tools

MODULE, VERSION = "github.com/docker/compose/v2", "2.40.3"
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements" / "peers.txt"


def compose() -> Path | None:
    """Docker Compose, where it is there."""
    return tools.find("docker-compose")


def testcontainers() -> Path | None:
    """The interpreter that has testcontainers-python, where it was made."""
    python = tools.folder() / "testcontainers" / "bin" / "python"
    return python if python.exists() else None


def build_compose() -> Path:
    """Build it inside its downloaded module: its replace directives keep `go install` from it."""
    if not shutil.which("go"):
        sys.exit(
            "Docker Compose needs Go to be built; or put `docker-compose` (v2) on PATH or "
            "into CLEANROOM_TOOLS"
        )
    print("building Docker Compose from its Go module, which takes some minutes", file=sys.stderr)
    told = subprocess.run(
        ["go", "mod", "download", "-json", f"{MODULE}@v{VERSION}"],
        check=True,
        capture_output=True,
        cwd="/",
    )
    folder = json.loads(told.stdout)["Dir"]
    kept = tools.folder() / f"docker-compose-{VERSION}"
    flags = f"-s -w -X {MODULE}/internal.Version=v{VERSION}"
    environment = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(
        ["go", "build", "-trimpath", "-ldflags", flags, "-o", kept, "./cmd"],
        check=True,
        cwd=folder,
        env=environment,
    )
    return kept


def build_testcontainers() -> Path:
    """Make its virtual environment, with what requirements/peers.txt pins;
    half of one is made again.
    """
    folder = tools.folder() / "testcontainers"
    making = folder.with_name(f"{folder.name}.{os.getpid()}")
    venv.create(making, with_pip=True, symlinks=True)
    install = [
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--require-hashes",
        "--only-binary",
        ":all:",
    ]
    try:
        subprocess.run([making / "bin" / "python", *install, "-r", REQUIREMENTS], check=True)
        # its interpreter is a link and its packages are found beside it, so it may be moved
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder / "bin" / "python"


if __name__ == "__main__":
    print(compose() or build_compose())
    print(testcontainers() or build_testcontainers())
