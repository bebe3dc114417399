"""`events`: what runs recorded, as it was, as a run would show it, and what its fields mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cleanroom.cli.options import general_options, output_option, verbosity_options

if TYPE_CHECKING:
    from cleanroom.model.events import Envelope


@click.group()
def events() -> None:
    """Show, replay or describe recorded events.

    \b
    cleanroom-engine events show --output jsonl
    cleanroom-engine events replay
    cleanroom-engine events schema
    """


@events.command(short_help="Show the events of a run, one per line.")
@click.argument("run_id", required=False)
@output_option("human", "jsonl")
@general_options
def show(run_id: str | None, form: str, colour: str, root: str) -> None:
    """Show the events of a run, one per line; without RUN_ID the newest run's.

    \b
    cleanroom-engine events show
    cleanroom-engine events show 20261125-215133-dhuei --output jsonl
    """
    from cleanroom.cli.output import Output, write_lines, write_objects
    from cleanroom.cli.views.events import event_line

    envelopes, output = recorded(root, run_id), Output(colour)
    if form == "jsonl":
        write_objects(output, envelopes)
    else:
        write_lines(output, map(event_line, envelopes))


@events.command(short_help="Show a recorded run as it was shown.")
@click.argument("run_id", required=False)
@verbosity_options
@general_options
def replay(run_id: str | None, quiet: int, verbose: int, colour: str, root: str) -> None:
    """Show a recorded run as it was shown when it ran; without RUN_ID the newest.

    \b
    cleanroom-engine events replay
    cleanroom-engine events replay 20261125-215133-dhuei -v
    """
    from cleanroom.cli.output import Output
    from cleanroom.cli.views.view import PlainView
    from cleanroom.evidence.reports.fold import fold

    envelopes = recorded(root, run_id)
    output = Output(colour)
    view = PlainView(output, quiet=quiet, verbose=verbose)
    for envelope in envelopes:
        view.tick(envelope.monotonic_ns)
        view.show(envelope)
    view.finish(fold(envelopes), "")
    output.check()


@events.command()
def schema() -> None:
    """Print the JSON Schema of an event.

    \b
    cleanroom-engine events schema > events.schema.json
    """
    import msgspec

    from cleanroom.cli.output import Output, write_lines
    from cleanroom.model.events import schema as of_events

    write_lines(
        Output(), [msgspec.json.format(msgspec.json.encode(of_events()), indent=2).decode()]
    )


def recorded(root: str, run_id: str | None) -> list[Envelope]:
    """The events of the run that was named, or of the newest.

    Raises:
        NothingRecorded: there is no such run here.
    """
    from cleanroom import engine
    from cleanroom.cli.views.failure import NothingRecorded

    runs = engine.list_runs(root)
    if not runs or (run_id is not None and run_id not in runs):
        known = (
            f"runs here: {', '.join(runs[-5:])}"
            if runs
            else "run a pipeline first, or name the project with --root"
        )
        raise NothingRecorded(
            f"no run {run_id or ''} is recorded in {root}".replace("  ", " "), hint=known
        )
    return engine.read_run(root, run_id)
