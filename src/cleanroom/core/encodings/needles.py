"""A search for many words in a text. Pure."""

from __future__ import annotations

from collections.abc import Iterable

SHORTEST = 4  # a shorter value would take ordinary words and numbers out of every text
Span = tuple[int, int]


class Needles:
    """Words to search for."""

    def __init__(self) -> None:
        self._words: dict[bytes, None] = {}
        self._firsts: set[int] = set()
        # Two bytes -> the words in which they stand before the last.
        self._by_pair: dict[bytes, list[bytes]] = {}

    def add(self, words: Iterable[bytes]) -> None:
        """Search for these words too."""
        for word in words:
            if word not in self._words:
                self._words[word] = None
                self._firsts.add(word[0])
                for pair in {word[at : at + 2] for at in range(len(word) - 2)}:
                    self._by_pair.setdefault(pair, []).append(word)

    def among(self, text: bytes) -> bool:
        """Whether a word stands in `text`."""
        return any(word in text for word in self._words)

    def spans(self, text: bytes) -> list[Span]:
        """The spans of all words in `text`, overlapping ones too."""
        found = []
        for word in self._words:
            at = text.find(word)
            while at >= 0:
                found.append((at, at + len(word)))
                at = text.find(word, at + 1)
        return found

    def open_end(self, text: bytes) -> int:
        """The first position from which the rest of `text` is the beginning of a longer word.

        The length of `text` if there is none.
        """
        size = len(text)
        first = size - 1 if text and text[-1] in self._firsts else size
        for word in self._by_pair.get(text[-2:], ()):
            at = text.find(word[:2], max(0, size - len(word) + 1))
            while 0 <= at < first:
                if word.startswith(text[at:]):
                    first = at
                at = text.find(word[:2], at + 1)
        return first
