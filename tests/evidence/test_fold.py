"""The result of a run, from events alone."""

from __future__ import annotations

import re

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.evidence.reports.curves import POINTS_MAX
from cleanroom.evidence.reports.fold import NOT_FINISHED, ROWS_MAX, ResultBuilder, fold
from cleanroom.evidence.reports.result import (
    AutorunResult,
    LedgerResult,
    PhaseResult,
    RunResult,
    ServiceResult,
)
from cleanroom.evidence.reports.tail import COLUMNS_MAX, LINES_MAX, Tail
from cleanroom.evidence.reports.text import broken_rules, place_of, summary_line
from cleanroom.model.events import (
    Artifact,
    Finished,
    Ledger,
    Note,
    Output,
    Recovery,
    Subject,
    decode,
    encode,
)
from support.event_log_builder import (
    ORIGIN_NS,
    RUN,
    TRACE,
    EventLogBuilder,
    begin,
    canary,
    capability,
    egress,
    metric,
    phase,
    shop,
)


def test_the_head_of_the_result_is_what_the_run_span_said():
    """Name, backend, policy, seed, requested phases, trace and start come from the run's Started
    and envelope.
    """
    result = fold(shop())

    assert (result.project, result.backend, result.tier, result.policy, result.seed) == (
        "shop",
        "embedded",
        "E1",
        "Medium",
        42,
    )
    assert (result.run_id, result.trace_id, result.started_unix_ns) == (
        "20261124-023501-k3f9x",
        TRACE,
        ORIGIN_NS,
    )
    assert result.requested == ("init", "test", "validate")


def test_outcome_and_exit_code_are_those_of_the_run():
    """A failing run says failed and 1, a passing one passed and 0."""
    assert [(r.outcome, r.exit_code) for r in (fold(shop()), fold(shop(failing=False)))] == [
        ("failed", 1),
        ("passed", 0),
    ]


def test_a_cancelled_run_is_interrupted_with_its_own_exit_code():
    """Result cancelled becomes outcome interrupted; SIGTERM's 143 is kept."""
    story = EventLogBuilder()
    story.at(1).finish(begin(story), "cancelled", exit_code=143)

    assert (fold(story.envelopes).outcome, fold(story.envelopes).exit_code) == ("interrupted", 143)


def test_a_run_without_an_end_is_an_error_and_says_so():
    """Events that stop in the middle never read as a pass."""
    result = fold(shop(failing=False)[:-1])

    assert (result.outcome, result.exit_code, result.notes[-1]) == ("error", 5, NOT_FINISHED)


def test_no_events_at_all_are_an_error():
    """Nothing published is nothing verified."""
    assert (fold([]).outcome, fold([]).exit_code) == ("error", 5)


def test_phases_are_in_order_with_their_own_exit_codes_and_skipped_ones_have_none():
    """A phase that never started is there, with exit code null."""
    phases = fold(shop()).phases

    assert [(p.name, p.result, p.exit_code, p.hermetic) for p in phases] == [
        ("init", "passed", 0, True),
        ("test", "failed", 1, True),
        ("validate", "skipped", None, True),
    ]
    assert (phases[1].started_seconds, phases[1].duration_seconds, phases[1].budget_seconds) == (
        0.65,
        2.15,
        6.0,
    )


def test_a_phase_that_runs_twice_is_two_rows():
    """Hooks run every time: the span tells runs apart, not the name."""
    story = EventLogBuilder()
    run = begin(story)
    for second in (1, 2):
        story.finish(phase(story.at(second), run, "format", role="hook"))

    assert [(p.name, p.role, p.started_seconds) for p in fold(story.envelopes).phases] == [
        ("format", "hook", 1.0),
        ("format", "hook", 2.0),
    ]


def test_a_phase_that_does_not_say_hermetic_is_not():
    """Hermetic is a claim that has to be made."""
    story = EventLogBuilder()
    story.start(Subject("phase", "x"), begin(story))

    assert not fold(story.envelopes).phases[0].hermetic


def test_the_excerpt_is_the_end_of_the_failed_phases_output_only():
    """A phase that passed has no excerpt, the failed one its last lines."""
    phases = fold(shop()).phases

    assert phases[0].excerpt == ()
    assert phases[1].excerpt[-2:] == ("E  assert <b>total</b> == 3 & more", "1 failed")


