"""Programs that a phase needed and that its level hides: where they are, and the setting that shows
them.

Reads the host's folders, changes nothing.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

# the exit statuses of a shell for a program that does not exist, and for one it may not start
NOT_FOUND, NOT_STARTED = 127, 126

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_WORDS_MOST = 64  # of a command: enough for any line that a person wrote
# any of these in the parent of a bin folder makes it the installation that the programs need
_SIGNS = ("lib", "lib64", "libexec", "pyvenv.cfg")
_SHARED = ("/", "/usr", "/opt", "/srv", "/home", "/root")
# contain private files beside programs, so that only their folder of programs may be shown
_MIXED = (".local", ".cargo")


def words_of(command: str) -> tuple[str, ...]:
    """The words of a shell command that could name a program, each once."""
    return tuple(dict.fromkeys(_WORD.findall(command)[:_WORDS_MOST]))


def hidden_on_path(command: str, caller_path: str, inside_path: str) -> tuple[str, ...]:
    """The programs that words of `command` name on the caller's PATH and not on the
    environment's.
    """
    found = []
    for word in words_of(command):
        program = shutil.which(word, path=caller_path)
        if program and shutil.which(word, path=inside_path) is None:
            found.append(program)
    return tuple(found)


def shown_by(program: str) -> str:
    """The folder that `cleanroom.tools` has to name for `program`:
    the installation it belongs to, or the folder it is in.
    """
    folder = Path(program).parent
    parent = folder.parent
    installed = (
        folder.name in ("bin", "sbin", "shims")
        and str(parent) not in _SHARED
        and parent.name not in _MIXED
    )
    return str(parent if installed and any((parent / sign).exists() for sign in _SIGNS) else folder)


def explained(programs: Sequence[str], level: str) -> tuple[str, str]:
    """The reason of a phase that failed for these hidden programs, and the hint that helps."""
    named = ", ".join(programs)
    folders = ", ".join(f'"{folder}"' for folder in dict.fromkeys(map(shown_by, programs)))
    return (
        f"{named} is on this machine and not shown at {level}",
        f"`cleanroom.tools = [{folders}]` shows it to the phase, or run the phase at Medium",
    )
