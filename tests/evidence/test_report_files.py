"""JSON, JUnit, the page and the picture: what they say, and that nothing hostile gets out of its
place in them.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.html import html_report
from cleanroom.evidence.reports.json_report import json_report
from cleanroom.evidence.reports.junit import junit
from cleanroom.evidence.reports.render import FILES, render
from cleanroom.evidence.reports.result import CanaryResult, RunResult
from cleanroom.evidence.reports.timeline import timeline
from cleanroom.model.capability import Process, Target
from cleanroom.model.events import Artifact, Ledger, Note, Output, Recovery, Subject
from support.event_log_builder import (
    RUN,
    EventLogBuilder,
    begin,
    canary,
    capability,
    egress,
    metric,
    phase,
    shop,
)
from support.golden_files import golden

VOID = {"meta"}


def hostile_run(text: str) -> RunResult:
    """A run in which everything that others can name is `text`."""
    story = EventLogBuilder()
    run = begin(story, requested=text, backend=text, degraded=text)
    story.tell(capability(), run)
    service = story.start(Subject("service", text), run, version=text)
    span = phase(story, run, text, workspace=text, log=text)
    story.tell(canary(text, "network", text, text), span)
    story.tell(
        Output(subject=Subject("phase", text), stream="stdout", text=f"x{text}", offset=0), span
    )
    process = Process(pid=1, exe=text, comm=text, argv=(text, text), cwd=text)
    attempt = msgspec.structs.replace(
        egress("p"), process=process, target=Target(path=f"/{text}"), reason=text, environment=text
    )
    story.tell(attempt, span)
    story.tell(
        msgspec.structs.replace(attempt, severity="tolerated", process=None, attribution_gap=text),
        span,
    )
    story.at(0.5).tell(metric(text, 1.0, 100), span)
    story.at(1).tell(metric(text, 2.0, 200), span)
    story.tell(Recovery(subject=Subject("service", text), action="gave_up", cause=text), run)
    story.tell(Artifact(subject=RUN, path=text, role="events"), run)
    story.tell(Note(subject=RUN, level="warning", text=text), run)
    story.tell(Ledger(subject=RUN, created=1, removed=0, left=(text,), held=(text,)), run)
    story.finish(span, "failed", exit_code=1, reason=text)
    story.finish(service, "failed", reason=text)
    story.finish(
        run, "failed", exit_code=1, code="CR-X-001", reason=text, attributes={"hint": text}
    )
    return msgspec.structs.replace(fold(story.envelopes), project=text, version=text, run_id=text)


class _Shape(HTMLParser):
    """Tags with the names of their attributes, and whether they balance."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


HOSTILE = st.lists(
    st.sampled_from(
        [
            "<script>",
            "</script>",
            "</title>",
            "</style>",
            "<!--",
            "]]>",
            "<![CDATA[",
            '"',
            "'",
            "&",
            "&lt;",
            "<img src=x onerror=alert(1)>",
            "\x00",
            "\x1b[31m",
            "\x1b]8;;http://x\x07",
            "\r",
            "\n",
            "\u202e",
            "\ud800",
            "\ufffe",
            "a",
            " ",
            "é",
            "</pre>",
            "[[ATTACHMENT|/etc/passwd]]",
            "javascript:",
        ]
    ),
    min_size=1,
    max_size=12,
).map(lambda parts: "z" + "".join(parts).replace(",", "") + "z")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HOSTILE)
def test_no_hostile_text_adds_a_tag_to_the_page(text: str) -> None:
    """Whatever names, paths, arguments and output hold, the page has exactly the tags and
    attributes that a harmless run's has.
    """
    page = html_report(hostile_run(text)).decode()

    shape = _Shape(page)
    assert shape.tags == _Shape(html_report(hostile_run("harmless")).decode()).tags
    assert shape.open == []


@settings(max_examples=60, deadline=None)
@given(HOSTILE)
def test_junit_is_well_formed_with_the_same_elements_for_any_text(text: str) -> None:
    """An XML parser accepts it, and hostile text is text."""

    def shape(data: bytes) -> list[tuple[str, list[str]]]:
        return [
            (element.tag, sorted(element.attrib)) for element in ElementTree.fromstring(data).iter()
        ]

    assert shape(junit(hostile_run(text))) == shape(junit(hostile_run("harmless")))


