"""`trace`: a recorded run as spans: a waterfall, the critical path, what got slower;
opened in a viewer, or sent to a collector later.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cleanroom.cli.options import general_options, output_option

_PAGE_BYTES = 64 << 10  # Jaeger's has 4 KiB
_LOOKED_BACK = 200  # runs that are read to find some that are like one

if TYPE_CHECKING:
    from cleanroom.evidence.tracing import SpanData
    from cleanroom.evidence.tracing.deliver import Delivered


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
def trace(
    run_id: str | None,
    critical_path: bool,
    baseline: tuple[str, ...],
    open_page: bool,
    push: str | None,
    form: str,
    colour: str,
    root: str,
) -> None:
    """Show where the time of a run went; without RUN the newest.

    \b
    cleanroom-engine trace
    cleanroom-engine trace --critical-path
    cleanroom-engine trace --compare 5
    cleanroom-engine trace --push http://127.0.0.1:4318
    """
    if sum((critical_path, bool(baseline), open_page, push is not None)) > 1:
        raise click.UsageError("--critical-path, --compare, --open and --push exclude each other")
    if push is not None:
        _push(root, run_id, push, form, colour)
    elif open_page:
        _open(root, run_id, colour)
    else:
        _show(root, run_id, critical_path, baseline, form, colour)


def _show(
    root: str,
    run_id: str | None,
    critical_path: bool,
    baseline: tuple[str, ...],
    form: str,
    colour: str,
) -> None:
    from cleanroom import engine
    from cleanroom.cli.output import Output, say, say_object
    from cleanroom.cli.views.waterfall import columns, differences, steps, waterfall
    from cleanroom.evidence.tracing import reading

    run, spans = engine.read_trace(root, run_id)
    output = Output(colour)
    nodes = reading.trees(spans)
    found: Any
    notes: list[str] = []
    if baseline:
        others, notes = _others(root, run, spans, baseline)
        found = reading.compare(spans, others)
        lines = differences(found, output)
    elif critical_path:
        found = reading.critical_path(_main(nodes)) if nodes else []
        lines = steps(found, output)
    else:
        found = spans
        lines = waterfall(nodes, output, columns(output))
    if form == "json":
        say_object(output, found)
        output.err("".join(f"{note}\n" for note in notes))
    else:
        say(output, [headline(run, spans), *notes, *lines])


def headline(run: str, spans: list[SpanData]) -> str:
    """Which run it is, and what a viewer calls it."""
    from cleanroom.evidence.reports.text import plural

    return f"run {run} · trace {spans[0].trace_id if spans else '-'} · {plural(len(spans), 'span')}"


def _main(nodes: list[Any]) -> Any:
    """The run's own tree; code under test may have left roots of its own."""
    return max(nodes, key=lambda node: node.span.duration_ns)


def _others(
    root: str, run: str, spans: list[SpanData], baseline: tuple[str, ...]
) -> tuple[list[list[SpanData]], list[str]]:
    """The runs to compare with, and what has to be known of them.

    A plain number is so many runs before this one that are like it;
    a run that is named is taken as it is.
    """
    from cleanroom import engine
    from cleanroom.evidence.tracing.reading import unlike

    runs = engine.list_runs(root)
    counts = [int(text) for text in baseline if text.isdecimal() and text not in runs]
    found = {
        name: engine.read_trace(root, name)[1]
        for name in baseline
        if name in runs or not name.isdecimal()
    }
    notes = [
        _unlike(name, differing)
        for name, other in found.items()
        if (differing := unlike(spans, other))
    ]
    left_out: list[str] = []
    before = [name for name in reversed(runs[: runs.index(run)]) if name not in found]
    for name in before[:_LOOKED_BACK] if max(counts, default=0) else ():
        other = engine.read_trace(root, name)[1]
        if unlike(spans, other):
            left_out.append(name)
        else:
            found[name] = other
        if len(found) >= max(counts):
            break
    if left_out:
        notes.append(
            _left_out(len(left_out), unlike(spans, engine.read_trace(root, left_out[0])[1]))
        )
    if not found:
        why = f"; {notes[0]}" if notes else ""
        raise click.UsageError(
            f"--compare {' '.join(baseline)}: there is no run before {run} to compare with{why}"
        )
    return list(found.values()), notes


