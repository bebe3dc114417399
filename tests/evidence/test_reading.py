"""What a person asks of a trace."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.evidence.tracing import SpanData, spans
from cleanroom.evidence.tracing.reading import compare, critical_path, paths, trees, walk
from cleanroom.evidence.tracing.span import Source
from support.event_log_builder import shop

SECOND = 10**9


def span(number: int, parent: int, begin: float, end: float, name: str = "") -> SpanData:
    return SpanData(
        trace_id="1" * 32,
        span_id=f"{number:016x}",
        parent_id=f"{parent:016x}" if parent else "",
        name=name or f"step {number}",
        start_ns=round(begin * SECOND),
        end_ns=round(end * SECOND),
        source=Source(),
    )


@st.composite
def nested(draw: st.DrawFn) -> list[SpanData]:
    """A tree whose children lie within their parents."""
    found = [span(1, 0, 0, 100)]
    for number in range(2, draw(st.integers(2, 12))):
        parent = draw(st.sampled_from(found))
        begin = draw(st.floats(parent.start_ns / SECOND, parent.end_ns / SECOND))
        found.append(
            span(
                number,
                int(parent.span_id, 16),
                begin,
                draw(st.floats(begin, parent.end_ns / SECOND)),
            )
        )
    return found


@given(nested())
def test_the_critical_path_accounts_for_all_of_the_time(found: list[SpanData]) -> None:
    """Its steps add up to the run, and none is longer than its span."""
    (root,) = trees(found)
    steps = critical_path(root)

    assert abs(sum(step.seconds for step in steps) - 100) < 1e-6
    assert abs(sum(step.share for step in steps) - 1) < 1e-6
    assert [step.seconds for step in steps] == sorted(
        (step.seconds for step in steps), reverse=True
    )


@given(nested())
def test_every_span_is_in_the_tree_once(found: list[SpanData]) -> None:
    """With its parent before it, one deeper."""
    nodes = list(walk(trees(found)))
    depths = {node.span.span_id: node.depth for node in nodes}

    assert sorted(node.span.span_id for node in nodes) == sorted(one.span_id for one in found)
    assert all(depths[one.span_id] == depths[one.parent_id] + 1 for one in found if one.parent_id)


def test_what_runs_beside_something_longer_is_not_waited_for():
    """Only the child that ended last is on the path, and its parent for the rest."""
    (root,) = trees([span(1, 0, 0, 10), span(2, 1, 1, 4), span(3, 1, 1, 9)])

    assert [(step.path, step.seconds) for step in critical_path(root)] == [
        ("step 1 / step 3", 8.0),
        ("step 1", 2.0),
    ]


def test_a_service_is_waited_for_only_until_it_is_ready():
    """It lives as long as the run: what others wait for is its readiness."""
    (root,) = trees(
        [
            span(1, 0, 0, 10),
            span(2, 1, 0, 10, "service db"),
            span(3, 2, 0, 3, "readiness db"),
            span(4, 1, 3, 10, "phase test"),
        ]
    )

    assert {step.path: step.seconds for step in critical_path(root)} == {
        "step 1 / phase test": 7.0,
        "step 1 / service db / readiness db": 3.0,
    }


def test_parents_that_are_not_there_make_roots():
    """The caller's span, and what code under test left without one."""
    assert [
        root.span.name for root in trees([span(1, 9, 0, 1), span(2, 1, 0, 1), span(3, 3, 0, 1)])
    ] == ["step 1", "step 3"]


def test_a_deep_trace_does_not_exhaust_the_stack():
    """5,000 spans, each the child of the one before."""
    found = [span(number, number - 1, 0, 1) for number in range(1, 5001)]
    (root,) = trees(found)

    assert sum(1 for _ in walk([root])) == 5000
    assert round(sum(step.seconds for step in critical_path(root)), 6) == 1


def test_siblings_of_one_name_are_told_apart():
    """So that a run's second environment is compared with a run's second environment."""
    found = [span(1, 0, 0, 9, "run"), span(2, 1, 0, 1, "phase"), span(3, 1, 2, 3, "phase")]

    assert list(paths(trees(found)).values()) == ["run", "run / phase", "run / phase #2"]


def test_slower_is_outside_of_everything_seen_before():
    """With three runs before; what stays within their spread is the same,
    whatever its median says.
    """
    before = [[span(1, 0, 0, end)] for end in (1.0, 1.4, 1.1)]

    assert [compare([span(1, 0, 0, end)], before)[0].verdict for end in (1.39, 1.5, 0.8)] == [
        "same",
        "slower",
        "faster",
    ]


def test_too_few_runs_before_give_no_verdict():
    """Two runs are no spread."""
    assert compare([span(1, 0, 0, 5)], [[span(1, 0, 0, 1)]] * 2)[0].verdict == "unknown"


def ours(kind: str, name: str, *where: float, **attributes: str) -> SpanData:
    """One of the engine's own."""
    number, parent, begin, end = where
    made = span(int(number), int(parent), begin, end, f"{kind} {name}")
    return msgspec.structs.replace(
        made,
        attributes={"cleanroom.subject.kind": kind, "cleanroom.subject.name": name, **attributes},
    )


def test_what_a_program_sent_stands_below_the_command_that_ran_it():
    """All that it knew was the phase: the path then leads into its tests,
    and what no command ran stays where it was.
    """
    sent = [
        msgspec.structs.replace(
            span(number, 2, begin, end, name), attributes={"cleanroom.of": "test"}
        )
        for number, begin, end, name in (
            (5, 2, 4, "first"),
            (6, 6, 9, "second"),
            (7, 4.5, 4.6, "between"),
        )
    ]
    found = [
        ours("run", "p", 1, 0, 0, 10),
        ours("phase", "test", 2, 1, 1, 10),
        ours("command", "test#1", 3, 2, 1, 4),
        ours("command", "test#2", 4, 2, 5, 10),
    ]
    (root,) = trees([*found, *sent])
    named = set(paths([root]).values())

    assert {
        path.removeprefix("run p / phase test / ")
        for path in named
        if "cond" in path or "first" in path or "between" in path
    } == {
        "command test#1 / first",
        "command test#2 / second",
        "between",
    }
    assert critical_path(root)[0].path.endswith("command test#2 / second")


def test_environments_are_compared_by_what_they_are_for():
    """Their numbers count the run's phases: a phase more before this one changes nothing."""
    one, other = (
        [ours("run", "p", 1, 0, 0, 9), ours("environment", "phase-3-test", 2, 1, 1, 2)],
        [ours("run", "p", 1, 0, 0, 9), ours("environment", "phase-4-test", 2, 1, 1, 2)],
    )

    assert {row.verdict for row in compare(one, [other] * 3)} == {"same"}


def test_what_only_some_runs_had_is_not_missed():
    """Runs of other phases lie between."""
    before = [[span(1, 0, 0, 1, "run")], [span(1, 0, 0, 1, "run"), span(2, 1, 0, 1, "phase rare")]]

    assert [row.path for row in compare([span(1, 0, 0, 1, "run")], before)] == ["run"]


def test_what_came_and_went_is_named():
    """A span without a like before, and one that is not there now."""
    found = {
        row.path: row.verdict
        for row in compare([span(1, 0, 0, 5, "now")], [[span(1, 0, 0, 1, "then")]])
    }

    assert found == {"now": "new", "then": "gone"}


def test_the_shops_run_waits_for_its_tests():
    """On a whole run the longest step is the test's command."""
    (root,) = trees(spans(shop()))

    assert (
        critical_path(root)[0].path == "RUN shop / phase test / environment test / command test#1"
    )
