"""`report`: the reports again, from the recorded events alone."""

from __future__ import annotations

import click

from cleanroom.cli.options import general_options


@click.command()
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False),
    metavar="EVENTS",
    help="An events.jsonl; default: the newest run's.",
)
@click.option(
    "--report-dir",
    type=click.Path(file_okay=False),
    help="Where the reports go; default: .ggen/cleanroom/reports.",
)
@click.option(
    "--open",
    "open_page",
    is_flag=True,
    help="Open the page in a browser ($BROWSER, else the system's).",
)
@general_options
def report(
    source: str | None, report_dir: str | None, open_page: bool, colour: str, root: str
) -> None:
    """Make the reports of a run again, from its recorded events alone.

    \b
    cleanroom-engine report --open
    cleanroom-engine report --from events.jsonl --report-dir out
    """
    from pathlib import Path

    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines
    from cleanroom.cli.views.text import safe

    if source is None:
        require_run(root)
    written = engine.render_reports(root, source, report_dir)
    output = Output(colour)
    write_lines(output, [f"{kind}: {safe(str(path))}" for kind, path in written.items()])
    if open_page and not show_page(Path(written["html"]).resolve().as_uri()):
        output.err(
            "no browser could be started here; the page is "
            f"{safe(str(Path(written['html']).resolve()))}\n"
        )


def show_page(address: str) -> bool:
    """Open an address in the browser that the system or $BROWSER names;
    False where there is none, or only one that needs the terminal we do not have.
    """
    import os
    import sys
    import webbrowser

    try:
        in_terminal = type(webbrowser.get()) is webbrowser.GenericBrowser and not os.environ.get(
            "BROWSER"
        )
        return False if in_terminal and not sys.stdout.isatty() else webbrowser.open(address)
    except webbrowser.Error:
        return False


def require_run(root: str) -> None:
    """
    Raises:
        NothingRecorded: there is no run.
    """
    from cleanroom import engine
    from cleanroom.cli.views.failure import NothingRecorded

    if not engine.list_runs(root):
        raise NothingRecorded(
            f"no run is recorded in {root}", hint="run a pipeline first, or name a file with --from"
        )
