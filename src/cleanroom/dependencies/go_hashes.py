"""Go's hash `h1:` of a module's zip file and of its go.mod (golang.org/x/mod/sumdb/dirhash)."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path

from cleanroom.dependencies.store import Measure

# Go's own limits (golang.org/x/mod/zip) are half of these, and that of the file itself.
UNPACKED_MAX = 1 << 30
ENTRIES_MAX = 500_000
ZIP_MAX = 500 << 20
_ENTRY = b"PK\x01\x02"  # begins each entry of a zip's list
_CHUNK = 1 << 20
_UTF8 = 0x800  # the flag of an entry whose name is UTF-8
NOT_A_ZIP = "no module's zip file"


def of_zip(path: Path) -> str:
    """The hash of a zip file's content; `NOT_A_ZIP` for another file."""
    from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

    try:
        if not _is_small(path):
            return NOT_A_ZIP
        with ZipFile(path) as archive:
            entries = archive.infolist()
            size = sum(entry.file_size for entry in entries)
            if size > UNPACKED_MAX or len(entries) > ENTRIES_MAX:
                return NOT_A_ZIP
            digests = []
            for entry in entries:
                if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
                    return NOT_A_ZIP
                digest = hashlib.sha256()
                with archive.open(entry) as stream:
                    while chunk := stream.read(_CHUNK):
                        digest.update(chunk)
                encoding = "utf-8" if entry.flag_bits & _UTF8 else "cp437"
                digests.append((entry.orig_filename.encode(encoding), digest.hexdigest()))
    # RuntimeError: an entry is encrypted
    except (BadZipFile, OSError, EOFError, ValueError, RuntimeError, zlib.error):
        return NOT_A_ZIP
    return _hash(digests)


def _is_small(path: Path) -> bool:
    """Whether a zip's list can be read: the library holds all of it, half a kilobyte an entry."""
    if not 0 < path.stat().st_size <= ZIP_MAX:
        return False
    with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as data:
        at = -1
        for _ in range(ENTRIES_MAX + 1):
            at = data.find(_ENTRY, at + 1)
            if at < 0:
                return True
    return False


def of_go_mod(path: Path) -> str:
    """The hash of a go.mod file."""
    return _hash([(b"go.mod", hashlib.sha256(path.read_bytes()).hexdigest())])


def _hash(digests: Iterable[tuple[bytes, str]]) -> str:
    """Hash1 of names and SHA-256 of files. No name of a module's file has a line's end."""
    digest = hashlib.sha256()
    for name, one in sorted(digests):
        if b"\n" in name:
            return NOT_A_ZIP
        digest.update(one.encode() + b"  " + name + b"\n")
    return base64.b64encode(digest.digest()).decode()


# algorithm, as an artifact's digest names it -> how a file is measured
MEASURES: Mapping[str, Measure] = {"h1": of_zip, "h1mod": of_go_mod}
