"""The page that shows what the suite of all backends found."""

from __future__ import annotations

import re

from support import backends_document


def test_the_page_has_a_row_for_every_check_and_none_that_is_gone():
    """Whoever adds or changes a check runs the suite on every backend and writes the page anew."""
    rows = re.findall(
        r"^\| (.+?) \| (?:holds|not run|\*\*)", backends_document.FILE.read_text(), flags=re.M
    )
    assert rows == list(backends_document.claims().values())


def test_the_page_claims_nothing_that_did_not_hold():
    """A check that fails somewhere has to be mended, or be said in the limits,
    before the page may be written.
    """
    assert "does not hold" not in backends_document.FILE.read_text()
