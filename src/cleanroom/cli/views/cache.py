"""How the user's cache reads. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom.cli.views.text import safe
from cleanroom.core.text import format_size
from cleanroom.evidence.reports.text import plural

if TYPE_CHECKING:
    from cleanroom.engine import CacheReport


def cache_lines(report: CacheReport, *, pruned: bool) -> list[str]:
    """Where it lies, what each folder has, and what was freed."""
    lines = [safe(report.folder)]
    lines += [
        f"  {part.name:<14}{format_size(part.bytes):>11}  {part.about}" for part in report.parts
    ]
    lines.append(f"packages: {plural(report.sets, 'lock')}, {plural(report.files, 'file')}")
    if pruned:
        lines.append(f"freed {format_size(report.freed_bytes)}")
    return lines
