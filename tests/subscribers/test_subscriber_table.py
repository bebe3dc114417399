"""The table of who reads and publishes what."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import get_args

from cleanroom import subscribers
from cleanroom.model import events
from cleanroom.subscribers import TABLE

FOLDER = Path(subscribers.__file__).parent


def tags() -> tuple[str, ...]:
    return tuple(str(kind.__struct_config__.tag) for kind in get_args(events.AnyEvent))


def test_no_kind_leads_back_to_itself():
    """From no kind of event can a chain of subscribers lead back to it."""
    leads = {
        kind: {made for flow in TABLE.values() if kind in flow.reads for made in flow.publishes}
        for kind in tags()
    }
    for start in leads:
        reached, frontier = set(), leads[start]
        while frontier:
            reached |= frontier
            frontier = {after for kind in frontier for after in leads[kind]} - reached
        assert start not in reached


def test_the_table_knows_every_kind():
    """`ALL` is exactly the union's tags, in its order."""
    assert tags() == subscribers.ALL


def test_the_table_says_what_the_modules_do():
    """A subscriber that publishes is in the table as such,
    and READS are the kinds the table names.
    """
    modules = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "chain"}

    assert set(TABLE) == modules
    for name, flow in TABLE.items():
        source = (FOLDER / f"{name}.py").read_text()
        assert bool(flow.publishes) == bool(re.search(r"\bpublish\(", source)), name
        reads = getattr(importlib.import_module(f"cleanroom.subscribers.{name}"), "READS", None)
        assert set(flow.reads) == (
            set(subscribers.ALL)
            if reads is None
            else {kind.__struct_config__.tag for kind in reads}
        ), name
