"""`sweep`: remove what killed runs left behind."""

from __future__ import annotations

import os

import click

from cleanroom.cli.options import Duration, general_options, output_option


@click.command()
@click.option(
    "--older",
    type=Duration(),
    metavar="DURATION",
    help="Also remove the project's records of runs that ended so long ago, such as 30d.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="With --older: only say which records would go; nothing is removed.",
)
@output_option("human", "json")
@general_options
def sweep(older: float | None, dry_run: bool, form: str, colour: str, root: str) -> None:
    """Remove what runs that were killed left behind; never touches a run that lives.

    What nobody can tell yet is left for now, and said. Exits 1 when something could not be removed.

    With --older the newest run stays, and of each phase the last one that passed. The audit log is
    cut where all before is gone, says so in its chain, and still verifies.

    \b
    cleanroom-engine sweep
    cleanroom-engine sweep --older 30d
    cleanroom-engine sweep --older 30d --dry-run
    """
    import msgspec

    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.sweep import sweep_lines

    if dry_run and older is None:
        raise click.UsageError("--dry-run is about the records of old runs: add --older DURATION")
    report = engine.SweepReport(dry_run=True) if dry_run else engine.sweep(root, caller=os.environ)
    if older is not None:
        gone = engine.remove_expired(root, older, dry_run=dry_run, caller=os.environ)
        report = msgspec.structs.replace(
            report, expired=gone.runs, audit_records=gone.audit_records
        )
    output = Output(colour)
    if form == "json":
        write_object(output, report)
    else:
        write_lines(output, sweep_lines(report))
    click.get_current_context().exit(1 if report.left else 0)