def test_engine_seconds_are_wall_time_minus_the_union_of_commands():
    """Two commands side by side count once."""
    story = EventLogBuilder()
    run = begin(story)
    first = story.at(1).start(Subject("command", "a#1"), phase(story, run, "a", "one"))
    second = story.at(2).start(Subject("command", "a#1"), phase(story, run, "a", "two"))
    story.at(4).finish(first)
    story.at(5).finish(second)
    story.at(6).finish(run)

    assert fold(story.envelopes).engine_seconds == 2.0


def test_a_command_outside_a_phase_is_the_engines_time():
    """Filling a template is not a phase's command."""
    story = EventLogBuilder()
    run = begin(story)
    command = story.at(1).start(
        Subject("command", "initdb"), story.start(Subject("prepare", "postgres"), run)
    )
    story.at(3).finish(command)
    story.at(4).finish(run)

    assert fold(story.envelopes).engine_seconds == 4.0


def test_a_service_is_ready_when_its_protocol_answered():
    """Ready seconds run from the service's start to its first passed readiness;
    restarts are counted.
    """
    services = {service.name: service for service in fold(shop()).services}

    assert services["postgres"].ready_seconds == 0.57
    assert (
        services["redis"].ready_seconds,
        services["redis"].restarts,
        services["redis"].version,
    ) == (0.42, 1, "9.1")


def test_a_service_that_never_answered_has_no_ready_time_and_a_reason():
    """Giving up is the reason, whatever its last process said."""
    story = EventLogBuilder()
    run = begin(story)
    span = story.start(Subject("service", "postgres"), run)
    story.tell(
        Recovery(
            subject=Subject("service", "postgres"), action="gave_up", cause="died 4 times in 60 s"
        ),
        run,
    )
    story.finish(span, "failed", reason="exit status 1")

    service = fold(story.envelopes).services[0]
    assert (service.ready_seconds, service.reason) == (None, "died 4 times in 60 s")


def test_a_canary_passed_only_where_its_assertion_did():
    """One that failed is in the result as failed, and its dimension is not verified."""
    story = EventLogBuilder()
    run = begin(story)
    story.tell(capability(), run)
    story.tell(canary("connect-out", "network", "network.egress", "e"), run)
    story.tell(canary("write-outside", "filesystem", "filesystem.write", "e", passed=False), run)
    result = fold(story.envelopes)

    assert [c.result for c in result.canaries] == ["passed", "failed"]
    assert {d.dimension: d.verified_by_canary for d in result.capabilities} == {
        "network": True,
        "filesystem": False,
        "process": False,
        "resource": False,
    }


def test_violations_of_one_program_on_one_target_are_one_row_with_the_sum():
    """Different pids of the same program do not make new rows."""
    rows = fold(shop()).violations

    assert [(row.rule, row.count, row.phase, row.action, row.process.exe) for row in rows] == [
        ("network.egress", 3, "test", "blocked", "/usr/bin/curl")
    ]


def test_notices_stand_apart_from_violations_and_tolerated_ones_stay():
    """Severity decides the list."""
    story = EventLogBuilder()
    run = begin(story)
    for severity in ("violation", "notice", "tolerated"):
        story.tell(egress("test", severity=severity), run)
    result = fold(story.envelopes)

    assert (
        [row.severity for row in result.violations],
        [row.severity for row in result.notices],
    ) == (
        ["violation", "tolerated"],
        ["notice"],
    )


def test_a_violation_of_an_environment_is_its_phases():
    """Where the subject is the environment, its `of` names the phase."""
    story = EventLogBuilder()
    span = phase(story, begin(story), "build")
    story.start(Subject("environment", "build-1"), span, role="phase", of="build")
    story.tell(msgspec.structs.replace(egress("build"), subject=Subject("environment", "build-1")))

    assert fold(story.envelopes).violations[0].phase == "build"


def test_a_flood_of_violations_is_bounded_and_counted():
    """Beyond the limit rows are counted in a note, not kept."""
    builder = ResultBuilder()
    story = EventLogBuilder()
    for number in range(ROWS_MAX + 5):
        story.tell(egress("test", host=f"h{number}"))
    for envelope in story.envelopes:
        builder.add(envelope)
    result = builder.result()

    assert len(result.violations) == ROWS_MAX
    assert result.notes[0].startswith("5 more violation events")


