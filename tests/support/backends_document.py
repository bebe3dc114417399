"""`docs/backends.md`: what the suite of all backends found on each of them.

`GOLDEN=write` and a whole run of the conformance tests write it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from cleanroom.testing import CHECKS
from support.paths import ROOT

FILE = ROOT / "docs/backends.md"
BACKENDS = ("memory", "embedded", "docker", "podman")
SHOWN = {"passed": "holds", "failed": "**does not hold**", "skipped": "not run"}
HEAD = """# Backends

Written by the tests (`GOLDEN=write`, see `tests/support/backends_document.py`):
what the suite of all backends, `cleanroom.testing.check_backend`,
found on each of them on the machine of the last writing,
a Debian 12 with Docker 20.10 and Podman 4.3, as root.
Every check is followed by a look at the ledger: everything that was made was removed.

"""
TAIL = """
What each can hold is asked anew in every run: `capabilities` in its report.
Embedded, Docker and Podman block and attribute attempts on network,
file system and processes (held calls, with process and target);
limits of memory and processes are enforced and counted by a control group,
whose counter names no process: the report then says under which command it happened.
The memory backend enforces nothing: it plays a script.
"""


def named(nodeid: str) -> tuple[str, str]:
    """Backend and check of a conformance test; two empty words for any other."""
    match = re.search(
        r"test_(memory|embedded|container)_backend_passes\[(\w+?)(?:-(docker|podman))?\]$", nodeid
    )
    return (match.group(3) or match.group(1), match.group(2)) if match else ("", "")


def claims() -> dict[str, str]:
    """Check -> what it claims."""
    return {check.__name__: re.sub(r"\s+", " ", check.__doc__ or "").strip() for check in CHECKS}


def page(outcomes: Mapping[tuple[str, str], str]) -> str:
    head = "| | " + " | ".join(BACKENDS) + " |\n| --- |" + " --- |" * len(BACKENDS) + "\n"
    rows = "".join(
        f"| {claim} | "
        + " | ".join(SHOWN[outcomes[backend, check]] for backend in BACKENDS)
        + " |\n"
        for check, claim in claims().items()
    )
    return HEAD + head + rows + TAIL


def write(outcomes: Mapping[tuple[str, str], str]) -> None:
    """Nothing, unless every check ran on every backend."""
    if all((backend, check) in outcomes for backend in BACKENDS for check in claims()):
        FILE.write_text(page(outcomes))
