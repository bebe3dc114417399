"""SHA-256 of files.

hashlib's `file_digest` clears 256 KiB for each file, most of the time of a thousand small ones.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

# Small enough for memory that the process has already, large enough that calls do not count.
_PIECE_BYTES = 64 << 10


def of_file(path: str | Path) -> bytes:
    """SHA-256 of the content of the file at `path`, 32 bytes. A link is followed. Blocks.

    Raises:
        OSError: it cannot be read.
    """
    found = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while piece := os.read(descriptor, _PIECE_BYTES):
            found.update(piece)
    finally:
        os.close(descriptor)
    return found.digest()