@settings(max_examples=60, deadline=None)
@given(HOSTILE)
def test_the_picture_is_well_formed_for_any_text(text: str) -> None:
    """An XML parser accepts the picture, and hostile text adds no element."""

    def shape(data: str) -> list[str]:
        return [element.tag for element in ElementTree.fromstring(data).iter()]

    assert shape(timeline(hostile_run(text))) == shape(timeline(hostile_run("harmless")))


def test_the_page_holds_no_script_and_loads_nothing():
    """No script, no link, no address that a browser would fetch."""
    page = html_report(fold(shop())).decode()

    assert not {"script", "link", "img", "iframe", "a", "object"} & {
        tag for tag, _ in _Shape(page).tags
    }
    assert "url(" not in page
    assert "default-src 'none'" in page.replace("&#x27;", "'")


def test_the_page_says_what_a_reader_looks_for():
    """Outcome and exit code, phases, the violation with process and target, canaries,
    capabilities, services, account, how to run it again.
    """
    page = html_report(fold(shop())).decode()

    for words in (
        "FAILED",
        "exit status 1",
        "skipped",
        "pid 4711 /usr/bin/curl",
        "example.org:443",
        "8 of 8 came back as expected",
        "overlay, Landlock",
        "postgres",
        "9 created, 9 removed, 0 held, 0 left",
        "cleanroom-engine run test",
        "cleanroom-engine pipeline init test validate",
        "cleanroom-engine audit verify",
        "1 failed",
        "SLO 20.00 s",
    ):
        assert words in page


def test_spans_and_page_agree_on_the_anchor_of_a_phase():
    """The address in a phase's span leads to that phase's row."""
    from cleanroom.evidence.tracing import spans
    from cleanroom.evidence.tracing.names import TASK_RUN_URL

    page = html_report(fold(shop())).decode()
    anchors = {
        span.name: str(span.attributes[TASK_RUN_URL]).partition("#")[2]
        for span in spans(shop())
        if TASK_RUN_URL in span.attributes
    }

    assert anchors == {"phase init": "phase-1", "phase test": "phase-2"}
    assert '<tr role="row" id="phase-2"><td data-label="phase" role="cell">test</td>' in page


def test_every_cell_says_its_column():
    """On a telephone a row is a list: each cell has its column's name,
    and table and rows say that they are still that.
    """
    page = html_report(fold(shop())).decode()

    assert page.count("<td ") == page.count('role="cell"') == page.count("data-label=")
    assert "<td>" not in page
    assert page.count("<table ") == page.count('role="table"') > 0


@pytest.mark.parametrize("name", [*FILES.values()])
def test_a_report_is_as_its_golden_file(name: str) -> None:
    """A change of a report is a decision, seen in a diff."""
    data = render(fold(shop()))[name]

    assert data == golden(name, data)


def test_the_picture_is_as_its_golden_file():
    """The README's picture changes only on purpose."""
    data = timeline(fold(shop(failing=False))).encode() + b"\n"

    assert data == golden("run.svg", data)


def test_the_json_report_is_the_result():
    """Reading it back gives the same value."""
    result = fold(shop())

    assert msgspec.json.decode(json_report(result), type=RunResult) == result


def cases(result: RunResult) -> dict[str, ElementTree.Element]:
    root = ElementTree.fromstring(junit(result))
    found = {f"{case.get('classname')} {case.get('name')}": case for case in root.iter("testcase")}
    for verdict, attribute in (
        ("failure", "failures"),
        ("error", "errors"),
        ("skipped", "skipped"),
    ):
        assert root.get(attribute) == str(len(list(root.iter(verdict))))
    assert root.get("tests") == str(len(found))
    return found


def test_junit_has_canaries_in_a_suite_of_their_own():
    """The project's suite has phases and services; it tells of a failed canary all the same."""
    suites = ElementTree.fromstring(junit(fold(shop()))).findall("testsuite")
    groups = [{case.get("classname") for case in suite} - {None} for suite in suites]
    assert [suite.get("name") for suite in suites] == ["shop", "shop.isolation"]
    assert groups == [{"shop.phase", "shop.service"}, {"shop.canary", "shop.account"}]

    failed = CanaryResult(
        name="connect-out",
        result="failed",
        dimension="network",
        rule="network.egress",
        environment="test-1",
        expected="refused",
        found="connected",
    )
    result = RunResult(project="shop", outcome="refused", reason="not held", canaries=(failed,))
    suites = ElementTree.fromstring(junit(result)).findall("testsuite")
    assert [suite.get("failures") for suite in suites] == ["1", "1"]
    assert suites[0].find("testcase").get("classname") == "shop.run"


