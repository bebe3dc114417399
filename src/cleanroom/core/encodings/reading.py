"""A text with parts replaced, and the positions in the source of what is found in it. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from functools import cached_property

from cleanroom.core.encodings.needles import Span

Replacement = Callable[[re.Match[bytes]], bytes]


class Reading:
    """`data` is a text with every match of an expression replaced."""

    def __init__(self, source: bytes, pattern: re.Pattern[bytes], replace: Replacement) -> None:
        self._source, self._pattern, self._replace = source, pattern, replace
        self.data = pattern.sub(replace, source)

    def source_span(self, span: Span) -> Span:
        """The span in the source that a span of `data` came from."""
        return self.source_start(span[0]), self._source_end(span[1])

    def source_start(self, at: int) -> int:
        """The position in the source of the byte at `at` in `data`."""
        starts, origins = self._places
        piece = bisect_right(starts, at) - 1
        return origins[piece] if piece % 2 else origins[piece] + at - starts[piece]

    def _source_end(self, at: int) -> int:
        starts, origins = self._places
        piece = bisect_right(starts, at - 1) - 1
        return origins[piece + 1] if piece % 2 else origins[piece] + at - starts[piece]

    @cached_property
    def _places(self) -> tuple[list[int], list[int]]:
        """The starts of pieces in `data` and in the source: in turn one kept, one replaced."""
        starts, origins, done = [0], [0], 0
        for match in self._pattern.finditer(self._source):
            starts.append(starts[-1] + match.start() - done)
            origins.append(match.start())
            starts.append(starts[-1] + len(self._replace(match)))
            origins.append(match.end())
            done = match.end()
        return starts, origins


def removed(match: re.Match[bytes]) -> bytes:
    """The replacement that removes every match."""
    return b""


def last_run(text: bytes, characters: bytes) -> int:
    """The start of the run of these characters at the end of `text`."""
    return len(text.rstrip(characters))
