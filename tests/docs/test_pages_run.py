"""The tutorial, the how-tos, the page for programs and those for whoever comes from elsewhere:
files are written, lines are run, and what the pages show is what comes out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.page_runner import SHOP, run, sections
from support.paths import ROOT

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(sys.platform != "linux", reason="the embedded backend needs Linux"),
]


@pytest.mark.skipif(
    not SHOP.is_dir(), reason="make shop makes the packages that the tutorial installs"
)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    """From the empty folder to the evidence, every command prints the lines that the page shows."""
    run(tmp_path, (ROOT / "docs/tutorial.md").read_text())


@pytest.mark.parametrize("title", sections("howto.md"))
def test_a_howto_does_what_it_says(title: str, tmp_path: Path) -> None:
    """Each section's lines print what the section shows, in a folder of its own."""
    run(tmp_path, sections("howto.md")[title])


def test_the_page_for_programs_does_what_it_says(tmp_path: Path) -> None:
    """Its lines print what it shows, one after the other in one folder."""
    run(tmp_path, (ROOT / "docs/agents.md").read_text())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("page", "title"),
    [
        (page, title)
        for page in ("from-testcontainers.md", "from-compose.md", "fixtures.md")
        for title, text in sections(page).items()
        if "```console" in text
    ],
)
def test_a_page_for_those_who_come_from_elsewhere_does_what_it_says(
    page: str, title: str, tmp_path: Path
) -> None:
    """As the how-tos."""
    run(tmp_path, sections(page)[title])
