"""Plain lines and the summary, from recorded events."""

from __future__ import annotations

import re

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.cli.views.github import annotated
from cleanroom.cli.views.plain import PlainLines
from cleanroom.cli.views.summary import summary, verdict
from cleanroom.cli.views.text import safe
from cleanroom.cli.views.words import Line
from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.markdown import markdown_report
from cleanroom.evidence.reports.render import render
from cleanroom.model.events import Envelope, Finished, Note, Output, Subject
from support.event_log_builder import EventLogBuilder, begin, egress, phase
from support.failing_run_log import failing_run
from support.paths import TESTS

GOLDEN = TESTS / "golden"


def played(given_envelopes: list[Envelope], **options: bool | int) -> tuple[PlainLines, list[Line]]:
    plain = PlainLines(**options)  # type: ignore[arg-type]
    lines = []
    for envelope in given_envelopes:
        lines += plain.tick(envelope.monotonic_ns)
        lines += plain.lines(envelope)
    return plain, lines


def marked(lines: list[Line]) -> str:
    return "".join(f"{'out' if line.out else 'err'}: {line.text}\n" for line in lines)


def test_cli_plain_lines_of_a_run_are_the_golden_ones() -> None:
    """A recorded run reads, line by line and stream by stream, as the golden file says."""
    _, lines = played(failing_run())
    end = summary(fold(failing_run()), "")
    assert marked([*lines, *end]) == (GOLDEN / "cli-plain.txt").read_text()


def test_cli_plain_output_cannot_forge_a_line_of_ours() -> None:
    """Every line that comes from a phase's output begins with the phase's fence."""
    _, lines = played(failing_run())
    forged = [line.text for line in lines if "phase bad passed" in line.text]
    assert forged
    assert all(text.startswith("bad | ") for text in forged)


@given(st.lists(st.text(max_size=40), max_size=8))
def test_cli_plain_shown_output_holds_no_control_character(texts: list[str]) -> None:
    """Whatever a phase prints, in whatever pieces, no control character but the tab reaches the
    terminal, and every line is fenced.
    """
    plain = PlainLines()
    subject = Subject("phase", "p")
    template = failing_run()[0]
    wrapped = [Output(subject=subject, stream="stdout", text=text, offset=0) for text in texts]
    closing = Finished(subject=subject, result="passed", duration_seconds=1.0)
    shown = [
        line
        for event in [*wrapped, closing]
        for line in plain.lines(msgspec.structs.replace(template, event=event))  # type: ignore[type-var]
    ]
    assert all(line.text.startswith("p | ") for line in shown[:-1])
    assert not any(
        re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", line.text)
        for line in shown
    )


def test_cli_plain_a_line_that_ends_after_its_command_is_one_line() -> None:
    """The last bytes of a command are held back while they could begin a secret."""
    plain, template = PlainLines(), failing_run()[0]
    piece = Output(subject=Subject("phase", "p"), stream="stdout", text="version 00", offset=0)
    command = Finished(subject=Subject("command", "p#1"), result="passed", duration_seconds=1.0)
    rest = msgspec.structs.replace(piece, text="3\n", offset=10)
    lines = [
        line.text
        for event in (piece, command, rest)
        for line in plain.lines(msgspec.structs.replace(template, event=event))
    ]
    assert [line for line in lines if line.startswith("p | ")] == ["p | version 003"]


@given(st.text())
def test_cli_text_safe_is_idempotent(text: str) -> None:
    """Text that was made safe stays as it is when it is made safe again."""
    assert safe(safe(text)) == safe(text)


def test_cli_plain_slow_lines_double() -> None:
    """A phase that runs for twelve seconds is called slow at five and at ten, not each second."""
    until_init = failing_run()[:6]
    plain, _ = played(until_init)
    began = until_init[-1].monotonic_ns
    said = [
        line.text
        for second in range(13)
        for line in plain.tick(began + second * 1_000_000_000)
        if "init" in line.text
    ]
    assert said == ["SLOW [> 5 s] phase init", "SLOW [> 10 s] phase init"]


def test_cli_plain_without_output_says_nothing_on_stdout() -> None:
    """With output hidden nothing goes to standard output while the run runs."""
    _, lines = played(failing_run(), show_output=False)
    assert not any(line.out for line in lines)


