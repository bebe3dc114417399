"""Declared outputs: paths, or patterns, relative to the workspace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

_GLOB = re.compile(r"[*?\[]")

# components of a path
Parts = tuple[str, ...]


class Outputs:
    """The outputs of one phase."""

    def __init__(self, declared: Sequence[str] | None) -> None:
        texts = [str(PurePosixPath(output)) for output in declared or ()]
        self._all = "." in texts
        self._literal = {tuple(text.split("/")) for text in texts if text != "."}
        self._patterns = [text for text in texts if _GLOB.search(text)]

    def cover(self, parts: Parts) -> bool:
        """Whether the path is an output, or below one.

        An output with characters of a pattern covers the path of that spelling too.
        """
        if self._all or self.name(parts, 1):
            return True
        if not self._patterns:
            return False
        prefixes = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
        return any(fnmatchcase(path, pattern) for pattern in self._patterns for path in prefixes)

    def name(self, parts: Parts, depth: int) -> bool:
        """Whether an output spells the path's first `depth` components, or more of them."""
        return any(parts[:length] in self._literal for length in range(depth, len(parts) + 1))