def test_what_was_brought_back_is_summed_over_the_phases():
    """Files, bytes, deletions, conflicts and what starts by itself, of all artifacts."""
    story = EventLogBuilder()
    run = begin(story)
    for role, files, deleted in (("changes", 3, 12), ("changes", 2, 0), ("conflict", 1, 0)):
        event = Artifact(subject=RUN, path="p", role=role, files=files, bytes=10, deleted=deleted)
        story.tell(event, run)
    phase = Subject("phase", "build", "api")
    story.tell(
        Artifact(subject=phase, path=".", role="autorun", files=7, autorun={".envrc": "direnv"}),
        run,
    )

    result = fold(story.envelopes)
    counts = {"files": 5, "bytes": 20, "deleted": 12, "conflicts": 1, "autorun": 7}
    assert result.brought_back == counts
    row = AutorunResult(path=".envrc", by="direnv", phase="build", workspace="api")
    assert result.autorun == (row,)


def test_the_ledger_is_the_last_account():
    """What is left and held is named."""
    story = EventLogBuilder()
    story.tell(Ledger(subject=RUN, created=4, removed=2, held=("h",), left=("l",)), begin(story))

    assert fold(story.envelopes).ledger == LedgerResult(
        created=4, removed=2, held=("h",), left=("l",)
    )


def test_what_is_learnt_late_wins():
    """Attributes of the run's Finished overlay those of its Started;
    a degraded run says so in result and notes.
    """
    story = EventLogBuilder()
    run = begin(story, backend="")
    story.tell(Note(subject=RUN, level="degraded", text="no cgroup", code="CR-X-001"), run)
    story.at(30).finish(
        run, attributes={"backend": "docker", "degraded": "resource.pids,resource.memory"}
    )
    result = fold(story.envelopes)

    assert (result.backend, result.degraded, result.notes) == (
        "docker",
        ("resource.pids", "resource.memory"),
        ("DEGRADED: no cgroup [CR-X-001]",),
    )
    assert not result.slo_met


def test_the_error_names_code_message_and_hint():
    """What ended a run is in the result as data."""
    story = EventLogBuilder()
    story.finish(
        begin(story),
        "refused",
        exit_code=3,
        code="CR-POLICY-001",
        reason="cannot be held",
        attributes={"hint": "use docker"},
    )

    assert fold(story.envelopes).error == {
        "code": "CR-POLICY-001",
        "message": "cannot be held",
        "hint": "use docker",
    }


def test_curves_are_thinned_without_losing_the_peak():
    """A thousand times more readings do not make more points, and the highest memory stays."""
    story = EventLogBuilder()
    run = begin(story)
    for step in range(5000):
        story.at(step * 0.1).tell(
            metric("e", step * 0.05, 10_000_000 if step == 2345 else 1000), run
        )
    curve = fold(story.envelopes).resources[0]

    assert len(curve.samples) <= POINTS_MAX + 1
    assert max(memory for _, _, memory in curve.samples) == curve.peak_memory_bytes == 10_000_000
    assert {round(cores, 6) for _, cores, _ in curve.samples[1:]} == {0.5}


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=80), max_size=200))
def test_a_tail_is_the_end_of_all_its_pieces(pieces: list[str]) -> None:
    """However output is cut into pieces, the tail's lines are the last ones of the whole,
    and bounded.
    """
    tail = Tail()
    for piece in pieces:
        tail.add(piece)
    whole = "".join(pieces).rstrip().split("\n")[-LINES_MAX:]
    expected = tuple(line.rstrip("\r").rsplit("\r", 1)[-1] for line in whole)

    assert tail.lines() == (expected if any(expected) else ())
    assert all(len(line) <= COLUMNS_MAX for line in tail.lines())


@given(st.integers(min_value=0))
def test_every_beginning_of_a_log_folds_and_survives_the_codec(cut: int) -> None:
    """A torn log gives a result wherever it is torn, and the written form of the events gives the
    same one.
    """
    whole = shop()
    part = whole[: cut % (len(whole) + 1)]
    result = fold(part)

    assert fold(decode(encode(envelope)) for envelope in part) == result
    assert result.outcome == ("failed" if len(part) == len(whole) else "error")


def test_output_of_a_service_is_no_phases_excerpt():
    """A server's log does not become the excerpt of the phase that happens to run."""
    story = EventLogBuilder()
    span = phase(story, begin(story), "test")
    story.tell(
        Output(subject=Subject("service", "redis"), stream="stdout", text="ready\n", offset=0), span
    )
    story.finish(span, "failed", exit_code=1)

    assert fold(story.envelopes).phases[0].excerpt == ()


