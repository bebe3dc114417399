"""How the delivery of spans, metrics and log records to a collector reads. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from cleanroom.cli.views.failure import coded
from cleanroom.cli.views.text import safe
from cleanroom.evidence.reports.text import plural
from cleanroom.evidence.tracing.delivery import Delivered

_NOUNS = {"traces": "span", "metrics": "point", "logs": "log record"}


def delivered_counts(delivered: Delivered) -> str:
    """What the collector took, and which kinds it takes none of."""
    unwanted = f" (it takes no {' and no '.join(delivered.unwanted)})" if delivered.unwanted else ""
    return f"{_counted(delivered.counts) or 'nothing'} to {delivered.endpoint}{unwanted}"


def undelivered(delivered: Delivered, run: str, endpoint: str, root: str) -> str:
    """What was not delivered, why, and the line that sends it later: one line, as errors read."""
    where = f" --root {shlex.quote(root)}" if root != "." else ""
    hint = f"{delivered.hint}; then: " if delivered.hint else ""
    text = f"{_counted(delivered.lost)} not delivered to {delivered.endpoint}: {delivered.why}"
    again = f"cleanroom-engine trace {run}{where} --push{endpoint}"
    return coded("CR-TRACE-004", safe(text), hint + again)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(plural(count, _NOUNS[signal]) for signal, count in counts.items())
