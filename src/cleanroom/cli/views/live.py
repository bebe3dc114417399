"""The live tree of a run on a terminal: what runs now, with ticking times, redrawn in place.

Lines about what has ended stay in the scrollback above it.
There is no alternate screen, so that these lines remain whatever happens to the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cleanroom.cli.output import Output
from cleanroom.cli.views.plain import PlainLines
from cleanroom.cli.views.printing import print_end
from cleanroom.cli.views.progress import Running
from cleanroom.cli.views.text import safe
from cleanroom.cli.views.words import Line, qualified_name
from cleanroom.evidence.reports.result import RunResult
from cleanroom.evidence.reports.text import seconds
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import Envelope, Finished, Started, Subject

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_SHORT_LINE = 10  # cells: fewer of an output line beside a phase tell nothing
_NAME_CELLS = 40  # of a phase, where its output needs room too
_WAIT_SECONDS = 1.0  # shorter waits are not shown
_SPARE_ROWS = 3  # above the tree, so that the last lines are still seen


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
        self._plain = PlainLines(verbose=verbose, show_output=True)
        self._verbose = verbose
        self._signs = UNICODE if output.unicode else ASCII
        colours = "auto" if output.colour_err else None
        self._console = console or RichConsole(
            file=sys.stderr,
            highlight=False,
            force_terminal=True,
            color_system=colours,  # type: ignore[arg-type]
        )
        self._root = Root()
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
            self._root = Root(event.subject.name, envelope.monotonic_ns, slo, int(phases))
        elif isinstance(event, Finished) and event.subject.kind == "phase":
            self._root = self._root._replace(ended=self._root.ended + 1)
        for line in self._plain.lines(envelope):
            if self._verbose or not (line.fenced or line.begins):
                self._pending.append(line)

    def tick(self, now_ns: int) -> None:
        self._plain.tick(now_ns)  # its SLOW lines are not shown: the tree has the times
        self._print()
        size = self._console.size
        moment = Moment(
            now_ns,
            self._root,
            self._plain.progress.running(),
            self._plain.progress.awaited(),
            self._plain.output.last_lines,
        )
        drawn = tree(moment, size.width, size.height, self._signs)
        self._live.update(drawn, refresh=True)

    def finish(self, result: RunResult, rerun: str) -> None:
        self.close()
        print_end(self._output, result, rerun, verbose=self._verbose)

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
            lines = [
                Text(self._output.with_signs(line.text), style=line.tone) for line in self._pending
            ]
            self._console.print(Text("\n").join(lines), soft_wrap=True)
            self._pending.clear()


class Root(NamedTuple):
    """The run, at the tree's root."""

    project: str = ""
    began_ns: int = 0
    slo_seconds: float = 0.0
    phases: int = 0
    ended: int = 0  # of the phases


class Moment(NamedTuple):
    """All that the tree shows, at one moment of the envelopes' monotonic clock."""

    now_ns: int
    root: Root
    running: list[Running]
    awaited: Running | None
    last_lines: dict[Subject, str]


def tree(moment: Moment, width: int, height: int, signs: Signs = UNICODE) -> Text:
    """The run and what it waits for, phases that run with their last line of output, and
    services; within `width` cells and `height` lines.
    """
    from rich.text import Text

    frame = signs.frames[(moment.now_ns // 100_000_000) % len(signs.frames)]
    phases_first = sorted(moment.running, key=lambda row: row.subject.kind != "phase")
    shown = phases_first[: max(height - _SPARE_ROWS - 2, 1)]
    branches = [
        _row(row, moment.last_lines.get(row.subject, ""), frame, width - len(signs.last), signs)
        for row in shown
    ]
    hidden = len(moment.running) - len(shown)
    if hidden:
        branches.append(Text(f"and {hidden} more", style="dim"))
    lines = [_root_line(moment, width, signs)]
    for number, branch in enumerate(branches, 1):
        lines.append(
            Text(signs.last if number == len(branches) else signs.branch, style="dim") + branch
        )
    return Text("\n", no_wrap=True, overflow="crop").join(lines)


def _root_line(moment: Moment, width: int, signs: Signs) -> Text:
    from rich.text import Text

    root, awaited = moment.root, moment.awaited
    passed = max(moment.now_ns - root.began_ns, 0) / 1e9 if root.began_ns else 0.0
    facts = f" {seconds(passed)}"
    if root.slo_seconds:
        facts += f" / {seconds(root.slo_seconds)}"
    if root.phases > 1:
        facts += f", {root.ended} of {root.phases} phases"
    if awaited and awaited.seconds >= _WAIT_SECONDS:
        facts += f", waiting for {safe(awaited.subject.name)} ({seconds(awaited.seconds)})"
    late = bool(root.slo_seconds) and passed > root.slo_seconds
    text = _fitted(safe(root.project) or "starting", facts, width, signs)
    return Text(text, style="yellow" if late else "bold")


def _row(row: Running, tail: str, frame: str, width: int, signs: Signs) -> Text:
    from rich.cells import cell_len
    from rich.text import Text

    subject = row.subject
    name = qualified_name(subject)
    if subject.kind == "service":
        sign = signs.ready if row.ready else frame
        state = "ready" if row.ready else f"starting {seconds(row.seconds)}"
        return Text(
            _fitted(f"{sign} service {name}", f" {state}", width, signs),
            style="green" if row.ready else "",
        )
    room = min(width, _NAME_CELLS) if tail and width > _NAME_CELLS + _SHORT_LINE else width
    text = Text(_fitted(f"{frame} {name}", f" {seconds(row.seconds)}", room, signs), style="bold")
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
