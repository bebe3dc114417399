"""The reference page against the commands."""

from __future__ import annotations

from cleanroom.cli.reference import markdown
from cleanroom.model.errors import Exit
from support.paths import ROOT

DOCS = ROOT / "docs"


def test_cli_reference_page_is_up_to_date() -> None:
    """docs/commands.md is what the commands' own help says today."""
    assert (DOCS / "commands.md").read_text() == markdown()


def test_cli_every_exit_status_is_documented() -> None:
    """docs/exit-codes.md has each status that the engine can end with."""
    page = (DOCS / "exit-codes.md").read_text()
    assert [
        status
        for status in Exit
        if f"| {int(status)} |" not in page
        and f"{int(status)} / " not in page
        and f"/ {int(status)} |" not in page
    ] == []
