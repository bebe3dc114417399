"""`audit`: the tamper-evident log, shown or verified."""

from __future__ import annotations

from typing import Any

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
    from cleanroom.cli.output import Output, say, say_object

    require_log(root, "audit.jsonl", "audit.head")
    verification = engine.verify_audit(root)
    output = Output(colour)
    if form == "json":
        say_object(output, verification)
    else:
        say(output, described(verification, output))
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
    from cleanroom.cli.output import Output, say, say_object, say_objects

    require_log(root, "audit.jsonl")
    records = engine.show_audit(root)
    output = Output(colour)
    if form == "json":
        say_object(output, list(records))
    elif form == "jsonl":
        say_objects(output, records)
    else:
        say(output, map(record_line, records))


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


def described(verification: Any, output: Any) -> list[str]:
    """The verdict, then each problem with its place."""
    from cleanroom.cli.views.text import safe
    from cleanroom.evidence.reports.text import plural

    count = plural(verification.records, "record")
    torn = (
        " (a torn last line beyond the head is not counted: the engine was killed)"
        if verification.torn
        else ""
    )
    if verification.valid:
        return [f"{output.paint(output.mark('ok'), 'green')} valid: {count}{torn}"]
    problems = [
        f"  line {found.line}, record {found.seq}: {safe(found.problem)}"
        for found in verification.problems
    ]
    return [
        (
            f"{output.paint(output.mark('fail'), 'red')} NOT valid: {count}, "
            f"{plural(len(problems), 'problem')}"
        ),
        *problems,
    ]


def record_line(record: dict[str, Any]) -> str:
    """One record on one line: number, when, which run, what about what."""
    import json

    from cleanroom.cli.views.text import clip, safe

    subject = record["subject"]
    about = f"{subject['kind']} {subject['name']}".strip()
    detail = (
        clip(json.dumps(record["body"], ensure_ascii=False, separators=(",", ":")), 120)
        if record["body"]
        else ""
    )
    return safe(
        f"{record['seq']:>6}  {record['time']}  {record['run_id']}  {record['kind']:<10} "
        f"{about}  {detail}"
    ).rstrip()
