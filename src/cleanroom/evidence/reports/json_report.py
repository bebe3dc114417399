"""The result as a JSON file: what `--output json` prints, indented for people."""

from __future__ import annotations

import msgspec

from cleanroom.core.text import json_written_out
from cleanroom.evidence.reports.result import RunResult


def json_report(result: RunResult) -> bytes:
    return json_written_out(msgspec.json.format(msgspec.json.encode(result), indent=2)) + b"\n"
