"""The reference page of all commands, made from the commands themselves: `python -m cleanroom.cli.reference` prints docs/commands.md."""

from __future__ import annotations

from collections.abc import Iterator

import click

from cleanroom.cli.app import COMMANDS, EPILOG, app, command_names

_INTRODUCTION = f"""# Commands

Made from the commands themselves by `python -m cleanroom.cli.reference`. Results go to standard output, progress to standard error.
`--output json` and `jsonl` are the interface for programs: their fields are only ever added. What people read may change.

{EPILOG} More in [exit-codes.md](exit-codes.md).
"""


def markdown() -> str:
    """The whole page."""
    context = click.Context(app, info_name="cleanroom-engine", help_option_names=["-h", "--help"])
    sections = [_section(command, name, context) for name, command in command_names().items()]
    index = [f"- [`{name}`](#{name}): {text}" for name, (_, text, _) in COMMANDS.items()]
    return "\n".join([_INTRODUCTION, *index, "", *sections]).rstrip() + "\n"


def _section(command: click.Command, name: str, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    lines = [f"## {name}", "", "```text", _help(context), "```", ""]
    for child_name, child in _children(command):
        lines += [f"### {name} {child_name}", "", "```text", _help(click.Context(child, info_name=child_name, parent=context)), "```", ""]
    return "\n".join(lines)


def _children(command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        yield from command.commands.items()


def _help(context: click.Context) -> str:
    context.terminal_width = 120
    return context.get_help().strip()


if __name__ == "__main__":
    click.echo(markdown(), nl=False)
