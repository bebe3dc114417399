"""Unpacks a crate for a directory source of cargo, with the digests by which cargo verifies it.

An archive comes from a registry and may hold anything: only regular files and folders below one
folder are accepted, and no more bytes than cargo itself would unpack.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

CHECKSUMS = ".cargo-checksum.json"
# As cargo's own limits: 512 MiB, or 20 times the archive where that is more.
BYTES_MAX, RATIO_MAX = 512 << 20, 20
FILES_MAX = 100_000
PATH_MAX = 1024
_CHUNK = 1 << 20
# Build scripts compare times of their crate's files with times of what they made: the times of
# unpacking would have all of them run again for each new lock.
_TIME = 315_532_800 + 86_400


class Unsafe(Exception):
    """An archive that is not unpacked."""


def unpack(archive: Path, folder: Path, name: str, sha256: str) -> int:
    """Unpack the files below `name`/ of a crate's archive into `folder`; returns their bytes.

    Raises:
        Unsafe: it is no archive of a crate, or holds what no crate has.
    """
    limit = max(BYTES_MAX, RATIO_MAX * archive.stat().st_size)
    folder.mkdir(parents=True)
    checksums: dict[str, str] = {}
    total = 0
    try:
        with gzip.open(archive) as plain:
            bounded = _Bounded(plain.read, limit)
            # `bounded` has the one method of a file that a stream is read by
            with tarfile.open(fileobj=bounded, mode="r|") as tar:  # type: ignore[call-overload]
                for path, stream in _files(tar, name):
                    if path in checksums or len(checksums) == FILES_MAX:
                        raise Unsafe(f"{path!r} is in it twice, or it has too many files")
                    checksums[path], size = _write(folder, path, stream)
                    total += size
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise Unsafe(f"it cannot be unpacked: {error}") from error
    document = {"files": checksums, "package": sha256}
    (folder / CHECKSUMS).write_bytes(msgspec.json.encode(document))
    return total


def _files(tar: tarfile.TarFile, name: str) -> Iterator[tuple[str, IO[bytes]]]:
    """The regular files, by their paths below the crate's folder."""
    for member in tar:
        if member.isdir():
            continue
        if not member.isreg():
            raise Unsafe(f"{member.name!r} is neither a file nor a folder")
        path = _checked(member.name, name)
        stream = tar.extractfile(member)
        assert stream is not None
        # cargo writes this file itself when it unpacks, and a directory source has no use for it
        if path not in (CHECKSUMS, ".cargo-ok"):
            yield path, stream


def _checked(path: str, name: str) -> str:
    parts = path.split("/")
    if parts[0] != name or len(parts) < 2 or len(path) > PATH_MAX:
        raise Unsafe(f"{path!r} is not below {name!r}")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise Unsafe(f"{path!r} leads out of it")
    # cargo's list of digests is JSON, which has no name of other bytes
    if any("\ud800" <= character <= "\udfff" for character in path):
        raise Unsafe(f"{path!a} is no UTF-8")
    return "/".join(parts[1:])


def _write(folder: Path, path: str, stream: IO[bytes]) -> tuple[str, int]:
    """Write a new file; returns its digest and size. The folder holds no links."""
    target = os.path.join(folder, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)  # noqa: PTH103
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb", buffering=0) as out:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += out.write(chunk)
        os.utime(descriptor, (_TIME, _TIME))
    return digest.hexdigest(), size


class _Bounded:
    """A stream that ends with an error after so many bytes."""

    def __init__(self, read: Callable[[int], bytes], limit: int) -> None:
        self._read = read
        self._left = limit

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self._read(size)
        self._left -= len(data)
        if self._left < 0:
            raise Unsafe("it holds more bytes than any crate may")
        return data
