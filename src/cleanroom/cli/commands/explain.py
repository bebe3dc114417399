"""`explain`: what an error code means, offline."""

from __future__ import annotations

import click

from cleanroom.cli.options import debug_option


@click.command(short_help="Explain an error code.")
@click.argument(
    "code",
    required=False,
    shell_complete=lambda context, parameter, incomplete: codes_beginning_with(incomplete),
)
@debug_option
def explain(code: str | None) -> None:
    """Explain an error code, or list all of them.

    \b
    cleanroom-engine explain CR-NET-003
    cleanroom-engine explain
    """
    from cleanroom.cli.output import Output, write_lines
    from cleanroom.model.codes.table import CODES

    if code is None:
        write_lines(Output(), [f"{name}  {entry.title}" for name, entry in sorted(CODES.items())])
        return
    write_lines(Output(), page(known_code(code)))


def codes_beginning_with(incomplete: str) -> list[str]:
    """The codes that begin so, for completion."""
    from cleanroom.model.codes.table import CODES

    return [code for code in sorted(CODES) if code.startswith(incomplete.upper())]


def known_code(code: str) -> str:
    """The code as it is written in the table.

    Raises:
        UsageError: there is no such code.
    """
    from cleanroom.model.codes.table import CODES
    from cleanroom.model.errors import UsageError

    name = code.strip().upper()
    if name in CODES:
        return name
    from difflib import get_close_matches

    near = get_close_matches(name, CODES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?\n" if near else ""
    raise UsageError(
        "CR-CLI-004",
        f"there is no code {code!r}",
        hint=f"{hint}`cleanroom-engine explain` lists all codes",
    )


def page(code: str) -> list[str]:
    """The explanation as a person reads it, wrapped."""
    import textwrap

    from cleanroom.model.codes.table import CODES
    from cleanroom.model.rule_codes import RULE_CODES

    entry = CODES[code]
    rules = [rule for rule, of in RULE_CODES.items() if of == code]
    heading = [f"{code}: {entry.title}", *(f"rule: {rule}" for rule in rules), ""]
    text = textwrap.wrap(entry.paragraph, 100, break_long_words=False, break_on_hyphens=False)
    kind = "example:" if entry.is_command else "example, in make.toml:"
    return [*heading, *text, "", kind, *(f"    {line}" for line in entry.example_lines)]
