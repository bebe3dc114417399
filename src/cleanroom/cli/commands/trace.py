"""`trace`: a recorded run as spans: a waterfall, the critical path, what got slower;
opened in a viewer, or sent to a collector later.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from cleanroom.cli.options import general_options, output_option

_PAGE_BYTES = 64 << 10  # Jaeger's has 4 KiB
_LOOKED_BACK = 200  # runs that are read to find some that are like one

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from cleanroom.evidence.tracing import SpanData
    from cleanroom.evidence.tracing.reading import Node

    class TraceOptions(TypedDict):
        """What the command line gives beside the run."""

        critical_path: bool
        baseline: tuple[str, ...]  # names of runs, or how many runs before
        open_page: bool
        push: str | None  # an endpoint; "": the environment's; None: not asked for
        form: str
        colour: str
        root: str


@click.command()
@click.argument("run_id", required=False, metavar="[RUN]")
@click.option(
    "--critical-path",
    is_flag=True,
    help="What the run's time was spent waiting for, and what could be gained at most.",
)
@click.option(
    "--compare",
    "baseline",
    metavar="RUN|N",
    multiple=True,
    help=(
        "What got slower than in RUN (again for more), or than in the N runs before that are "
        "like it."
    ),
)
@click.option(
    "--open",
    "open_page",
    is_flag=True,
    help="Open it in Jaeger, where it was sent to one, else the run's report.",
)
@click.option(
    "--push",
    is_flag=False,
    flag_value="",
    metavar="[ENDPOINT]",
    help="Send the recorded run to ENDPOINT, else to $OTEL_EXPORTER_OTLP_ENDPOINT; once.",
)
@output_option("human", "json")
@general_options
def trace(run_id: str | None, **options: Unpack[TraceOptions]) -> None:
    """Show where the time of a run went; without RUN the newest.

    \b
    cleanroom-engine trace
    cleanroom-engine trace --critical-path
    cleanroom-engine trace --compare 5
    cleanroom-engine trace --push http://127.0.0.1:4318
    """
    pushes = options["push"] is not None
    asked = (options["critical_path"], bool(options["baseline"]), options["open_page"], pushes)
    if sum(asked) > 1:
        raise click.UsageError("--critical-path, --compare, --open and --push exclude each other")
    if options["push"] is not None:
        _push(run_id, options["push"], options)
    elif options["open_page"]:
        _open(run_id, options)
    else:
        _show(run_id, options)


def _show(run_id: str | None, options: TraceOptions) -> None:
    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views import waterfall
    from cleanroom.evidence.tracing import reading

    run, spans = engine.read_trace(options["root"], run_id)
    output = Output(options["colour"])
    nodes = reading.trees(spans)
    found: object
    notes: list[str] = []
    if options["baseline"]:
        baseline = _baseline(options["root"], run, spans, options["baseline"])
        notes = baseline.notes
        differences = reading.compare(spans, baseline.runs)
        found, lines = differences, waterfall.differences(differences)
    elif options["critical_path"]:
        steps = reading.critical_path(_longest(nodes)) if nodes else []
        found, lines = steps, waterfall.steps(steps)
    else:
        found = spans
        lines = waterfall.waterfall(nodes, output, waterfall.columns(output))
    if options["form"] == "json":
        write_object(output, found)
        output.err("".join(f"{note}\n" for note in notes))
    else:
        write_lines(output, [waterfall.headline(run, spans), *notes, *lines])


def _longest(nodes: Sequence[Node]) -> Node:
    """The run's own tree; code under test may have left roots of its own."""
    return max(nodes, key=lambda node: node.span.duration_ns)


class _Baseline(NamedTuple):
    """The spans of each run to compare with, and notes on runs of another kind."""

    runs: list[list[SpanData]]
    notes: list[str]


