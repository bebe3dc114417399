"""`audit`: the tamper-evident log, shown or verified."""

from __future__ import annotations

import click

from cleanroom.cli.options import general_options, output_option


@click.group()
def audit() -> None:
    """Show or verify the tamper-evident log of this project.

    \b
    cleanroom-engine audit verify
    cleanroom-engine audit show --output json
    """


@audit.command(short_help="Check every record against its hash chain and head.")
@output_option("human", "json")
@general_options
def verify(form: str, colour: str, root: str) -> None:
    """Check every record of the audit log against its hash chain and head.

    Exits 1 when a record was changed, lost, moved or added, and 4 when there is no log.

    \b
    cleanroom-engine audit verify
    cleanroom-engine audit verify --output json
    """
    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.audit import verification_lines

    require_log(root, "audit.jsonl", "audit.head")
    verification = engine.verify_audit(root)
    output = Output(colour)
    if form == "json":
        write_object(output, verification)
    else:
        write_lines(output, verification_lines(verification, output))
    click.get_current_context().exit(0 if verification.valid else 1)


@audit.command()
@output_option("human", "json", "jsonl")
@general_options
def show(form: str, colour: str, root: str) -> None:
    """Show the records of the audit log, oldest first.

    \b
    cleanroom-engine audit show
    cleanroom-engine audit show --output jsonl | grep '"kind":"violation"'
    """
    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines, write_object, write_objects
    from cleanroom.cli.views.audit import record_line

    require_log(root, "audit.jsonl")
    records = engine.show_audit(root)
    output = Output(colour)
    if form == "json":
        write_object(output, list(records))
    elif form == "jsonl":
        write_objects(output, records)
    else:
        write_lines(output, map(record_line, records))


def require_log(root: str, *names: str) -> None:
    """
    Raises:
        NothingRecorded: no run of this project has written an audit log.
    """
    from pathlib import Path

    from cleanroom.cli.views.failure import NothingRecorded
    from cleanroom.core.files import is_missing

    folder = Path(root, ".ggen", "cleanroom", "audit")
    if all(is_missing(folder / name) for name in names):
        raise NothingRecorded(
            f"no audit log in {folder}",
            hint="run a pipeline first, or name the project with --root",
        )
