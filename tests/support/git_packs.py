"""Packs of git's with anything in them."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

from cleanroom.dependencies.git_packs import BLOB, COMMIT, TREE

WORDS = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob"}


class Writer:
    """Writes a pack, whatever stands in it."""

    def __init__(self) -> None:
        self.count, self.body = 0, b""

    def add(self, kind: int, data: bytes) -> bytes:
        size, header = len(data) >> 4, [kind << 4 | len(data) & 15]
        while size:
            header[-1] |= 0x80
            header.append(size & 0x7F)
            size >>= 7
        self.body += bytes(header) + zlib.compress(data)
        self.count += 1
        return hashlib.sha1(WORDS.get(kind, b"x") + b" %d\0" % len(data) + data).digest()

    def tree(self, *entries: tuple[bytes, bytes, bytes]) -> bytes:
        return self.add(TREE, b"".join(b"%s %s\0%s" % one for one in entries))

    def commit(self, tree: bytes) -> str:
        return self.add(COMMIT, b"tree %s\n\nm\n" % tree.hex().encode()).hex()

    def to(self, path: Path) -> Path:
        data = struct.pack(">4sII", b"PACK", 2, self.count) + self.body
        path.write_bytes(data + hashlib.sha1(data).digest())
        return path
