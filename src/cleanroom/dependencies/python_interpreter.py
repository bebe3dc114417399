"""Which interpreter packages are fetched for: the one that phases of the folder have."""

from __future__ import annotations

import os

from cleanroom.dependencies.model import Found
from cleanroom.dependencies.pip_failure import failure
from cleanroom.dependencies.python_tags import PROGRAM, Interpreter, read_interpreter
from cleanroom.dependencies.session import Session, ToolRun

PYTHON_VERSION = ".python-version"
TAGS = "cleanroom-tags.py"


async def ask(session: Session, found: Found) -> Interpreter:
    """What `python3` in the folder is.

    Raises:
        DependencyUnavailable: it is not there, or fails.
    """
    result = await session.run(
        ToolRun(["python3", TAGS], files={**versions(found), TAGS: PROGRAM.encode()})
    )
    if result.exit_code:
        raise failure(found.name, result.output)
    return read_interpreter(result.output)


def versions(found: Found) -> dict[str, bytes]:
    """The file that chooses the interpreter of a folder."""
    path = os.path.normpath(os.path.join(found.folder, PYTHON_VERSION))
    return {PYTHON_VERSION: found.files[path]} if path in found.files else {}
