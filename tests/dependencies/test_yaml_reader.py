"""YAML of lock files: what a package manager writes is read, anything else is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.dependencies.yaml_reader import read_yaml


def test_every_scalar_is_its_text():
    """Dates, numbers and booleans are as they stand."""
    text = b"a: 1.0\nb: true\nc: 2020-01-01\n'd e': [x, {y: }]\n"
    assert read_yaml(text) == [
        {"a": "1.0", "b": "true", "c": "2020-01-01", "d e": ["x", {"y": ""}]}
    ]


def test_documents_come_in_order():
    """pnpm writes two."""
    assert read_yaml(b"---\na: 1\n---\nb: 2\n") == [{"a": "1"}, {"b": "2"}]


@pytest.mark.parametrize(
    "text",
    [
        b"a: &x [1]\nb: *x\n",
        b"[" * 100_000,
        b"a: {" * 100_000,
        b"? [a]\n: b\n",
        b"a: b: c\n",
        b"\xff",
        b"\0",
    ],
)
def test_what_no_package_manager_writes_is_refused(text: bytes):
    """Aliases, depth, keys that are no text, bytes that are none."""
    with pytest.raises(ValueError, match=r"."):
        read_yaml(text)


@given(st.binary() | st.text(alphabet="ab:- \n'\"[]{},&*?|>#%\\!\t1~").map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes):
    """Nothing else is raised."""
    with suppress(ValueError):
        assert isinstance(read_yaml(text), list)
