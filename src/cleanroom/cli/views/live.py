"""The live tree of a run on a terminal: what runs now, with ticking times, redrawn in place;
what has ended stays in the scrollback above it.

No alternate screen: whatever happens to the engine, what was said remains to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cleanroom.cli.output import Output
from cleanroom.cli.views.plain import Plain
from cleanroom.cli.views.printing import print_end
from cleanroom.cli.views.text import safe
from cleanroom.cli.views.words import Line
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.reports.text import seconds
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import Envelope, Finished, Started, Subject

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_SHORT_LINE = 10  # cells: below this an output line beside a phase tells nothing
_NAME_CELLS = 40  # of a phase, where its output needs room too
_WAIT_SECONDS = 1.0  # what takes less is not waited for
_SPARE_ROWS = 3  # above the tree, so that the last thing said is still seen

# what runs, seconds so far, whether it is a service that is ready
Row = tuple[Subject, float, bool]


class Signs(NamedTuple):
    """What the tree is drawn with."""

    frames: str
    branch: str
    last: str
    ready: str
    cut: str


UNICODE = Signs("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "├─ ", "└─ ", "✓", "…")
ASCII = Signs("|/-\\", "|- ", "`- ", "+", "~")


class LiveView:
    """Draws on standard error; the result goes to standard output at the end."""

    interval_seconds = 0.1  # ten times a second costs about 3 % of a core

    def __init__(self, output: Output, *, verbose: int = 0, console: Console | None = None) -> None:
        import sys

        from rich.console import Console as RichConsole
        from rich.live import Live

        self._output = output
        self._plain = Plain(verbose=verbose, show_output=True)
        self._verbose = verbose
        self._signs = UNICODE if output.unicode else ASCII
        colours = "auto" if output.colour_err else None
        self._console = console or RichConsole(
            file=sys.stderr,
            highlight=False,
            force_terminal=True,
            color_system=colours,  # type: ignore[arg-type]
        )
        self._head = Head()
        self._pending: list[Line] = []
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, envelope: Envelope) -> None:
        event = envelope.event
        if isinstance(event, Started) and event.subject.kind == "run":
            slo, phases = (
                _number(event.attributes.get(name)) for name in ("slo_seconds", "phases")
            )
            self._head = Head(event.subject.name, envelope.monotonic_ns, slo, int(phases))
        elif isinstance(event, Finished) and event.subject.kind == "phase":
            self._head = self._head._replace(ended=self._head.ended + 1)
        for line in self._plain.lines(envelope):
            if self._verbose or not (line.fenced or line.begins):
                self._pending.append(line)

    def tick(self, now_ns: int) -> None:
        self._plain.tick(now_ns)  # the tree tells what is slow
        self._print()
        size = self._console.size
        drawn = tree(
            self._head,
            self._plain.running(),
            self._plain.awaited(),
            self._plain.last_lines,
            now_ns,
            size.width,
            size.height,
            self._signs,
        )
        self._live.update(drawn, refresh=True)

    def finish(self, result: RunResult, rerun: str) -> None:
        self.close()
        print_end(self._output, 0, result, rerun)

    def refuse(self, error: CleanroomError) -> None:
        pass

    def close(self) -> None:
        from rich.text import Text

        self._print()
        self._live.update(Text(""))
        self._live.stop()

    def _print(self) -> None:
        """Put the lines since the last time into the scrollback, in one go:
        each print redraws the tree.

        The terminal folds them, not we.
        """
        from rich.text import Text

        if self._pending:
            lines = [Text(self._output.shown(line.text), style=line.tone) for line in self._pending]
            self._console.print(Text("\n").join(lines), soft_wrap=True)
            self._pending.clear()


class Head(NamedTuple):
    """What the tree's root says."""

    project: str = ""
    began_ns: int = 0
    slo_seconds: float = 0.0
    phases: int = 0
    ended: int = 0


def tree(
    head: Head,
    rows: list[Row],
    awaited: tuple[Subject, float] | None,
    last_lines: dict[Subject, str],
    now_ns: int,
    width: int,
    height: int,
    signs: Signs = UNICODE,
) -> Text:
    """What the run waits for, phases that run with their last line of output, and services;
    within `width` cells and `height` lines.
    """
    from rich.text import Text

    frame = signs.frames[(now_ns // 100_000_000) % len(signs.frames)]
    passed = max(now_ns - head.began_ns, 0) / 1e9 if head.began_ns else 0.0
    slo = f" / {seconds(head.slo_seconds)}" if head.slo_seconds else ""
    late = bool(head.slo_seconds) and passed > head.slo_seconds
    count = f", {head.ended} of {head.phases} phases" if head.phases > 1 else ""
    waiting = (
        f", waiting for {safe(awaited[0].name)} ({seconds(awaited[1])})"
        if awaited and awaited[1] >= _WAIT_SECONDS
        else ""
    )
    root = _fitted(
        safe(head.project) or "starting", f" {seconds(passed)}{slo}{count}{waiting}", width, signs
    )
    shown = sorted(rows, key=lambda row: row[0].kind != "phase")[: max(height - _SPARE_ROWS - 2, 1)]
    rest = (
        [Text(f"and {len(rows) - len(shown)} more", style="dim")] if len(shown) < len(rows) else []
    )
    branches = [
        _row(row, last_lines.get(row[0], ""), frame, width - len(signs.last), signs)
        for row in shown
    ] + rest
    lines = [Text(root, style="yellow" if late else "bold")]
    for number, branch in enumerate(branches, 1):
        lines.append(
            Text(signs.last if number == len(branches) else signs.branch, style="dim") + branch
        )
    return Text("\n", no_wrap=True, overflow="crop").join(lines)


def _row(row: Row, tail: str, frame: str, width: int, signs: Signs) -> Text:
    from rich.cells import cell_len
    from rich.text import Text

    subject, running_seconds, ready = row
    name = safe(f"{subject.workspace}/{subject.name}" if subject.workspace else subject.name)
    if subject.kind == "service":
        state = "ready" if ready else f"starting {seconds(running_seconds)}"
        return Text(
            _fitted(f"{signs.ready if ready else frame} service {name}", f" {state}", width, signs),
            style="green" if ready else "",
        )
    room = min(width, _NAME_CELLS) if tail and width > _NAME_CELLS + _SHORT_LINE else width
    text = Text(
        _fitted(f"{frame} {name}", f" {seconds(running_seconds)}", room, signs), style="bold"
    )
    left = width - cell_len(text.plain) - 2
    if tail and left > _SHORT_LINE:
        text.append(f"  {_fitted(tail, '', left, signs)}", style="not bold dim")
    return text


def _fitted(text: str, end: str, width: int, signs: Signs) -> str:
    """`text` and `end` in at most `width` cells; where both do not fit, `text` is cut first."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) + cell_len(end) <= width:
        return text + end
    room = width - cell_len(end) - 1
    if room < 1:
        return set_cell_size(text + end, max(width, 0))
    return set_cell_size(text, room).rstrip() + signs.cut + end


def _number(value: object) -> float:
    """0 where the event does not say it, or says something else."""
    return float(value) if isinstance(value, int | float) else 0.0
