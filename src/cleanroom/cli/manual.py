"""The manual page, made from the commands themselves: `python -m cleanroom.cli.manual` prints
cleanroom-engine.1.

Pure but for the printing.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

import click

from cleanroom.cli.app import EPILOG, app, command_names
from cleanroom.cli.reference import FILES, VARIABLES, children
from cleanroom.core.version import __version__

# of this version: a page that changed with the day of its making could not be compared
DATE = "2026-11-25"


def page() -> str:
    """The whole page, in man's macros."""
    context = click.Context(app, info_name="cleanroom-engine", help_option_names=["-h", "--help"])
    lines = [
        f'.TH CLEANROOM-ENGINE 1 "{DATE}" "cleanroom-engine {__version__}" "User Commands"',
        ".SH NAME",
        *_prose(f"cleanroom-engine - {_paragraphs(app)[0].rstrip('.').lower()}"),
        ".SH SYNOPSIS",
        r"\fBcleanroom\-engine\fR \fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_prose(
            "It runs the phases of a project's make.toml, each in an environment of its own, "
            "with the services that it declares and nothing "
            "else, and leaves evidence of what held. Results go to standard output, progress "
            "to standard error."
        ),
        *_examples(app),
        ".SH COMMANDS",
    ]
    for name, command in command_names().items():
        lines += _command(command, name, context)
    return "\n".join([*lines, *_tail()]) + "\n"


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    inner = list(children(command))
    if not inner:
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        yield f".SS {_text(usage.removeprefix('cleanroom-engine '))}"
        for number, paragraph in enumerate(_paragraphs(command)):
            yield from ([".PP"] if number else [])
            yield from _prose(paragraph)
        yield from _examples(command)
        yield from _options(command, context)
    for child_name, child in inner:
        yield from _command(child, child_name, context)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.params:
        if isinstance(parameter, click.Option) and (record := parameter.get_help_record(context)):
            names, help_text = record
            yield from (".TP", f"\\fB{_text(names)}\\fR", *_prose(help_text))


def _paragraphs(command: click.Command) -> list[str]:
    """What the help says, without the examples."""
    text = re.sub(r"^\s+", "", command.help or "", flags=re.MULTILINE)
    return [
        " ".join(block.split()) for block in _blocks(command) if not block.startswith("\b")
    ] or [text]


def _examples(command: click.Command) -> Iterator[str]:
    for block in _blocks(command):
        if block.startswith("\b"):
            yield from (
                ".PP",
                ".RS 4",
                ".nf",
                *(_text(line.strip()) for line in block.splitlines()[1:]),
                ".fi",
                ".RE",
            )


def _blocks(command: click.Command) -> Sequence[str]:
    import inspect

    return inspect.cleandoc(command.help or "").split("\n\n")


def _tail() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for status, meaning in re.findall(r"([\d/]+) ([^,.]+)", EPILOG):
        yield from (".TP", f"\\fB{status}\\fR", *_prose(meaning))
    for title, rows in (("ENVIRONMENT", VARIABLES), ("FILES", FILES)):
        yield f".SH {title}"
        for name, meaning in rows.items():
            yield from (".TP", f"\\fB{_text(name)}\\fR", *_prose(meaning))
    yield from (
        ".SH SEE ALSO",
        *_prose(
            "cleanroom-engine explain CODE tells cause and help of every error code; docs/ "
            "of the project has the rest."
        ),
    )


def _prose(text: str) -> list[str]:
    """A paragraph as short lines."""
    return [_text(line) for line in textwrap.wrap(text, 72, break_on_hyphens=False)]


def _text(text: str) -> str:
    """As roff reads it: nothing in it is a macro or an escape."""
    escaped = (
        text.replace("\\", r"\e").replace("-", r"\-").replace("·", r"\(pc").replace("…", "...")
    )
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    click.echo(page(), nl=False)
