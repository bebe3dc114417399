"""All reports of one result, by kind: which there are, what their files are called,
and their bytes.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cleanroom.dependencies.model import Fetched
from cleanroom.evidence.reports.result import RunResult

FILES: dict[str, str] = {
    "json": "test_results.json",
    "junit": "test_results.junit.xml",
    "html": "test_results.html",
    "sarif": "test_results.sarif",
}
# Of runs with dependencies only.
SBOM = {"sbom": "sbom.cdx.json"}


def makers() -> dict[str, Callable[[RunResult], bytes]]:
    """Kind -> the function that makes it.

    The first call loads them, with Python's XML and HTML: 4 ms that nothing should wait for.
    """
    from cleanroom.evidence.reports.html import html_report
    from cleanroom.evidence.reports.json_report import json_report
    from cleanroom.evidence.reports.junit import junit
    from cleanroom.evidence.reports.sarif import sarif

    return {"json": json_report, "junit": junit, "html": html_report, "sarif": sarif}


def render(result: RunResult, sets: Sequence[Fetched] | None = None) -> dict[str, bytes]:
    """File name -> bytes. `sets` are the run's dependencies; None where it has none."""
    rendered = {FILES[kind]: make(result) for kind, make in makers().items()}
    if sets is not None:
        from cleanroom.evidence.reports.sbom import sbom

        rendered[SBOM["sbom"]] = sbom(result, sets)
    return rendered
