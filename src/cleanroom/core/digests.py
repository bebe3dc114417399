"""The SHA-256 of files. hashlib's own `file_digest` clears 256 KiB for each,
which for a thousand small ones is most of the time.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

# small enough to be taken from what the process has at hand, large enough that calls do not count
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