def _unlike(name: str, differing: list[str]) -> str:
    from cleanroom.cli.views.text import safe

    return safe(
        f"run {name} is another kind of run ({'; '.join(differing)}): nothing is called "
        "slower or faster"
    )


def _left_out(count: int, differing: list[str]) -> str:
    from cleanroom.cli.views.text import safe
    from cleanroom.evidence.reports.text import plural

    return safe(
        f"left out {plural(count, 'run')} of another kind, such as one with {'; '.join(differing)}"
    )


def _push(root: str, run_id: str | None, endpoint: str, form: str, colour: str) -> None:
    from cleanroom import engine
    from cleanroom.cli.output import Output, say, say_object

    run, delivered, already = engine.push_trace(root, run_id, endpoint, caller=os.environ)
    output = Output(colour)
    if form == "json":
        say_object(output, {"run_id": run, "already": already, "delivered": delivered})
    elif delivered.complete:
        say(output, [f"run {run} {'was sent before' if already else 'sent'}: {told(delivered)}"])
    else:
        output.err(lost(delivered, run, f" {endpoint}" if endpoint else "", root))
    click.get_current_context().exit(0 if delivered.complete else 5)


def told(delivered: Delivered) -> str:
    """What a collector took."""
    unwanted = f" (it takes no {' and no '.join(delivered.unwanted)})" if delivered.unwanted else ""
    return f"{_counted(delivered.counts) or 'nothing'} to {delivered.endpoint}{unwanted}"


def lost(delivered: Delivered, run: str, endpoint: str, root: str) -> str:
    """What was not delivered, why, and the line that sends it later: one line, as errors read."""
    import shlex

    from cleanroom.cli.views.failure import coded
    from cleanroom.cli.views.text import safe

    where = f" --root {shlex.quote(root)}" if root != "." else ""
    hint = f"{delivered.hint}; then: " if delivered.hint else ""
    what = f"{_counted(delivered.lost)} not delivered to {delivered.endpoint}: {delivered.why}"
    return coded(
        "CR-TRACE-004", safe(what), f"{hint}cleanroom-engine trace {run}{where} --push{endpoint}"
    )


def _counted(counts: Mapping[str, int]) -> str:
    from cleanroom.evidence.reports.text import plural

    words = {"traces": "span", "metrics": "point", "logs": "log record"}
    return ", ".join(plural(count, words[signal]) for signal, count in counts.items())


def _open(root: str, run_id: str | None, colour: str) -> None:
    """Jaeger's page of the trace where a Jaeger was given it and answers,
    else the run's own page.
    """
    from cleanroom import engine
    from cleanroom.cli.commands.report import show_page
    from cleanroom.cli.output import Output, say
    from cleanroom.cli.views.text import safe

    run, spans = engine.read_trace(root, run_id)
    page = viewer(engine.delivered_to(root, run), spans, os.environ.get("CLEANROOM_TRACE_URL", ""))
    address = (
        page
        or Path(root, ".ggen", "cleanroom", "runs", run, "test_results.html").resolve().as_uri()
    )
    output = Output(colour)
    say(output, [safe(address)])
    if not show_page(address):
        output.err("no browser could be started here\n")


def viewer(endpoint: str, spans: list[SpanData], template: str) -> str:
    """Where the trace is looked at: `template` with {trace_id} in it,
    else Jaeger's port on the host that it was sent to; "" where it has no page.
    """
    from urllib.parse import urlsplit

    if not spans or not (endpoint or template):
        return ""
    if template:
        return template.replace("{trace_id}", spans[0].trace_id)
    host = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").hostname or ""
    return f"http://{host}:16686/trace/{spans[0].trace_id}" if has_page(host, 16686) else ""


def has_page(host: str, port: int) -> bool:
    """Whether Jaeger's page is there.

    One that was built from its Go module answers with a placeholder.
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
