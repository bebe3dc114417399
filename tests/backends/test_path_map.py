"""Text that names paths of an environment, led to where they really are."""

from __future__ import annotations

import pytest

from cleanroom.backends.embedded.path_map import PathMap

PLACES = PathMap(
    [
        ("/tmp", "/var/tmp/run/tmp"),
        ("/var/tmp/run", "/var/tmp/run"),
        ("/home/me", "/h"),
        ("/home/me/project", "/copy"),
        ("/tmp/tool", "/tmp/tool"),
    ]
)


@pytest.mark.parametrize(
    ("said", "led"),
    [
        ("/tmp", "/var/tmp/run/tmp"),
        ("a=/tmp/x:/tmp", "a=/var/tmp/run/tmp/x:/var/tmp/run/tmp"),
        ("/home/me/project/bin:/home/me/bin", "/copy/bin:/h/bin"),
        ("/home/mercury", "/home/mercury"),
        ("/my/tmp", "/my/tmp"),
        ("/tmp.old", "/tmp.old"),
        ("'/tmp'", "'/var/tmp/run/tmp'"),
        ("/tmp/tool/bin", "/tmp/tool/bin"),
        ("tmp", "tmp"),
    ],
)
def test_a_path_is_led_and_a_part_of_another_is_not(said: str, led: str):
    """The innermost pair counts, and a path paired with itself stays."""
    assert PLACES.translate(said) == led


def test_leading_again_changes_nothing():
    """A service's files are led at each of its starts."""
    once = PLACES.translate("directory = '/tmp/x'")
    assert PLACES.translate(once) == once


def test_no_pairs_change_nothing():
    assert PathMap().translate_values({"A": "/tmp"}) == {"A": "/tmp"}
