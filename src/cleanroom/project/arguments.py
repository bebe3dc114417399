"""The arguments of `run PHASE -- ARGUMENT...` in the phase's commands. Pure.

They are what a command's own `"$@"` stands for; where no command has one, they follow the last
command.
Each is quoted, so that a shell takes none of them apart.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from cleanroom.model.errors import UsageError
from cleanroom.model.plan import PhaseRun

# $@ and $*, with braces too; a $1 may as well be awk's.
_POSITIONAL = re.compile(r"\$\{?[@*]")
# After these the words of a line are no arguments of its command: a comment, a here-document,
# what ends a list, a group or a compound command.
_CLOSED = re.compile(r"(?:^|\s)#[^\n]*$|<<|[;&|(){}\\]$|(?:^|[\s;])(?:done|fi|esac)$")


def with_arguments(phase: PhaseRun, arguments: Sequence[str]) -> tuple[str, ...]:
    """The phase's commands, given these arguments.

    Raises:
        UsageError: no command can take them.
    """
    if not arguments:
        return phase.commands
    words = shlex.join(arguments)
    if any(_POSITIONAL.search(command) for command in phase.commands):
        return tuple(
            f"set -- {words}\n{command}" if _POSITIONAL.search(command) else command
            for command in phase.commands
        )
    last = phase.commands[-1].rstrip() if phase.commands else ""
    if not last or _CLOSED.search(last):
        found = f"found one that ends in {last[-20:]!r}" if last else "found none"
        raise UsageError(
            "CR-USAGE-004",
            f"expected a command of {phase.name!r} that arguments can follow, {found}",
            hint='write "$@" where the arguments belong',
        )
    return (*phase.commands[:-1], f"{last} {words}")
