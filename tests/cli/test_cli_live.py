"""The live tree, drawn into a console of a given width."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len  # noqa: TID253
from rich.console import Console  # noqa: TID253

from cleanroom.cli.output import Output
from cleanroom.cli.views.live import ASCII, UNICODE, LiveView, Moment, Root, Signs, tree
from cleanroom.cli.views.plain import PlainLines
from cleanroom.cli.views.progress import Running
from cleanroom.cli.views.view import can_live
from cleanroom.evidence.reports.fold import fold
from cleanroom.model.events import Subject
from support.event_log_builder import EventLogBuilder, begin
from support.failing_run_log import failing_run

ROWS = [
    Running(Subject("phase", "test"), 75.0, False),
    Running(Subject("phase", "build", "a-workspace-with-a-rather-long-name" * 3), 0.5, False),
    Running(Subject("service", "postgres"), 3.0, True),
    Running(Subject("service", "redis"), 0.2, False),
]


def drawn(
    width: int,
    height: int = 24,
    rows: list[Running] = ROWS,
    signs: Signs = UNICODE,
    tail: str = "x" * 500,
    awaited: Running | None = None,
) -> list[str]:
    last_lines = {ROWS[0].subject: tail}
    moment = Moment(76_000_000_000, Root("shop", 1, 20.0), rows, awaited, last_lines)
    text = tree(moment, width, height, signs)
    return text.plain.split("\n")


@pytest.mark.parametrize("width", [8, 20, 80, 200])
@pytest.mark.parametrize("tail", ["x" * 500, "日本語テキスト" * 30])
def test_cli_live_tree_fits_the_width(width: int, tail: str) -> None:
    """No line of the tree takes more cells than the terminal has, wide letters too,
    and whatever runs has exactly one line.
    """
    lines = drawn(width, tail=tail)
    assert all(cell_len(line) <= width for line in lines)
    assert len(lines) == 1 + len(ROWS)


def test_cli_live_tree_fits_the_height() -> None:
    """Of more than a screen can show, the first are shown and the rest is counted."""
    rows = [Running(Subject("phase", f"p{number}"), 1.0) for number in range(100)]
    lines = drawn(80, 24, rows)
    assert len(lines) <= 24 - 2
    assert lines[-1].endswith("and 81 more")


def test_cli_live_tree_keeps_the_time_of_a_long_name() -> None:
    """A name that does not fit is cut, the time beside it is not."""
    rows = [Running(Subject("phase", "name-" * 40), 75.0)]
    assert drawn(60, rows=rows)[1].endswith("… 75.00 s")


def test_cli_live_tree_is_ascii_where_the_locale_is() -> None:
    """With ASCII signs nothing else is drawn."""
    assert all(line.isascii() for line in drawn(80, signs=ASCII))


def test_cli_live_names_what_the_run_waits_for() -> None:
    """The root names the slowest thing: the service that a phase cannot begin without,
    else the phase.
    """
    assert drawn(80, awaited=Running(Subject("service", "postgres"), 3.2))[0].endswith(
        ", waiting for postgres (3.20 s)"
    )


def test_plain_tells_a_waiting_phase_from_one_that_runs() -> None:
    """Before its first command a phase waits for its services that are not ready;
    afterwards the run waits for the phase.
    """
    story, plain = EventLogBuilder(), PlainLines()
    run = begin(story, requested="test")
    service = story.start(Subject("service", "postgres"), run)
    ready = story.start(Subject("readiness", "postgres"), service)
    phase = story.at(1.0).start(Subject("phase", "test"), run, services="postgres")

    def awaited(at: float) -> tuple[str, float] | None:
        for envelope in story.envelopes:
            plain.lines(envelope)
        story.envelopes.clear()
        plain.tick(5_000_000_000 + round(at * 1e9))
        found = plain.progress.awaited()
        return (found.subject.name, found.seconds) if found else None

    assert awaited(3.0) == ("postgres", 3.0)
    story.at(4.0).finish(ready)
    assert awaited(4.0) == ("test", 3.0)
    story.start(Subject("command", "test#1"), phase, command="x")
    assert awaited(5.0) == ("test", 4.0)


def test_cli_live_leaves_what_ended_in_the_scrollback() -> None:
    """After a run each phase's end was printed once above the tree,
    and no alternate screen was used.
    """
    screen = io.StringIO()
    view = LiveView(
        Output("never"),
        console=Console(
            file=screen,
            width=80,
            force_terminal=True,
            color_system=None,
            _environ={"TERM": "xterm"},
        ),
    )
    for envelope in failing_run():
        view.show(envelope)
        view.tick(envelope.monotonic_ns)
    view.close()
    text = screen.getvalue()
    assert text.count("phase init passed in 0.30 s") == 1
    assert text.count("phase bad failed after 12.00 s") == 1
    assert "\x1b[?1049h" not in text
    assert text.endswith("\x1b[?25h") or "\x1b[?25h" in text


def test_cli_live_summary_goes_to_stdout(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """The result of a live run is on standard output, with the failure last."""
    view = LiveView(
        Output("never"), console=Console(file=io.StringIO(), width=80, force_terminal=True)
    )
    view.finish(fold(failing_run()), "")
    assert (
        capsysbinary.readouterr()
        .out.decode()
        .rstrip()
        .endswith("run again: cleanroom-engine run bad")
    )


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True),
        ({"TERM": "xterm", "CI": "true"}, False),
    ],
)
def test_cli_live_needs_a_capable_terminal(environ: dict[str, str], expected: bool) -> None:
    """A tree is drawn on a terminal that can show one, and plain lines come out everywhere else."""
    assert can_live(True, environ) is expected
    assert not can_live(False, environ)


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ({"LC_ALL": "C"}, False),
        ({"LANG": "C.UTF-8"}, True),
        ({"LC_ALL": "C.UTF-8", "LANG": "C"}, True),
        ({}, True),
    ],
)
def test_cli_signs_follow_the_locale(
    locale: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the locale says ASCII our own signs are, although Python itself writes UTF-8 there."""
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    output = Output("never", locale)
    assert output.unicode is expected
    assert output.with_signs("a · b").isascii() is not expected
