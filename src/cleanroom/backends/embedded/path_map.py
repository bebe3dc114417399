"""Maps paths inside to host paths, for an environment that sees the host's own root.

Without mounts, `/tmp` inside is another folder of the host.
Arguments, variables and configuration files that name a path inside get the host path instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

# a whole path, not a part of a longer one
_BEFORE, _AFTER = r"(?<![\w./-])", r"(?![\w.-])"


class PathMap:
    """Pairs of a path inside and its host path.

    Of nested paths the longest counts.
    A path that is paired with itself is not changed.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._host_paths = {inside.rstrip("/"): real.rstrip("/") for inside, real in pairs}
        longest_first = sorted(self._host_paths, key=len, reverse=True)
        self._pattern: re.Pattern[str] | None = None
        if longest_first:
            either = "|".join(map(re.escape, longest_first))
            self._pattern = re.compile(f"{_BEFORE}({either}){_AFTER}")

    def translate(self, text: str) -> str:
        """`text` with the host path in place of every path inside."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._host_paths[match.group()], text)

    def translate_all(self, texts: Sequence[str]) -> list[str]:
        """Each of `texts`, translated."""
        return [self.translate(text) for text in texts]

    def translate_values(self, texts: Mapping[str, str]) -> dict[str, str]:
        """The same names, with translated values."""
        return {name: self.translate(text) for name, text in texts.items()}
