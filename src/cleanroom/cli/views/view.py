"""What a run looks like while it runs and when it has ended:
one class per form of output, all fed with the same envelopes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from cleanroom.cli.output import Output
from cleanroom.cli.views.plain import PlainLines
from cleanroom.cli.views.printing import print_end, print_lines
from cleanroom.cli.views.words import Line
from cleanroom.evidence.reports.result import RunResult
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import Envelope


class View(Protocol):
    """A display. Nothing here waits; `interval_seconds` is how often `tick` wants to be called."""

    interval_seconds: float

    def show(self, envelope: Envelope) -> None:
        """An event happened."""

    def tick(self, now_ns: int) -> None:
        """Time passed; `now_ns` is on the envelopes' monotonic clock."""

    def finish(self, result: RunResult, rerun: str) -> None:
        """The run is over. `rerun` holds the options that a line to run it again has to repeat."""

    def refuse(self, error: CleanroomError) -> None:
        """There is no run, because of this; the error itself is reported by whoever catches it."""

    def close(self) -> None:
        """Leave the terminal as it was, also when there is no result."""


class PlainView:
    """Plain lines: progress on standard error, phases' output and the summary on standard
    output.
    """

    interval_seconds = 1.0

    def __init__(self, output: Output, *, quiet: int = 0, verbose: int = 0) -> None:
        self._output = output
        self._quiet = quiet
        self._verbose = verbose
        self._plain = PlainLines(verbose=verbose, show_output=not quiet)

    def show(self, envelope: Envelope) -> None:
        lines = self._plain.lines(envelope)
        if not self._quiet:
            print_lines(self._output, lines)

    def tick(self, now_ns: int) -> None:
        lines = self._plain.tick(now_ns)
        if not self._quiet:
            print_lines(self._output, lines)

    def finish(self, result: RunResult, rerun: str) -> None:
        print_end(self._output, result, rerun, quiet=self._quiet, verbose=self._verbose)

    def refuse(self, error: CleanroomError) -> None:
        pass

    def close(self) -> None:
        pass


class JsonView:
    """One object at the end on standard output; progress, without the phases' output,
    on standard error.
    """

    interval_seconds = 1.0

    def __init__(self, output: Output, *, quiet: int = 0, verbose: int = 0) -> None:
        self._output = output
        self._quiet = quiet
        self._plain = PlainLines(verbose=verbose, show_output=False, explain=True)

    def show(self, envelope: Envelope) -> None:
        self._progress(self._plain.lines(envelope))

    def tick(self, now_ns: int) -> None:
        self._progress(self._plain.tick(now_ns))

    def _progress(self, lines: Iterable[Line]) -> None:
        if not self._quiet:
            print_lines(self._output, [line._replace(out=False) for line in lines])

    def finish(self, result: RunResult, rerun: str) -> None:
        self._output.json(result)

    def refuse(self, error: CleanroomError) -> None:
        pass

    def close(self) -> None:
        pass


class JsonlView:
    """The envelopes as they happen, one per line, and nothing else."""

    interval_seconds = 3600.0  # nothing here depends on time

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, envelope: Envelope) -> None:
        self._output.json(envelope)

    def tick(self, now_ns: int) -> None:
        pass

    def finish(self, result: RunResult, rerun: str) -> None:
        pass

    def refuse(self, error: CleanroomError) -> None:
        pass

    def close(self) -> None:
        pass


def choose(
    form: str, output: Output, *, quiet: int, verbose: int, live: bool, root: str = "."
) -> View:
    """The view for `--output FORM`; `live` where standard error is a terminal that can show one."""
    if form == "jsonl":
        return JsonlView(output)
    if form == "json":
        return JsonView(output, quiet=quiet, verbose=verbose)
    if form == "github":
        import os

        from cleanroom.cli.views.github import GithubView

        return GithubView(
            output,
            quiet=quiet,
            verbose=verbose,
            root=root,
            summary_file=os.environ.get("GITHUB_STEP_SUMMARY", ""),
        )
    if live and not quiet:
        from cleanroom.cli.views.live import LiveView

        return LiveView(output, verbose=verbose)
    return PlainView(output, quiet=quiet, verbose=verbose)


def can_live(stderr_is_terminal: bool, environ: Mapping[str, str]) -> bool:
    """Whether a live tree can be drawn.

    A dumb terminal and CI get plain lines, which every tool can read.
    """
    return (
        stderr_is_terminal
        and environ.get("TERM", "dumb") not in ("", "dumb")
        and not environ.get("CI")
    )
