"""The message and the exit status of an exception. Pure; `app` prints."""

from __future__ import annotations

from typing import NamedTuple

import click

from cleanroom.cli.views.text import clip, safe
from cleanroom.model.errors import EXIT_ORDER, CleanroomError, Exit

# characters: a file can have ten thousand phases to choose from, and a command line as long a word
_LINE_MAX = 2000


class NothingRecorded(CleanroomError):
    """A command that reads what runs left found nothing, so it verified nothing."""

    exit = Exit.UNVERIFIED

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__("CR-CLI-005", message, hint=hint)


class Stopped(BaseException):
    """A signal ended the command before there was a run that could report it."""

    def __init__(self, status: Exit) -> None:
        super().__init__(f"stopped by a signal, exit status {int(status)}")
        self.status = status


class Shown(NamedTuple):
    """The text for standard error, and the command's exit status."""

    text: str
    status: int


def explain(error: BaseException) -> Shown:
    """The message and exit status of the exception that ended the command."""
    cause = root_cause(error)
    if isinstance(cause, CleanroomError):
        return Shown(
            "" if cause.reported else coded(cause.code, str(cause), cause.hint), int(cause.exit)
        )
    if isinstance(cause, click.exceptions.NoArgsIsHelpError):
        return Shown(cause.format_message() + "\n", Exit.USAGE)
    if isinstance(cause, click.ClickException):
        return Shown(
            coded("CR-CLI-001", cause.message or cause.format_message(), _usage_hint(cause)),
            Exit.USAGE,
        )
    if isinstance(cause, (KeyboardInterrupt, click.Abort)):
        return Shown("", Exit.INTERRUPTED)
    if isinstance(cause, Stopped):
        return Shown("", cause.status)
    if isinstance(cause, (RecursionError, MemoryError)):
        hint = (
            "the project's files are nested too deeply or too large to be read; make them simpler"
        )
        return Shown(
            coded(
                "CR-CLI-003", f"an input is beyond what can be read ({type(cause).__name__})", hint
            ),
            Exit.USAGE,
        )
    if isinstance(cause, BrokenPipeError):
        return Shown("", Exit.ENGINE)
    text = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
    return Shown(
        coded(
            "CR-ENGINE-000",
            text,
            (
                "run again with --debug for the traceback, and report it: this is a fault of the "
                "engine"
            ),
        ),
        Exit.ENGINE,
    )


def coded(code: str, message: str, hint: str = "") -> str:
    """The form of every error: message, hint, and the command that explains its code."""
    first, *rest = message.splitlines() or [""]
    lines = [f"error[{code}]: {_short(first)}", *(f"  {_short(line)}" for line in rest)]
    lines += [
        f"{'  ' if number else 'hint: '}{_short(line)}"
        for number, line in enumerate(hint.splitlines())
    ]
    return "\n".join([*lines, f"explain: cleanroom-engine explain {code}"]) + "\n"


def _short(line: str) -> str:
    return clip(safe(line), _LINE_MAX)


def root_cause(error: BaseException) -> BaseException:
    """The one exception of a group that decides how the command ends:
    ours by exit order, before signals' and others'.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [root_cause(inner) for inner in error.exceptions]
    interrupts = [leaf for leaf in leaves if isinstance(leaf, (KeyboardInterrupt, Stopped))]
    ours = sorted(
        (leaf for leaf in leaves if isinstance(leaf, CleanroomError)),
        key=lambda leaf: EXIT_ORDER.index(leaf.exit),
    )
    return (interrupts or ours or leaves)[0]


def _usage_hint(error: click.ClickException) -> str:
    possibilities = getattr(error, "possibilities", None)
    if possibilities:
        return f"did you mean {' or '.join(possibilities)}?"
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path if context else 'cleanroom-engine'} --help`"
