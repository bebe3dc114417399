"""`docs/ecosystems.md`: what the tests found of each package manager.

`GOLDEN=write` and the tests of `tests/projects/` and `tests/fetch/`, as root and as an ordinary
user, write `tests/golden/ecosystems.json`; `python -m support.ecosystems_document` prints the page.
Remove the file before, so that nothing stays in it that holds no longer.
"""

from __future__ import annotations

import fcntl
import json
import os

from support.paths import TESTS

FILE = TESTS / "golden" / "ecosystems.json"
COLUMNS = (
    "found",
    "fetched",
    "verified",
    "offline",
    "private mirror",
    "root",
    "ordinary user",
    "Docker",
)


def record(manager: str, *columns: str) -> None:
    """A test has found these to hold; nothing is done unless the page is written anew."""
    assert {*columns} <= {*COLUMNS}
    if os.environ.get("GOLDEN") != "write":
        return
    descriptor = os.open(FILE, os.O_RDWR | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        text = stream.read()
        results = json.loads(text) if text else {}
        results[manager] = [one for one in COLUMNS if one in {*results.get(manager, []), *columns}]
        stream.seek(0)
        stream.truncate()
        stream.write(json.dumps(results, indent=1, sort_keys=True) + "\n")


def results() -> dict[str, list[str]]:
    """Manager -> what was found to hold."""
    found: dict[str, list[str]] = json.loads(FILE.read_text())
    return found
