"""The events' wire form."""

from __future__ import annotations

import json

from cleanroom.model import events
from support.paths import ROOT

PINNED = ROOT / "docs" / "events.schema.json"


def test_the_schema_is_the_one_in_the_documentation():
    """`docs/events.schema.json` is what `events schema` prints;
    a change of it is a change of the log's vocabulary.
    """
    assert json.loads(PINNED.read_text()) == json.loads(json.dumps(events.schema()))