def test_cli_plain_says_degraded_first() -> None:
    """What a run lacks is said on standard output before its head,
    although the backend's word comes after the run's start.
    """
    events = failing_run()
    note = Note(
        subject=Subject("run", "shop"),
        level="degraded",
        text="network.names is not held: no held calls",
    )
    _, lines = played([*events[:3], msgspec.structs.replace(events[2], event=note), *events[3:]])
    assert lines[0] == Line(
        "DEGRADED: network.names is not held: no held calls", out=True, tone="red"
    )
    assert lines[1].text.startswith("shop · ")


def test_cli_summary_says_degraded_last() -> None:
    """The last line of a degraded run says so, after everything else."""
    result = msgspec.structs.replace(fold(failing_run()), degraded=("network.names",))
    assert summary(result, "")[-1].text == "DEGRADED: network.names"


def test_a_run_whose_phases_all_passed_says_why_it_did_not():
    """Conflicts, violations by services, a missed SLO: the reason is in the terminal's,
    the page's and every other form.
    """
    story = EventLogBuilder()
    run = begin(story)
    story.at(1).finish(phase(story, run, "test"), exit_code=0)
    story.finish(
        run,
        "failed",
        exit_code=1,
        reason="2 files changed on the host meanwhile",
        code="CR-WORKSPACE-001",
    )
    result = fold(story.envelopes)
    assert result.reason == "2 files changed on the host meanwhile"
    assert summary(result, "")[1].text == f"why: {result.reason}"
    written = {name: data.decode() for name, data in render(result).items()}
    written |= {
        "markdown": markdown_report(result, bytes_max=1 << 20),
        "github": "".join(each.message for each in annotated(result)),
    }
    assert {name for name, text in written.items() if result.reason not in text} == set()


def test_cli_a_quiet_run_that_no_phase_failed_says_why() -> None:
    """With the code, since the reason stands nowhere else on standard output."""
    story = EventLogBuilder()
    run = begin(story)
    story.at(1).finish(phase(story, run, "test"), exit_code=0)
    story.finish(run, "failed", exit_code=1, reason="it took too long", code="CR-SLO-001")
    result = msgspec.structs.replace(fold(story.envelopes), reports={"json": "results.json"})
    assert [line.text for line in verdict(result)[1:]] == [
        "why: it took too long [CR-SLO-001]",
        "report: results.json",
    ]


def test_cli_a_quiet_run_names_a_few_phases_that_failed() -> None:
    """Those of workspaces fail side by side; the report has all."""
    story = EventLogBuilder()
    run = begin(story)
    for number in range(7):
        story.finish(phase(story, run, "test", f"w{number}"), "failed", exit_code=1)
    story.finish(run, "failed", exit_code=1)
    texts = [line.text for line in verdict(fold(story.envelopes))]
    assert texts[1].startswith("phase w0/test failed: exit status 1")
    assert texts[-1] == "and 2 more phases, see the report"


def test_cli_summary_says_how_notices_are_seen() -> None:
    """Where they were not shown already."""
    story = EventLogBuilder()
    run = begin(story)
    span = phase(story, run, "test")
    story.tell(egress("test", severity="notice", count=2), span)
    story.finish(span, exit_code=0)
    story.finish(run, exit_code=0)
    result = fold(story.envelopes)
    lines = [line.text for line in summary(result, "")]
    assert any("1 notice (2 attempts), -v shows it" in line for line in lines)
    assert "  a notice fails nothing: network.egress" in lines
    assert all("-v" not in line.text for line in summary(result, "", verbose=1))


def test_cli_summary_of_a_failure_names_phase_and_status_on_one_line() -> None:
    """The failing phase and its exit status stand on one line,
    and the line to run it again repeats the options.
    """
    texts = [line.text for line in summary(fold(failing_run()), " --env prod")]
    assert any(re.search(r"\bbad\b.*\b7\b", text) for text in texts)
    assert texts[-1] == "run again: cleanroom-engine run bad --env prod"


def test_cli_plain_says_once_why_a_phase_failed() -> None:
    """Reason, exit status and code stand in the summary alone, and so does no output again."""
    _, lines = played(failing_run())
    said = marked([*lines, *summary(fold(failing_run()), "")])
    assert said.count("exit status 7") == 1
    assert said.count("[CR-PHASE-005]") == 1
    assert "last " not in said

    _, lines = played(failing_run(), explain=True)
    assert marked(lines).count("exit status 7, after 12.00 s [CR-PHASE-005]") == 1