def _baseline(root: str, run: str, spans: list[SpanData], asked: tuple[str, ...]) -> _Baseline:
    """The runs that `asked` names, of whatever kind, and so many runs before `run` of its kind
    as its largest plain number says.

    Raises:
        click.UsageError: there is no such run.
    """
    from cleanroom import engine
    from cleanroom.cli.views import waterfall
    from cleanroom.evidence.tracing.reading import circumstance_differences

    runs = engine.list_runs(root)
    wanted = max((int(text) for text in asked if text.isdecimal() and text not in runs), default=0)
    found = {
        name: engine.read_trace(root, name)[1]
        for name in asked
        if name in runs or not name.isdecimal()
    }
    notes = [
        waterfall.unlike_note(name, differing)
        for name, other in found.items()
        if (differing := circumstance_differences(spans, other))
    ]
    left_out: list[list[SpanData]] = []
    before = [name for name in reversed(runs[: runs.index(run)]) if name not in found]
    for name in before[:_LOOKED_BACK] if wanted else ():
        other = engine.read_trace(root, name)[1]
        if circumstance_differences(spans, other):
            left_out.append(other)
        else:
            found[name] = other
        if len(found) >= wanted:
            break
    if left_out:
        notes.append(
            waterfall.left_out_note(len(left_out), circumstance_differences(spans, left_out[0]))
        )
    if not found:
        why = f"; {notes[0]}" if notes else ""
        raise click.UsageError(
            f"--compare {' '.join(asked)}: there is no run before {run} to compare with{why}"
        )
    return _Baseline(list(found.values()), notes)


def _push(run_id: str | None, endpoint: str, options: TraceOptions) -> None:
    from cleanroom import engine
    from cleanroom.cli.output import Output, write_lines, write_object
    from cleanroom.cli.views.delivery import delivered_counts, undelivered

    root = options["root"]
    run, delivered, already = engine.push_trace(root, run_id, endpoint, caller=os.environ)
    output = Output(options["colour"])
    if options["form"] == "json":
        write_object(output, {"run_id": run, "already": already, "delivered": delivered})
    elif delivered.complete:
        sent = "was sent before" if already else "sent"
        write_lines(output, [f"run {run} {sent}: {delivered_counts(delivered)}"])
    else:
        output.err(undelivered(delivered, run, f" {endpoint}" if endpoint else "", root))
    click.get_current_context().exit(0 if delivered.complete else 5)


def _open(run_id: str | None, options: TraceOptions) -> None:
    """Open Jaeger's page of the trace where a Jaeger was sent it and answers,
    else the run's own page.
    """
    from cleanroom import engine
    from cleanroom.cli.commands.report import show_page
    from cleanroom.cli.output import Output, write_lines
    from cleanroom.cli.views.text import safe

    root = options["root"]
    run, spans = engine.read_trace(root, run_id)
    template = os.environ.get("CLEANROOM_TRACE_URL", "")
    address = viewer(engine.delivered_to(root, run), spans, template)
    if not address:
        page = Path(root, ".ggen", "cleanroom", "runs", run, "test_results.html")
        address = page.resolve().as_uri()
    output = Output(options["colour"])
    write_lines(output, [safe(address)])
    if not show_page(address):
        output.err("no browser could be started here\n")


def viewer(endpoint: str, spans: list[SpanData], template: str) -> str:
    """The address of the trace's page: `template` with {trace_id} filled in,
    else Jaeger's on the host of `endpoint`; "" where neither gives one.
    """
    from urllib.parse import urlsplit

    if not spans or not (endpoint or template):
        return ""
    if template:
        return template.replace("{trace_id}", spans[0].trace_id)
    host = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname or ""
    return f"http://{host}:16686/trace/{spans[0].trace_id}" if has_page(host, 16686) else ""


def has_page(host: str, port: int) -> bool:
    """Whether Jaeger's page is served there.

    A Jaeger that was built from its Go module answers with a placeholder.
    """
    import http.client

    connection = http.client.HTTPConnection(host, port, timeout=0.5)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status == 200 and b"not the Jaeger UI" not in answer.read(_PAGE_BYTES)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