def test_a_finished_without_a_started_is_a_phase_only_if_it_is_one():
    """A stray end of something else changes nothing."""
    story = EventLogBuilder()
    story.tell(
        Finished(subject=Subject("command", "x#1"), result="passed", duration_seconds=1.0),
        begin(story),
    )

    assert fold(story.envelopes).phases == ()


def ran(name: str, begins: float, took: float, **fields: object) -> PhaseResult:
    given = {
        "name": name,
        "result": "passed",
        "hermetic": True,
        "exit_code": 0,
        "started_seconds": begins,
        "duration_seconds": took,
    }
    return PhaseResult(**{**given, **fields})


def read(line: str) -> tuple[list[float], float]:
    """The parts before the `=` as a reader sees them, and the total."""
    parts, _, end = re.sub(r" \([^)]*\)", "", line).partition(" = ")
    return [value for part in parts.split(" · ") for value in written(part)], written(
        end.partition(" / ")[0]
    )[0]


def written(text: str) -> list[float]:
    units = {"ms": 0.001, "s": 1.0, "min": 60.0}
    return [
        sum(float(number) * units[unit] for number, unit in found)
        for found in [re.findall(r"([\d.]+) (ms|min|s)\b", text)]
        if found
    ]


# A gap, a duration: one after the other, or side by side.
STEPS = st.lists(st.tuples(st.floats(0, 3), st.floats(0, 400)), max_size=6)


@given(STEPS, st.floats(0.05, 5), st.booleans())
def test_the_parts_of_the_summary_line_add_up_to_its_total(
    steps: list[tuple[float, float]], after: float, parallel: bool
):
    """What a reader adds up is what is written after the `=`, but for the last digit,
    whether phases ran one by one or side by side.
    """
    phases, now, end = [], 0.0, 0.0
    for number, (gap, took) in enumerate(steps):
        phases.append(ran(f"p{number}", now + gap, took))
        end = max(end, now + gap + took)
        now = now + gap if parallel else end
    result = RunResult(phases=tuple(phases), duration_seconds=end + after, outcome="passed")
    line = summary_line(result)
    parts, total = read(line)
    # Where there is no rest, rounding the parts has used it up: each by half its last digit.
    unseen = sum(map(half_a_digit, parts)) if "rest" not in line else 0.0
    if phases:
        assert abs(sum(parts) - total) <= half_a_digit(total) + unseen + 1e-6


def half_a_digit(value: float) -> float:
    """How far a number that is written may be from what it stands for."""
    return 0.005 if value < 100 else 0.5


def test_what_went_on_meanwhile_is_not_in_the_sum():
    """Services become ready while phases run: said behind the total;
    a cached phase took no time, a skipped one is not there.
    """
    service = ServiceResult(name="db", version="", ready_seconds=0.64, restarts=0)
    phases = (
        ran("init", 0.1, 0.87),
        ran("build", 1.0, 0.0, result="cached"),
        ran("test", 1.1, 0.41),
        ran("late", 2.0, 0.0, result="skipped"),
    )
    result = RunResult(phases=phases, services=(service,), duration_seconds=2.28)
    assert summary_line(result) == (
        "init 0.87 s · build cached · test 0.41 s · rest 1.00 s = 2.28 s / 20.00 s, services "
        "ready in 0.64 s meanwhile"
    )


def test_workspaces_side_by_side_are_one_part():
    """Phases that overlap are counted once, for as long as one of them ran."""
    phases = (ran("test", 0.1, 2.0, workspace="a"), ran("test", 0.2, 3.0, workspace="b"))
    result = RunResult(phases=phases, duration_seconds=3.5)
    assert summary_line(result) == (
        "phases side by side 3.10 s (a/test 2.00 s, b/test 3.00 s) · rest 0.40 s = 3.50 s / 20.00 s"
    )


def test_a_violation_belongs_to_the_phase_of_its_own_workspace():
    """Two workspaces have a phase of one name; neither is blamed for the other's attempt."""
    story = EventLogBuilder()
    run = begin(story)
    for name in ("api", "web"):
        span = phase(story, run, "test", workspace=name)
        if name == "web":
            environment = story.start(Subject("environment", "e"), span, role="phase", of="test")
            attempt = msgspec.structs.replace(
                egress("test"), subject=Subject("environment", "e"), environment="e"
            )
            story.tell(attempt, environment)
            story.finish(environment)
        story.finish(span, "failed", exit_code=1)
    result = fold(story.envelopes)
    api, web = result.phases

    assert broken_rules(result, api) == []
    assert [place_of(row) for row in broken_rules(result, web)] == ["phase web/test"]