def test_junit_has_the_file_and_line_of_a_phase():
    """As the project declares it; a phase without a position has none."""
    story = EventLogBuilder()
    run = begin(story)
    for name, attributes in (("test", {"origin": "api/make.toml:7:1"}), ("lint", {})):
        story.finish(phase(story, run, name, **attributes), "passed", exit_code=0)
    found = cases(fold(story.envelopes))
    test, lint = (found[f"shop.phase {name}"] for name in ("test", "lint"))
    assert (test.get("file"), test.get("line")) == ("api/make.toml", "7")
    assert lint.get("file") is None


def test_a_broken_rule_is_a_failure_of_type_policy():
    """CI shows the attempt with process and target as the phase's failure."""
    failure = cases(fold(shop()))["shop.phase test"].find("failure")

    assert failure.get("type") == "policy"
    assert "/usr/bin/curl" in failure.get("message")


def test_attempts_and_exit_status_of_one_phase_are_both_named():
    """In each report, the attempt first, since it usually explains the exit status."""
    result = fold(shop())
    both = "3 attempts against the policy, exit status 1"
    failure = cases(result)["shop.phase test"].find("failure")
    page = html_report(result).decode()

    assert failure.get("message").startswith("CR-PHASE-005 blocked: ")
    assert failure.get("message").endswith(f"; {both}")
    assert json_report(result).count(both.encode()) == 1
    wrong = page[page.index("Blocked: ") :]
    assert wrong.index("pid 4711") < wrong.index(f"failed, {both}, after")
    assert page.count(f"failed, {both}, after") == 1
    assert "exit status 1, exit status 1" not in wrong


def test_the_page_leads_with_what_was_blocked_and_what_failed():
    """Both stand before times and tables; a run in which nothing was blocked says so."""
    page = html_report(fold(shop())).decode()
    titles = re.findall(r"<h2>([^<:]+)", page)
    quiet = html_report(RunResult(outcome="passed")).decode()

    assert titles[:3] == ["Blocked", "Failed", "Timeline"]
    assert "Blocked: nothing" in quiet


def test_rows_after_the_twentieth_are_folded_away_and_still_there():
    """A flood of attempts does not push what failed out of sight."""
    row = fold(shop()).violations[0]
    rows = tuple(
        msgspec.structs.replace(row, target=Target(host=f"h{number}.example", port=443))
        for number in range(30)
    )
    page = html_report(RunResult(outcome="failed", violations=rows)).decode()

    before, _, folded = page.partition("<details>")
    assert "h19.example" in before
    assert "h20.example" not in before
    assert "and 10 more rows" in folded
    assert "h29.example" in folded


def test_notices_are_told_what_they_are():
    """In the page and in JUnit, with the place where they are listed."""
    story = EventLogBuilder()
    run = begin(story)
    span = phase(story, run, "test")
    found = egress("test", severity="notice", count=2)
    story.tell(msgspec.structs.replace(found, tags=("pycache",)), span)
    story.finish(span, "passed", exit_code=0)
    result = msgspec.structs.replace(fold(story.envelopes), reports={"html": "r/page.html"})
    words = "notice fails nothing: byte code was to be kept beside a tool"
    (property_,) = (
        one
        for one in ElementTree.fromstring(junit(result)).iter("property")
        if one.get("name") == "notices"
    )

    assert f"A {words}." in html_report(result).decode()
    assert property_.get("value") == f"1 notice: a {words}; listed in r/page.html"
    assert f"  a {words}" in result.explain().splitlines()


