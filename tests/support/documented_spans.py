"""What `otel/spans.md` names, and what of a trace it does not."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cleanroom.evidence.tracing import SpanData
from support.paths import ROOT

PAGE = (ROOT / "otel" / "spans.md").read_text()
_ATTRIBUTES = set(re.findall(r"`([a-z0-9_]+(?:\.[a-z0-9_]+)+)`", PAGE))
_KINDS = set(re.findall(r"^\| `(\w+)[ `]", PAGE, re.MULTILINE))
_EVENTS = {
    name
    for row in re.findall(r"^\| (`[a-z`, ]+`) \|", PAGE, re.MULTILINE)
    for name in re.findall(r"`(\w+)`", row)
}


def unnamed(found: Iterable[SpanData]) -> set[str]:
    """Kinds of the engine's own spans, names of their events,
    attributes of both and of their resource, that the page does not have.
    """
    missing: set[str] = set()
    for span in found:
        if span.source.scope == "cleanroom":
            missing |= {span.name.split()[0]} - _KINDS
            missing |= {event.name for event in span.events} - _EVENTS
            missing |= {
                name
                for attributes in (
                    span.attributes,
                    span.source.resource,
                    *(e.attributes for e in span.events),
                )
                for name in attributes
            } - _ATTRIBUTES
    return missing
