"""The live tree of a run on a terminal: what runs now, with ticking times, redrawn in place; what has ended stays in the scrollback above it.

No alternate screen: whatever happens to the engine, what was said remains to be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom.cli.output import Output
from cleanroom.cli.plain import Plain
from cleanroom.cli.text import clip
from cleanroom.cli.view import print_end
from cleanroom.cli.words import Line
from cleanroom.errors import CleanroomError
from cleanroom.events import Envelope, Started, Subject
from cleanroom.reports.result import RunResult
from cleanroom.reports.text import seconds

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_SHORT_LINE = 10  # characters: below this an output line beside a phase tells nothing


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
        self._console = console or RichConsole(file=sys.stderr, highlight=False, soft_wrap=False)
        self._head = _Head()
        self._pending: list[Line] = []
        self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
        self._live.start()

    def show(self, envelope: Envelope) -> None:
        event = envelope.event
        if isinstance(event, Started) and event.subject.kind == "run":
            self._head = _Head(event.subject.name, envelope.monotonic_ns, float(event.attributes.get("slo_seconds", 0)))
        for line in self._plain.lines(envelope):
            if self._verbose or not (line.fenced or line.begins):
                self._pending.append(line)

    def tick(self, now_ns: int) -> None:
        self._pending += self._plain.tick(now_ns)
        self._print()
        rows = self._plain.running()
        self._live.update(tree(self._head, rows, self._plain.last_lines, now_ns, self._console.width), refresh=True)

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
        """Put the lines since the last time into the scrollback, in one go: each print redraws the tree."""
        from rich.text import Text

        if self._pending:
            self._console.print(Text("\n").join(Text(line.text, style=line.tone) for line in self._pending), overflow="fold")
            self._pending.clear()


class _Head:
    """What the tree's root says."""

    def __init__(self, project: str = "", began_ns: int = 0, slo_seconds: float = 0.0) -> None:
        self.project = project
        self.began_ns = began_ns
        self.slo_seconds = slo_seconds


def tree(head: _Head, rows: list[tuple[Subject, float, bool]], last_lines: dict[Subject, str], now_ns: int, width: int) -> RenderableType:
    """Phases that run with their last line of output, and services below, within `width` columns."""
    from rich.text import Text
    from rich.tree import Tree

    frame = _FRAMES[(now_ns // 100_000_000) % len(_FRAMES)]
    passed = max(now_ns - head.began_ns, 0) / 1e9 if head.began_ns else 0.0
    slo = f" / {seconds(head.slo_seconds)}" if head.slo_seconds else ""
    late = bool(head.slo_seconds) and passed > head.slo_seconds
    root = Tree(
        Text(clip(f"{head.project or 'starting'} {seconds(passed)}{slo}", width), style="yellow" if late else "bold"), guide_style="dim"
    )
    for subject, running_seconds, _ in (row for row in rows if row[0].kind == "phase"):
        root.add(_phase_row(subject, running_seconds, last_lines.get(subject, ""), frame, width))
    services = [row for row in rows if row[0].kind == "service"]
    if services:
        branch = root.add(Text("services", style="dim"))
        for subject, running_seconds, ready in services:
            state = "ready" if ready else f"starting {seconds(running_seconds)}"
            branch.add(Text(clip(f"{'✓' if ready else frame} {subject.name} {state}", width - 8), style="green" if ready else ""))
    return root


def _phase_row(subject: Subject, running_seconds: float, tail: str, frame: str, width: int) -> RenderableType:
    from rich.text import Text

    from cleanroom.cli.text import safe

    name = safe(f"{subject.workspace}/{subject.name}" if subject.workspace else subject.name)
    text = Text(clip(f"{frame} {name} {seconds(running_seconds)}", width - 4), style="bold")
    room = width - 4 - len(text.plain) - 2  # 4: the tree's guide
    if tail and room > _SHORT_LINE:
        text.append(f"  {clip(tail, room)}", style="not bold dim")
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text