def test_each_report_has_the_codes_that_the_terminal_shows():
    """Of phases, services, violations and notes; JUnit's messages begin with them."""
    story = EventLogBuilder()
    run = begin(story)
    service = story.start(Subject("service", "postgres"), run)
    story.finish(
        service, "failed", reason="gone", code="CR-SERVICE-020", attributes={"hint": "wait"}
    )
    span = phase(story, run, "test")
    story.tell(egress("test"), span)
    story.tell(Note(subject=RUN, level="warning", text="slow", code="CR-SLO-001"), span)
    story.finish(span, "error", code="CR-ENV-002", reason="broken", attributes={"hint": "again"})
    story.finish(run, "error", exit_code=5, code="CR-ENV-002", reason="broken")
    result = fold(story.envelopes)
    page = html_report(result).decode()
    found = cases(result)

    assert [(one.code, one.hint) for one in result.phases] == [("CR-ENV-002", "again")]
    assert [(one.code, one.hint) for one in result.services] == [("CR-SERVICE-020", "wait")]
    assert [one.code for one in result.violations] == ["CR-NET-003"]
    assert [(one.level, one.code) for one in result.note_details] == [("warning", "CR-SLO-001")]
    assert result.notes == ("slow [CR-SLO-001]",)
    failed = found["shop.phase test"].find("error")
    assert failed.get("message") == "CR-ENV-002 broken"
    assert failed.text.splitlines()[0].endswith("[network.egress], CR-NET-003")
    assert failed.text.splitlines()[1] == "again"
    gone = found["shop.service postgres"].find("error")
    assert (gone.get("message"), gone.text) == ("CR-SERVICE-020 gone", "wait")
    for words in ("broken [CR-ENV-002]", "gone [CR-SERVICE-020]", "network.egress [CR-NET-003]"):
        assert words in page


def test_a_skipped_phase_is_skipped_and_a_passing_run_has_no_failures():
    """Nothing that did not run counts as passed."""
    assert cases(fold(shop()))["shop.phase validate"].find("skipped") is not None
    assert not any(
        len(list(case.iter(verdict)))
        for case in cases(fold(shop(failing=False))).values()
        for verdict in ("failure", "error", "skipped")
    )


@pytest.mark.parametrize(
    ("outcome", "exit_code", "verdict"),
    [
        ("refused", 3, "failure"),
        ("error", 5, "error"),
        ("unverified", 4, "skipped"),
        ("cancelled", 130, "error"),
    ],
)
def test_an_outcome_that_no_case_explains_has_one_of_its_own(
    outcome: str, exit_code: int, verdict: str
) -> None:
    """A refused run's file is not an empty, green one."""
    story = EventLogBuilder()
    story.finish(begin(story), outcome, exit_code=exit_code, code="CR-X-001", reason="why")
    case = cases(fold(story.envelopes))["shop.run outcome"]

    assert case.find(verdict).get("message") == "CR-X-001 why"


def test_a_phase_at_fault_of_the_clock_or_ours_is_an_error():
    """A timeout is not the test's failure."""
    story = EventLogBuilder()
    run = begin(story)
    story.finish(phase(story, run, "slow"), "timeout", exit_code=143, reason="ran past 2 s")
    story.finish(run, "timeout", exit_code=124)

    assert cases(fold(story.envelopes))["shop.phase slow"].find("error").get("type") == "timeout"


def test_a_leak_and_a_failed_canary_are_not_green():
    """What is left behind is an error, an isolation that did not hold a failure."""
    story = EventLogBuilder()
    run = begin(story)
    story.tell(canary("connect-out", "network", "network.egress", "e", passed=False), run)
    story.tell(Ledger(subject=RUN, created=2, removed=1, left=("folder x",)), run)
    found = cases(fold(story.envelopes))

    assert found["shop.account nothing is left"].find("error").text == "folder x"
    assert found["shop.canary connect-out in e"].find("failure").get("type") == "policy"


def test_output_cannot_attach_files_to_the_report():
    """Only the engine's own log is an attachment, whatever the phase prints."""
    story = EventLogBuilder()
    run = begin(story)
    span = phase(story, run, "test")
    story.tell(
        Output(
            subject=Subject("phase", "test"),
            stream="stdout",
            text="[[ATTACHMENT|/etc/passwd]]",
            offset=0,
        ),
        span,
    )
    story.finish(span, "failed", exit_code=1)
    text = junit(fold(story.envelopes)).decode()

    assert text.count("[[ATTACHMENT") == 1
    assert "[[ATTACHMENT|/etc" not in text


@given(st.floats(min_value=0.0, max_value=1e6), st.floats(min_value=0.001, max_value=1e6))
def test_the_picture_is_finite_for_any_duration_and_slo(duration: float, slo: float) -> None:
    """Microseconds or days: at most ten ticks, no coordinate outside the picture."""
    result = RunResult(outcome="passed", exit_code=0, duration_seconds=duration, slo_seconds=slo)
    root = ElementTree.fromstring(timeline(result))
    lines = [
        line
        for line in root.iter("{http://www.w3.org/2000/svg}line")
        if line.get("class") == "grid"
    ]

    assert 1 <= len(lines) <= 10
    assert all(0 <= float(line.get("x1")) <= 960 for line in lines)
