"""How the audit log and its verification read. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cleanroom.cli.output import Output
from cleanroom.cli.views.text import clip, safe
from cleanroom.evidence.audit.chain import Verification
from cleanroom.evidence.reports.text import plural

_BODY_CHARACTERS = 120  # of a record's body; --output json has all of it


def verification_lines(verification: Verification, output: Output) -> list[str]:
    """The verdict, then each problem with its place."""
    count = plural(verification.records, "record")
    torn = (
        " (a torn last line beyond the head is not counted: the engine was killed)"
        if verification.torn
        else ""
    )
    if verification.valid:
        verdict = f"{output.paint(output.mark('ok'), 'green')} valid: {count}{torn}"
        return [verdict, *_removed(verification)]
    problems = [
        f"  line {found.line}, record {found.seq}: {safe(found.problem)}"
        for found in verification.problems
    ]
    return [
        (
            f"{output.paint(output.mark('fail'), 'red')} NOT valid: {count}, "
            f"{plural(len(problems), 'problem')}"
        ),
        *problems,
    ]


def _removed(verification: Verification) -> list[str]:
    """What the engine itself cut off, as a record of the chain says."""
    removed = verification.removed
    if removed is None:
        return []
    gone = plural(removed.seq, "record")
    return [f"  {gone} before them cut off by retention, sha256 {removed.sha256}"]


def record_line(record: Mapping[str, Any]) -> str:
    """One record on one line: number, when, which run, what about what."""
    subject = record["subject"]
    about = f"{subject['kind']} {subject['name']}".strip()
    detail = (
        clip(
            json.dumps(record["body"], ensure_ascii=False, separators=(",", ":")), _BODY_CHARACTERS
        )
        if record["body"]
        else ""
    )
    return safe(
        f"{record['seq']:>6}  {record['time']}  {record['run_id']}  {record['kind']:<10} "
        f"{about}  {detail}"
    ).rstrip()
