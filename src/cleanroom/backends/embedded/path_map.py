"""Where things really lie for an environment that sees the host's own root:
text that names a path inside, led to the path that stands for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_BEFORE, _AFTER = r"(?<![\w./-])", r"(?![\w.-])"  # a path and not a part of another one


class PathMap:
    """A set of pairs, path inside and path outside.

    Where one lies in another the inner one counts; paths paired with themselves stay.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._real = {inside.rstrip("/"): real.rstrip("/") for inside, real in pairs}
        longest = sorted(self._real, key=len, reverse=True)
        self._pattern = (
            re.compile(_BEFORE + "(" + "|".join(map(re.escape, longest)) + ")" + _AFTER)
            if longest
            else None
        )

    def text(self, said: str) -> str:
        """`said` with every path inside replaced."""
        if self._pattern is None:
            return said
        return self._pattern.sub(lambda found: self._real[found.group()], said)

    def texts(self, said: Sequence[str]) -> list[str]:
        return [self.text(word) for word in said]

    def values(self, said: Mapping[str, str]) -> dict[str, str]:
        return {name: self.text(value) for name, value in said.items()}
