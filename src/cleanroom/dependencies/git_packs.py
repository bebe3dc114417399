"""Reads packs of git's in which every object is whole, and proves that one is a single commit.

Such a pack is what the store keeps of a repository: one file, whose every object is checked here
against its own id, from the commit that a lock names down to each file. It holds no deltas, so
that few lines read it and no program of git's has to be trusted. Hostile bytes are expected.
"""

from __future__ import annotations

import binascii
import hashlib
import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BYTES_MAX = 4 << 30  # of all objects, unpacked
TREE_MAX = 64 << 20  # of one commit or tree, which are read whole
OBJECTS_MAX = 2_000_000
ENTRIES_MAX = 500_000  # of one commit: trees that name each other could make any number
DEPTH_MAX = 128  # of folders
PATH_MAX = 4096
NOT_ONE_COMMIT = "none"
COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
_NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}
_CHUNK = 1 << 20
_HEADER, _TRAILER = 12, 20
FILE, PROGRAM, LINK, FOLDER, SUBMODULE = 0o100644, 0o100755, 0o120000, 0o040000, 0o160000


class Unsafe(Exception):
    """A pack or a tree that is not used."""


class Object(NamedTuple):
    """Where an object is in its pack."""

    kind: int
    size: int  # unpacked
    offset: int  # of its header
    data: int  # of its compressed bytes
    checksum: int  # CRC-32 of its bytes in the pack


class Entry(NamedTuple):
    """One file of a commit, one link, or the commit of a submodule."""

    path: str
    mode: int  # FILE, PROGRAM, LINK or SUBMODULE
    id: str


