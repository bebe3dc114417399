"""Digests of files as lock files write them. Pure, but for reading a stream."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import BinaryIO

_CHUNK = 1 << 20
# From the strongest: the first that a lock gives and this Python knows is what is checked.
STRENGTH = ("sha512", "sha384", "sha256", "sha224", "sha1", "md5")
# No collision of these is known; a file that is pinned by another one only counts as unpinned.
STRONG = frozenset(("sha512", "sha384", "sha256"))


# Go's hashes have a base64 of their own and are measured by `go_hashes`, commits by `git_packs`.
_FORMS = {
    **{
        name: re.compile(rf"[0-9a-f]{{{hashlib.new(name, usedforsecurity=False).digest_size * 2}}}")
        for name in STRENGTH
    },
    **{name: re.compile(r"[A-Za-z0-9+/]{43}=") for name in ("h1", "h1mod")},
    "git": re.compile(r"[0-9a-f]{40}"),
}


def is_digest(text: str) -> bool:
    """Whether it is a digest as `model` writes it, so that its value can name a file."""
    name, _, value = text.partition(":")
    return name in _FORMS and _FORMS[name].fullmatch(value) is not None


def read_digests(stream: BinaryIO, algorithms: Iterable[str]) -> tuple[dict[str, str], int]:
    """Digest of the stream by each algorithm, lower-case hex, and the number of its bytes."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    size = 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        for one in hashes.values():
            one.update(chunk)
    return {name: one.hexdigest() for name, one in hashes.items()}, size


def algorithm(digest: str) -> str:
    """The algorithm of a digest as `model` writes it."""
    return digest.partition(":")[0]


def strongest(digests: Iterable[str]) -> str:
    """The digest by the strongest algorithm; "" where there is none that is known here."""
    known = [digest for digest in digests if algorithm(digest) in STRENGTH]
    return min(known, key=lambda digest: STRENGTH.index(algorithm(digest)), default="")


def from_integrity(text: str) -> str:
    """The strongest digest of Subresource Integrity's "sha512-BASE64 sha1-BASE64"; "" for none."""
    found = []
    for part in text.split():
        name, _, value = part.partition("-")
        try:
            decoded = base64.b64decode(value.partition("?")[0], validate=True)
        except (binascii.Error, ValueError):
            continue
        if (
            name in STRENGTH
            and len(decoded) == hashlib.new(name, usedforsecurity=False).digest_size
        ):
            found.append(f"{name}:{decoded.hex()}")
    return strongest(found)


def to_integrity(digest: str) -> str:
    """The inverse of `from_integrity`, of one digest."""
    name, _, value = digest.partition(":")
    return f"{name}-{base64.b64encode(bytes.fromhex(value)).decode()}"
