"""Digests as lock files write them."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.digests import STRENGTH, from_integrity, strongest, to_integrity


@given(st.sampled_from(STRENGTH), st.binary())
def test_integrity_is_read_as_it_is_written(name: str, body: bytes):
    """npm's form and ours say the same."""
    digest = f"{name}:{hashlib.new(name, body).hexdigest()}"
    assert from_integrity(to_integrity(digest)) == digest


@given(st.text())
def test_any_text_is_read_without_an_error(text: str):
    """A lock file may say anything."""
    assert from_integrity(text) == "" or from_integrity(text).partition(":")[0] in STRENGTH


@pytest.mark.parametrize(
    ("digests", "expected"),
    [
        (("sha1:00", "sha512:11", "sha256:22"), "sha512:11"),
        (("md5:00", "sha1:11"), "sha1:11"),
        (("crc32:00",), ""),
        ((), ""),
    ],
)
def test_the_strongest_digest_decides(digests: tuple[str, ...], expected: str):
    """A weak one beside a strong one adds nothing."""
    assert strongest(digests) == expected