class Pack:
    """One pack, open. Each object was checked against its id."""

    def __init__(self, path: Path) -> None:
        """Read all of it.

        Raises:
            Unsafe: it is no pack, or has deltas, or too much.
            OSError: it cannot be read.
        """
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            if size < _HEADER + _TRAILER:
                raise Unsafe("it is no pack of git's")
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.checksum = self._map[-_TRAILER:]
        try:
            self.objects = self._scan(size - _TRAILER)
        except (zlib.error, IndexError, struct.error) as error:
            raise Unsafe(f"the pack is damaged: {error}") from error

    def __enter__(self) -> Pack:
        return self

    def __exit__(self, *_error: object) -> None:
        self._map.close()

    # --- objects

    def _scan(self, end: int) -> dict[str, Object]:
        signature, version, count = struct.unpack(">4sII", self._map[:_HEADER])
        if signature != b"PACK" or version != 2 or count > OBJECTS_MAX:
            raise Unsafe("it is no pack of git's, or has too many objects")
        found: dict[str, Object] = {}
        offset, total = _HEADER, 0
        for _ in range(count):
            kind, size, data = self._header(offset)
            total += size
            if total > BYTES_MAX:
                raise Unsafe("it holds more bytes than a repository may")
            digest = hashlib.sha1(b"%s %d\0" % (_NAMES[kind], size), usedforsecurity=False)
            stop = self._inflate(data, size, digest.update)
            checksum = binascii.crc32(memoryview(self._map)[offset:stop])
            found[digest.hexdigest()] = Object(kind, size, offset, data, checksum)
            offset = stop
        if offset != end:
            raise Unsafe("something follows its objects")
        return found

    def _header(self, offset: int) -> tuple[int, int, int]:
        """Kind, size, and where the compressed bytes begin."""
        byte = self._map[offset]
        kind, size, shift = (byte >> 4) & 7, byte & 15, 4
        while byte & 0x80:
            offset += 1
            byte = self._map[offset]
            size |= (byte & 0x7F) << shift
            shift += 7
            if shift > 60:
                raise Unsafe("an object is too large")
        if kind not in _NAMES or (kind != BLOB and size > TREE_MAX):
            raise Unsafe("it has deltas, or objects that nobody knows")
        return kind, size, offset + 1

    def _inflate(self, start: int, size: int, take: object) -> int:
        """Give the unpacked bytes to `take`; returns where the compressed ones end."""
        assert callable(take), "a function of bytes"
        inflating, left = zlib.decompressobj(), size
        position = start
        while not inflating.eof:
            chunk = inflating.unconsumed_tail
            if not chunk:
                chunk = self._map[position : position + _CHUNK]
                position += len(chunk)
                if not chunk:
                    raise Unsafe("an object is cut short")
            data = inflating.decompress(chunk, _CHUNK)
            left -= len(data)
            if left < 0:
                break
            take(data)
        if left:
            raise Unsafe("an object has another size than it says")
        return position - len(inflating.unused_data)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of an object, in pieces."""
        pieces: list[bytes] = []
        found = self.objects[name]
        self._inflate(found.data, found.size, pieces.append)
        yield from pieces

    def read(self, name: str, limit: int = TREE_MAX) -> bytes:
        """The bytes of an object.

        Raises:
            Unsafe: it is not in the pack, or has more than `limit` bytes.
        """
        found = self.objects.get(name)
        if found is None or found.size > limit:
            raise Unsafe("an object is missing or too large")
        return b"".join(self.chunks(name))

    # --- a commit

    @property
    def commit(self) -> str:
        """The only commit of the pack.

        Raises:
            Unsafe: it has none, or more.
        """
        found = [name for name, one in self.objects.items() if one.kind == COMMIT]
        if len(found) != 1:
            raise Unsafe(f"expected one commit, found {len(found)}")
        return found[0]

    def entries(self) -> Iterator[Entry]:
        """All files of the commit, folder by folder.

        Raises:
            Unsafe: an object is missing, or a path is none that may be written.
        """
        line = self.read(self.commit).partition(b"\n")[0]
        root = line.removeprefix(b"tree ").decode("ascii", errors="replace")
        pending = [("", root, 0)]
        count = 0
        while pending:
            above, tree, depth = pending.pop()
            if depth > DEPTH_MAX:
                raise Unsafe("its folders are too deep")
            for entry in self._tree(above, tree):
                count += 1
                if count > ENTRIES_MAX:
                    raise Unsafe("it has too many files")
                if entry.mode == FOLDER:
                    pending.append((f"{entry.path}/", entry.id, depth + 1))
                    continue
                if entry.mode != SUBMODULE:
                    self._must_be(entry.id, BLOB)
                yield entry

    def _tree(self, above: str, tree: str) -> Iterator[Entry]:
        self._must_be(tree, TREE)
        data, position, names = self.read(tree), 0, set()
        while position < len(data):
            end = data.find(b"\0", position)
            mode, _, name = data[position:end].partition(b" ")
            identifier = data[end + 1 : end + 21]
            if end < 0 or len(identifier) != 20:
                raise Unsafe("a tree is damaged")
            path = above + _checked(name)
            if name in names or len(path) > PATH_MAX:
                raise Unsafe(f"{path[:200]!r} is there twice, or too long")
            names.add(name)
            position = end + 21
            yield Entry(path, _mode(mode), identifier.hex())

    def _must_be(self, name: str, kind: int) -> None:
        found = self.objects.get(name)
        if found is None or found.kind != kind:
            raise Unsafe("an object of the commit is missing")


def measure(path: Path) -> str:
    """The id of the one commit that a pack holds, whole; `NOT_ONE_COMMIT` for another file."""
    try:
        with Pack(path) as pack:
            needed = sum(1 for _ in pack.entries())
            return pack.commit if needed else NOT_ONE_COMMIT
    except (Unsafe, OSError):
        return NOT_ONE_COMMIT


def index(pack: Pack) -> bytes:
    """The index of a pack, as git reads it (gitformat-pack, version 2)."""
    names = sorted(pack.objects)
    identifiers = [bytes.fromhex(name) for name in names]
    counts = [0] * 256
    for one in identifiers:
        counts[one[0]] += 1
    fanout, total = [], 0
    for count in counts:
        total += count
        fanout.append(total)
    offsets: list[int] = []
    large: list[int] = []
    for name in names:
        offset = pack.objects[name].offset
        if offset >> 31:
            offsets.append(1 << 31 | len(large))
            large.append(offset)
        else:
            offsets.append(offset)
    parts = [
        b"\xfftOc" + struct.pack(">I256I", 2, *fanout),
        *identifiers,
        struct.pack(f">{total}I", *(pack.objects[name].checksum for name in names)),
        struct.pack(f">{total}I", *offsets),
        struct.pack(f">{len(large)}Q", *large),
        pack.checksum,
    ]
    body = b"".join(parts)
    return body + hashlib.sha1(body, usedforsecurity=False).digest()


def _mode(text: bytes) -> int:
    try:
        mode = int(text, 8)
    except ValueError as error:
        raise Unsafe("a tree is damaged") from error
    if mode in (LINK, FOLDER, SUBMODULE):
        return mode
    if mode >> 12 != FILE >> 12:
        raise Unsafe("a tree has an entry that is neither file, folder, link nor submodule")
    # git itself knows two: older ones wrote others
    return PROGRAM if mode & 0o100 else FILE


def _checked(name: bytes) -> str:
    """A name of a file that may be written: none that leads out, or that git would obey."""
    text = name.decode(errors="surrogateescape")
    bad = not text or text in (".", "..") or "/" in text or len(name) > 255
    if bad or text.lower() == ".git":
        raise Unsafe(f"{text[:200]!r} is no name of a file")
    return text
