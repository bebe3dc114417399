"""A run as GitHub's runner sees it: commands off while others speak, escaped annotations,
the step summary.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from cleanroom.cli.output import Output
from cleanroom.cli.views.github import EACH_MAX, SUMMARY_BYTES, Annotation, GithubView, annotated
from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.markdown import markdown_report
from cleanroom.evidence.reports.result import PhaseResult, RunResult, ViolationResult
from cleanroom.model.capability import Target
from cleanroom.model.errors import ProjectError
from cleanroom.model.events import Envelope
from support.event_log_builder import shop
from support.failing_run_log import failing_run

FORGERY = "::error::forged"
COMMAND = re.compile(r"^::(\w[\w-]*)[ :]", re.MULTILINE)


def phase(name: str, *excerpt: str) -> PhaseResult:
    return PhaseResult(
        name=name,
        result="failed",
        hermetic=True,
        exit_code=7,
        duration_seconds=1.0,
        excerpt=excerpt,
    )


def violation(number: int, severity: str = "violation") -> ViolationResult:
    return ViolationResult(
        rule="network.egress",
        action="blocked",
        certainty="held_syscall",
        mechanism="seccomp_notify",
        process=None,
        target=Target(host=f"host-{number}"),
        count=1,
        severity=severity,
        dimension="network",
        phase="test",
    )


def shown(
    capsys: pytest.CaptureFixture[str], envelopes: list[Envelope], result: RunResult, **options: str
) -> str:
    view = GithubView(Output("never"), **options)
    for envelope in envelopes:
        view.show(envelope)
    view.finish(result, "")
    view.close()
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_github_commands_are_off_while_phases_speak(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a phase prints stands between stop-commands and its token,
    which differs in each run; annotations come after it.
    """
    envelopes = failing_run()
    first, second = (shown(capsys, envelopes, fold(envelopes)) for _ in range(2))
    tokens = [
        re.fullmatch(r"::stop-commands::([0-9a-f]{32})", text.splitlines()[0])[1]
        for text in (first, second)
    ]  # type: ignore[index]
    assert tokens[0] != tokens[1]
    fenced, after = first.split(f"::{tokens[0]}::\n")
    assert "before-the-end" in fenced
    assert COMMAND.findall(fenced) == ["stop-commands"]
    assert set(COMMAND.findall(after)) == {"error"}


def test_github_annotations_cannot_be_broken_out_of() -> None:
    """Line ends and percent signs are escaped in the message,
    colons and commas in properties too: one line, one command.
    """
    command = Annotation("error", "a:b,c%\n::x", f"50%\r\n{FORGERY}").command()
    assert command == "::error title=a%3Ab%2Cc%25%0A%3A%3Ax::50%25%0D%0A::error::forged"


def test_github_annotations_of_a_file_are_relative_to_the_repository() -> None:
    """A position in make.toml becomes file, line and column, below the project's folder."""
    command = Annotation("error", "CR-X", "text", "make.toml:3:12").command("services/shop")
    assert command == "::error file=services/shop/make.toml,line=3,col=12,title=CR-X::text"


def test_github_a_file_that_cannot_be_read_is_annotated_where_it_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An error before any run becomes an annotation at its line, with the hint."""
    view = GithubView(Output("never"))
    view.refuse(
        ProjectError("CR-PROJECT-003", "expected TOML", hint="correct it", where="make.toml:1:3")
    )
    view.close()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "::error file=make.toml,line=1,col=3,title=CR-PROJECT-003::make.toml:1:3: expected "
        "TOML%0Ahint: correct it"
    )


def test_github_shows_no_more_than_is_shown_and_counts_the_rest() -> None:
    """Of thirty violations nine are annotated and one annotation counts the others;
    the failed phase is not lost among tolerated ones.
    """
    result = RunResult(
        outcome="failed", violations=tuple(violation(number) for number in range(30))
    )
    errors = [each for each in annotated(result) if each.kind == "error"]
    assert len(errors) == EACH_MAX
    assert errors[-1].title == "and 21 more"
    tolerated = RunResult(
        outcome="failed",
        phases=(phase("test"),),
        violations=tuple(violation(n, "tolerated") for n in range(30)),
    )
    assert [each.title for each in annotated(tolerated) if each.kind == "error"] == ["phase test"]


def test_github_every_run_that_did_not_pass_has_an_error() -> None:
    """Exit 4 and a signal are errors too; a run that passed has a notice and none."""
    for outcome in ("failed", "refused", "unverified", "error", "timeout", "interrupted"):
        assert [each.kind for each in annotated(RunResult(outcome=outcome))] == ["error"]
    passed = fold(shop(failing=False))
    assert {each.kind for each in annotated(passed)} == {"notice"}


def test_github_summary_is_added_to_the_step_and_stays_below_its_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What earlier commands of the step wrote stays, and the file never passes the size at which
    all of it would be dropped.
    """
    file = tmp_path / "summary.md"
    for before in (b"earlier\n", b"x" * (SUMMARY_BYTES - 500), b"x" * SUMMARY_BYTES):
        file.write_bytes(before)
        shown(capsys, [], fold(failing_run()), summary_file=str(file))
        written = file.read_bytes()
        assert written.startswith(before)
        assert len(written) <= SUMMARY_BYTES
        assert (b"FAILED" in written) == (len(before) < SUMMARY_BYTES)


def test_github_a_summary_that_cannot_be_written_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's own verdict stays, and the log says why there is no summary."""
    out = shown(capsys, [], fold(shop(failing=False)), summary_file=str(tmp_path))
    assert "::warning title=step summary::" in out.splitlines()[-1]


def test_markdown_text_stays_text() -> None:
    """Names and output with Markdown in them become neither tables,
    links nor the end of the fence.
    """
    hostile = msgspec.structs.replace(
        RunResult(outcome="failed"),
        project="a|b](x) <img>",
        phases=(phase("p|q", "````", "# not a heading"),),
    )
    lines = markdown_report(hostile, bytes_max=SUMMARY_BYTES).splitlines()
    assert lines[0] == r"## a\|b\]\(x\) \<img\>: FAILED (exit 5)"
    fence = next(
        number
        for number, line in enumerate(lines)
        if line.endswith("text") and line.startswith("`")
    )
    assert lines[fence : fence + 4] == ["`````text", "````", "# not a heading", "`````"]
    assert r"| p\|q | failed | 1.00 s | yes |" in lines


@pytest.mark.parametrize("size", [200, 1000, 5000])
def test_markdown_is_cut_at_a_line_and_says_so(size: int) -> None:
    """A page that is too large keeps its verdict, ends with a note, and fits."""
    large = RunResult(
        outcome="failed", violations=tuple(violation(number) for number in range(150))
    )
    page = markdown_report(large, bytes_max=size)
    assert len(page.encode()) <= size
    assert page.startswith("## run: FAILED")
    assert page.endswith("\n(cut: the reports have the rest)\n")


def test_github_failures_stand_at_the_line_of_their_phase() -> None:
    """A phase that failed, and what was blocked in it, are annotated where it is declared."""
    failed = msgspec.structs.replace(phase("test"), origin="make.toml:7:1")
    result = RunResult(outcome="failed", phases=(failed,), violations=(violation(1),))
    errors = [each.command("sub") for each in annotated(result) if each.kind == "error"]
    assert len(errors) == 2
    assert all(each.startswith("::error file=sub/make.toml,line=7,col=1,") for each in errors)
