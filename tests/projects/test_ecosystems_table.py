"""The page of package managers has what the tests found, of each that is known."""

from __future__ import annotations

import re

import pytest

from cleanroom.dependencies.managers import KNOWN
from support import ecosystems_document
from support.paths import ROOT


def test_every_manager_has_a_row():
    """In their order, and no row of one that is gone."""
    text = (ROOT / "docs/ecosystems.md").read_text()
    assert re.findall(r"^\| (\w[\w-]*) \| (?:yes|-)", text, flags=re.M) == list(KNOWN)
    assert ecosystems_document.results().keys() <= KNOWN.keys()


@pytest.mark.parametrize("manager", KNOWN)
def test_a_manager_that_is_known_was_tried_with_a_real_project(manager: str):
    """Who adds one writes a stranger's project of it, and the page anew."""
    found = ecosystems_document.results().get(manager, [])
    assert {"found", "fetched", "offline"} <= {*found}
