"""The names of a project's files, without folders that hold other people's or built ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_BUILT = ("target", "dist", "build", "out", "__pycache__")
_INSTALLED = ("node_modules", "vendor", "venv", "env", "site-packages", "third_party")
SKIPPED = frozenset((*_BUILT, *_INSTALLED))
_FILES_MAX = 5000  # what a project is shows in fewer
_DEPTH_MAX = 4


def files_below(root: Path) -> Iterator[str]:
    """Paths relative to `root`, sorted in each folder; links to folders are not followed."""
    count = 0
    for folder, folders, files in os.walk(root):
        relative = os.path.relpath(folder, root)
        depth = 0 if relative == "." else relative.count(os.sep) + 1
        kept = [name for name in folders if name not in SKIPPED and not name.startswith(".")]
        folders[:] = sorted(kept) if depth < _DEPTH_MAX else []
        for name in sorted(files):
            count += 1
            if count > _FILES_MAX:
                return
            yield name if relative == "." else f"{relative}/{name}"
