"""Real programs that tests and `make` targets run beside the product, where they are there."""

from __future__ import annotations

import lzma
import os
import shutil
import tempfile
from pathlib import Path


def find(name: str) -> Path | None:
    """On PATH, else NAME-VERSION.xz in the folder that CLEANROOM_TOOLS names,
    unpacked once per user, else built or unpacked before.
    """
    if on_path := shutil.which(name):
        return Path(on_path)
    if packed := sorted(
        Path(os.environ.get("CLEANROOM_TOOLS", "/nonexistent")).glob(f"{name}-[0-9]*.xz")
    ):
        program = folder() / packed[-1].stem
        return program if program.exists() else _unpacked(packed[-1])
    kept = sorted(folder().glob(f"{name}-[0-9]*"))
    return kept[-1] if kept else None


def folder() -> Path:
    """Where programs are kept that were built or unpacked."""
    found = Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cleanroom-engine", "tools"
    )
    found.mkdir(parents=True, exist_ok=True)
    return found


def _unpacked(packed: Path) -> Path:
    program = folder() / packed.stem
    with (
        lzma.open(packed) as source,
        tempfile.NamedTemporaryFile(dir=folder(), prefix=".", delete=False) as target,
    ):
        shutil.copyfileobj(source, target)
    Path(target.name).chmod(0o755)
    return Path(target.name).rename(program)  # two processes may do it at once: either is whole
