"""One row of what programs do inside and outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# Commits without a configuration.
GIT_FUNCTION = (
    "git() { command git -c user.name=a -c user.email=a@example.org "
    '-c protocol.file.allow=always "$@"; }; '
)
NO_GIT = {"E3": "the folder is not shown"}


class Row(NamedTuple):
    """One thing that programs do."""

    id: str
    kind: str
    # in the project, before: shell
    prepare: str
    # one command for each phase of one run; they follow each other
    phases: tuple[str, ...]
    # in the project, afterwards: shell
    check: str
    # column -> how it differs there; the row is then not carried out in it
    gaps: Mapping[str, str] = {}
    # what happens outside, in the words of the page
    outside: str = "works"
    # folder of the project below the one in which `prepare` runs
    inside: str = "."
    # a program without which the row is skipped
    needs: str = ""
    # the columns in which that program is there; empty for all
    only: tuple[str, ...] = ()
    # a service beside the phases: its command, which listens on this port
    service: tuple[str, ...] = ()
    port: int = 0
    # further keys of each phase
    settings: Mapping[str, str] = {}
    # seconds are spent on it
    slow: bool = False


# A program of a phase, by lines; the shell's quotes are double ones.
def python_program(*lines: str) -> str:
    return 'python3 -c "' + "\n".join(lines) + '"'
