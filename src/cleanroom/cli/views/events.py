"""How one recorded event reads. Pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec

from cleanroom.cli.views.text import clip, safe
from cleanroom.model.events import Envelope

_FIELDS_CHARACTERS = 160  # of an event's fields; --output jsonl has all of them


def event_line(envelope: Envelope) -> str:
    """One event on one line: number, time, kind, what it is about, and its fields."""
    fields = msgspec.to_builtins(envelope.event)
    kind, subject = fields.pop("kind"), envelope.event.subject
    del fields["subject"]
    shown = {
        name: value for name, value in fields.items() if value not in ("", None, [], {}, 0, False)
    }
    when = datetime.fromtimestamp(envelope.time_unix_ns / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]
    detail = (
        clip(json.dumps(shown, ensure_ascii=False, separators=(",", ":")), _FIELDS_CHARACTERS)
        if shown
        else ""
    )
    return safe(f"{envelope.seq:>6}  {when}  {kind:<10} {subject}  {detail}").rstrip()
