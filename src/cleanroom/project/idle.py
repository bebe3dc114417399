"""Is a command an interpreter that is given nothing to do?

It would wait for a person, finds nobody, and ends well.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from cleanroom.project.recursion import program_onwards, simple_commands

_REDIRECTED = re.compile(r"[<>|&]")  # something may come to it, or go on beside it

# Program -> options that give it nothing to do. `-o NAME` and the like take the word after them.
_SHELL = re.compile(r"[-+][abefhiklmnprstuvxBCEHPT]*|--|--login|--no[a-z]+|--posix|--restricted")
_PYTHON = re.compile(r"-[bBdEiIOPqsSuvx]*")
_OTHER = re.compile(r"-i?|--interactive")
_INTERPRETERS = (
    (re.compile(r"(?:ba|da|z|k|a|fi|tc|c)?sh"), _SHELL),
    (re.compile(r"(?:python|pypy)[0-9.]*"), _PYTHON),
    (re.compile(r"node|nodejs|bun|deno|ruby|irb|perl|php|lua|ghci|julia|R"), _OTHER),
)
_WITH_A_WORD = ("-o", "+o", "-O", "+O", "-X", "-W")


def idle_interpreter(commands: Sequence[str]) -> str:
    """The first of `commands`, where every one is an interpreter without script, text or input;
    else empty.
    """
    stripped = [command.strip() for command in commands if command.strip()]
    return stripped[0] if stripped and all(_waits(command) for command in stripped) else ""


def _waits(command: str) -> bool:
    if _REDIRECTED.search(command) or not _closed(command):
        return False
    parts = [words for words in simple_commands(command) if words]
    return bool(parts) and all(_gives_nothing(program_onwards(words)) for words in parts)


def _closed(command: str) -> bool:
    """Whether every quote is; the shell will say so of one that is not."""
    try:
        return bool(shlex.split(command))
    except ValueError:
        return False


def _gives_nothing(words: Sequence[str]) -> bool:
    if not words:
        return False
    program = PurePosixPath(words[0]).name
    harmless = next((options for name, options in _INTERPRETERS if name.fullmatch(program)), None)
    if harmless is None:
        return False
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word in _WITH_A_WORD and rest:
            rest.pop(0)
        elif not harmless.fullmatch(word):
            return False
    return True
