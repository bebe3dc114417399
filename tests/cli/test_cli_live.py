"""The live tree, drawn into a console of a given width."""

from __future__ import annotations

import io

import pytest
from cli_story import failing_run
from rich.console import Console  # noqa: TID253

from cleanroom.cli.live import LiveView, _Head, tree
from cleanroom.cli.output import Output
from cleanroom.cli.view import can_live
from cleanroom.events import Subject
from cleanroom.reports.fold import fold

ROWS = [
    (Subject("phase", "test"), 75.0, False),
    (Subject("phase", "build", "a-workspace-with-a-rather-long-name" * 3), 0.5, False),
    (Subject("service", "postgres"), 3.0, True),
    (Subject("service", "redis"), 0.2, False),
]


@pytest.mark.parametrize("width", [20, 80, 200])
def test_cli_live_tree_fits_the_width(width: int) -> None:
    """No line of the tree is wider than the terminal, and every running phase and service has exactly one line."""
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(tree(_Head("shop", 1, 20.0), ROWS, {ROWS[0][0]: "x" * 500}, 76_000_000_000, width))
    lines = screen.getvalue().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines)
    assert len(lines) == 1 + len(ROWS) + 1  # the root and the branch of services


def test_cli_live_leaves_what_ended_in_the_scrollback() -> None:
    """After a run each phase's end was printed once above the tree, and no alternate screen was used."""
    screen = io.StringIO()
    view = LiveView(
        Output("never"), console=Console(file=screen, width=80, force_terminal=True, color_system=None, _environ={"TERM": "xterm"})
    )
    for envelope in failing_run():
        view.show(envelope)
        view.tick(envelope.monotonic_ns)
    view.close()
    text = screen.getvalue()
    assert text.count("phase init passed in 0.30 s") == 1
    assert text.count("phase bad failed: exit status 7") == 1
    assert "\x1b[?1049h" not in text
    assert text.endswith("\x1b[?25h") or "\x1b[?25h" in text


def test_cli_live_summary_goes_to_stdout(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """The result of a live run is on standard output, with the failure last."""
    view = LiveView(Output("never"), console=Console(file=io.StringIO(), width=80, force_terminal=True))
    view.finish(fold(failing_run()), "")
    assert capsysbinary.readouterr().out.decode().rstrip().endswith("run again: cleanroom-engine run bad")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "CI": "true"}, False),
    ],
)
def test_cli_live_needs_a_capable_terminal(environ: dict[str, str], expected: bool) -> None:
    """A tree is drawn on a terminal that can show one, and plain lines come out everywhere else."""
    assert can_live(True, True, environ) is expected
    assert not can_live(False, True, environ)
    assert not can_live(True, False, environ)
