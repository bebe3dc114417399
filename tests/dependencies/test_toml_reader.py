"""TOML that a project brings: hostile keys end in a sentence."""

from __future__ import annotations

import pytest

from cleanroom.dependencies.toml_reader import read_toml


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a = 1\n" + b"a." * 2000 + b"a = 1\n", "line 2: more than 1000 dots"),
        (b"[" + b"a." * 2000 + b"a]\n", "line 1: more than 1000 dots"),
        (b"a = " + b"[" * 100_000, "levels"),
        (b"\xff", "utf-8"),
    ],
)
def test_what_no_manager_writes_is_refused(content: bytes, why: str):
    """Before the parser takes the square of it."""
    with pytest.raises(ValueError, match=why):
        read_toml(content)


def test_a_long_list_is_read():
    """Versions have dots too."""
    assert read_toml(b'a = ["1.2.3", "1.2.4"]\n') == {"a": ["1.2.3", "1.2.4"]}
