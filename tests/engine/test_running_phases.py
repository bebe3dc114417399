"""Phases on the memory backend: order, failure, time, evidence; in virtual time."""

from __future__ import annotations

import anyio
import msgspec
import pytest

from cleanroom.cli.views import words
from cleanroom.cli.views.plain import PlainLines
from cleanroom.evidence.reports.text import counted
from cleanroom.model.capability import Canary, Missing, Sample
from cleanroom.model.errors import EnvironmentFailed, Exit
from cleanroom.model.events import Finished, Output, Recovery, Started, Violation
from cleanroom.model.policy import GIB, Expected, Level, default_policy
from cleanroom.testing import (
    Fault,
    Inside,
    MemoryBackend,
    Outcome,
    Script,
    egress_attempt,
    forever,
    phase,
    plan,
    run_plan,
    succeed,
)

pytestmark = pytest.mark.looptime


def backend(**programs) -> MemoryBackend:
    return MemoryBackend(Script(programs=programs, otherwise=succeed(b"fine\n")))


def results(outcome: Outcome) -> dict[str, str]:
    return {phase.name: phase.result for phase in outcome.result.phases}


def check_legal(outcome: Outcome) -> None:
    """Every Finished closes the innermost span of its id, seq has no gap,
    the run opens and closes the log.
    """
    assert [e.seq for e in outcome.events] == list(range(1, len(outcome.events) + 1))
    spans: dict[str, object] = {}
    for envelope in outcome.events:
        event = envelope.event
        if isinstance(event, Started):
            assert envelope.span_id not in spans
            assert not envelope.parent or envelope.parent in spans, (
                f"{event.subject} began inside a span that is not open"
            )
            spans[envelope.span_id] = event.subject
        elif isinstance(event, Finished) and event.result != "skipped":
            assert spans.pop(envelope.span_id) == event.subject
    assert not spans, f"never finished: {spans}"
    assert isinstance(outcome.events[0].event, Started)
    assert isinstance(outcome.events[-1].event, Finished)
    assert outcome.result.ledger.left == ()
    assert outcome.result.ledger.created == outcome.result.ledger.removed


async def test_phases_run_in_order_and_pass():
    """A pipeline of passing phases is passed with exit 0, in the plan's order."""
    outcome = await run_plan(plan(phase("init", "a"), phase("test", "b", "c")))
    assert results(outcome) == {"init": "passed", "test": "passed"}
    assert (outcome.result.outcome, outcome.result.exit_code) == ("passed", 0)
    check_legal(outcome)


async def test_a_failing_command_stops_everything_after_it():
    """Later commands of the phase and later phases do not run;
    the phase has the command's status, the run has 1.
    """
    used = backend(bad=succeed(exit_code=7))
    outcome = await run_plan(plan(phase("init", "bad", "never"), phase("test", "never")), used)
    assert results(outcome) == {"init": "failed", "test": "skipped"}
    assert [argv[-1] for _, argv in used.executed] == ["bad"]
    assert outcome.result.phases[0].exit_code == 7
    assert outcome.result.phases[1].exit_code is None
    assert (outcome.result.outcome, outcome.result.exit_code) == ("failed", 1)
    check_legal(outcome)


async def test_an_hour_is_not_waited_for():
    """A phase that does not end is ended at its timeout; the run is a timeout, 124."""
    outcome = await run_plan(
        plan(phase("slow", "hang", timeout_seconds=60.0)), backend(hang=forever)
    )
    assert results(outcome) == {"slow": "timeout"}
    assert (outcome.result.outcome, outcome.result.exit_code) == ("timeout", 124)
    assert 60 <= outcome.result.phases[0].duration_seconds < 61
    check_legal(outcome)


async def test_the_timeout_is_the_phases_not_each_commands():
    """Commands share their phase's time."""
    outcome = await run_plan(
        plan(phase("two", "first", "hang", timeout_seconds=60.0)),
        backend(first=succeed(seconds=50), hang=forever),
    )
    assert 60 <= outcome.result.phases[0].duration_seconds < 61


async def test_nothing_run_is_never_green():
    """Without a script nothing runs, so the run is unverified with exit 4."""
    outcome = await run_plan(plan(phase("test", "anything")), MemoryBackend())
    assert results(outcome) == {"test": "unverified"}
    assert (outcome.result.outcome, outcome.result.exit_code) == ("unverified", 4)
    check_legal(outcome)


async def test_a_pipeline_without_commands_is_unverified():
    """Phases without commands verify nothing: exit 4."""
    outcome = await run_plan(plan(phase("empty"), phase("blank", " ")))
    assert results(outcome) == {"empty": "unverified", "blank": "unverified"}
    assert outcome.result.exit_code == 4


async def test_one_command_is_enough_to_verify_something():
    """An empty phase beside one that passed does not spoil the run."""
    outcome = await run_plan(plan(phase("empty"), phase("test", "a")))
    assert outcome.result.exit_code == 0


async def try_out(inside: Inside) -> int:
    inside.attempt(egress_attempt("192.0.2.1", 443))
    inside.attempt(egress_attempt("192.0.2.1", 443))
    return 0


async def test_an_attempt_fails_its_phase_at_medium():
    """A blocked attempt is a violation with process and target, counted once per attempt;
    the run did not pass.
    """
    outcome = await run_plan(plan(phase("test", "curl")), backend(curl=try_out))
    assert results(outcome) == {"test": "failed"}
    assert outcome.result.phases[0].exit_code == 0
    assert outcome.result.exit_code == 1
    (row,) = outcome.result.violations
    assert (row.rule, row.count, str(row.target)) == ("network.egress", 2, "tcp 192.0.2.1:443")
    check_legal(outcome)


@pytest.mark.parametrize(
    ("levels", "policy"),
    [(("High", "High"), "High"), (("High", "Medium"), "Medium, High"), (("Medium",), "Medium")],
    ids=str,
)
async def test_a_run_says_the_levels_of_its_phases(levels, policy):
    """Not the project's default, which may hold for none of them; each phase says its own."""
    phases = [
        phase(f"p{number}", "a", policy=default_policy(Level(level)))
        for number, level in enumerate(levels)
    ]
    on_host = phase("host", hermetic=False)
    outcome = await run_plan(plan(*phases, on_host), backend())
    assert outcome.result.policy == policy
    assert [row.policy for row in outcome.result.phases] == [*levels, ""]


async def test_lines_summary_and_verdict_say_the_same_of_an_attempt():
    """What is printed when it happens is what stands in the summary,
    and a tolerated attempt is counted as that and as no violation.
    """
    expected = (Expected(target="192.0.2.1:443", reason="telemetry"),)
    tolerant = phase(
        "one",
        "curl",
        policy=msgspec.structs.replace(default_policy(Level.MEDIUM), expected=expected),
    )
    outcome = await run_plan(plan(tolerant, phase("two", "curl")), backend(curl=try_out))
    plain = PlainLines()
    lines = [line.text for envelope in outcome.events for line in plain.lines(envelope)]
    for row in outcome.result.violations:
        # the first of them; the rest is told at the end
        said = words.violation(msgspec.structs.replace(row, count=1))
        assert said in lines or f"tolerated: {said}" in lines
    assert counted(outcome.result) == [
        "1 violation (2 attempts)",
        "1 tolerated attempt (2 attempts)",
    ]
    assert [row.reason for row in outcome.result.phases] == ["", "2 attempts against the policy"]


@pytest.mark.parametrize(
    ("hint", "reason"),
    [
        ("", "2 attempts against the policy, exit status 7"),
        ("run `cargo vendor`", "run `cargo vendor`; 2 attempts against the policy"),
    ],
)
async def test_a_failure_names_its_attempts_too(hint: str, reason: str):
    """Before the exit status, and behind what explains it better."""

    async def tried_and_failed(inside: Inside) -> int:
        await try_out(inside)
        return 7

    fails = phase("test", "curl", dependencies=hint)
    outcome = await run_plan(plan(fails), backend(curl=tried_and_failed))
    (row,) = outcome.result.phases
    assert (row.result, row.exit_code, row.reason) == ("failed", 7, reason)
    assert outcome.result.reason == f"phase 'test' failed: {reason}"


async def test_an_expected_attempt_is_tolerated():
    """`expected` keeps an attempt in the report and out of the verdict."""
    policy = msgspec.structs.replace(
        default_policy(Level.MEDIUM),
        expected=(Expected(target="192.0.2.1:443", reason="telemetry"),),
    )
    outcome = await run_plan(plan(phase("test", "curl", policy=policy)), backend(curl=try_out))
    assert outcome.result.exit_code == 0
    assert [(row.severity, row.reason) for row in outcome.result.violations] == [
        ("tolerated", "telemetry")
    ]


async def test_at_reaction_end_the_first_attempt_ends_the_phase():
    """Where the policy ends phases, the command is killed and the phase says what for."""

    async def try_and_go_on(inside: Inside) -> int:
        await try_out(inside)
        return await forever(inside)

    policy = msgspec.structs.replace(default_policy(Level.MEDIUM), reaction="end")
    outcome = await run_plan(
        plan(phase("test", "curl", policy=policy)), backend(curl=try_and_go_on)
    )
    assert results(outcome) == {"test": "failed"}
    assert (
        "network.egress" in outcome.result.phases[0].reason
        or "ended" in outcome.result.phases[0].reason
    )
    assert any(isinstance(e.event, Recovery) for e in outcome.events)
    check_legal(outcome)


async def test_memory_beyond_its_limit_kills_the_phase():
    """A sample over the limit becomes a violation, recovery's command,
    and the end of the environment.
    """
    over = Sample(
        cpu_seconds=1,
        memory_bytes=3 * GIB,
        disk_bytes=0,
        network_bytes=0,
        processes=1,
        source="memory",
    )
    used = MemoryBackend(Script(programs={"hog": forever}, samples=(over,)))
    outcome = await run_plan(plan(phase("test", "hog")), used)
    assert results(outcome) == {"test": "failed"}
    assert outcome.result.phases[0].duration_seconds < 5
    assert any(row.rule == "resource.memory" for row in outcome.result.violations)
    check_legal(outcome)


async def test_a_phase_whose_second_command_was_killed_has_that_ones_status():
    """137 as the kernel's own kill has, and not the 0 of the command before it."""
    over = Sample(
        cpu_seconds=1,
        memory_bytes=3 * GIB,
        disk_bytes=0,
        network_bytes=0,
        processes=1,
        source="memory",
    )
    fine = msgspec.structs.replace(over, memory_bytes=0)
    used = MemoryBackend(
        Script(programs={"a": succeed(seconds=0.15), "hog": forever}, samples=(fine, fine, over))
    )
    outcome = await run_plan(plan(phase("test", "a", "hog")), used)
    (row,) = outcome.result.phases
    assert (row.result, row.exit_code) == ("failed", 137)
    ended = [
        e.event
        for e in outcome.events
        if isinstance(e.event, Finished) and e.event.subject.kind == "command"
    ]
    assert [event.exit_code for event in ended] == [0, 137]


async def test_what_only_the_last_sample_finds_fails_the_phase():
    """A phase that ended with 0 before it was found over a limit did not pass,
    and nothing claims to have killed it.
    """
    fine = Sample(
        cpu_seconds=1, memory_bytes=0, disk_bytes=0, network_bytes=0, processes=1, source="memory"
    )
    over = msgspec.structs.replace(fine, disk_bytes=20 * GIB)
    outcome = await run_plan(
        plan(phase("test", "write")),
        MemoryBackend(Script(otherwise=succeed(), samples=(fine, over))),
    )
    (row,) = outcome.result.phases
    assert (row.result, row.exit_code, row.reason) == (
        "failed",
        0,
        "one attempt against the policy",
    )
    assert [found.rule for found in outcome.result.violations] == ["resource.disk"]
    assert not [e for e in outcome.events if isinstance(e.event, Recovery)]
    check_legal(outcome)


async def test_a_canary_that_got_through_refuses_the_run():
    """Nothing is run where what the policy forbids was possible: exit 3."""
    loose = Canary(
        name="connect-out",
        dimension="network",
        rule="network.egress",
        expected="refused",
        found="connected",
        result="failed",
    )
    used = MemoryBackend(Script(canaries=(loose,), otherwise=succeed()))
    outcome = await run_plan(plan(phase("test", "a"), phase("later", "b")), used)
    assert results(outcome) == {"test": "refused", "later": "skipped"}
    assert used.executed == []
    assert (outcome.result.outcome, outcome.result.exit_code) == ("refused", 3)
    check_legal(outcome)


async def test_a_rule_that_cannot_be_held_refuses_the_run():
    """The backend's missing control is named, with what helps, and no phase begins."""
    used = MemoryBackend(
        Script(
            missing=(Missing(rule="network.egress", why="no namespaces", hint="a newer kernel"),),
            otherwise=succeed(),
        )
    )
    outcome = await run_plan(plan(phase("test", "a")), used)
    assert (outcome.result.outcome, outcome.result.exit_code) == ("refused", 3)
    assert "network.egress" in outcome.result.error["message"]
    assert outcome.result.error["hint"] == "a newer kernel"
    assert used.executed == []
    check_legal(outcome)


async def test_a_rule_let_go_twice_marks_the_run_degraded():
    """What file and command line both let go is said in the result, loudly."""
    used = MemoryBackend(
        Script(
            missing=(Missing(rule="network.names", why="no resolver", hint=""),),
            otherwise=succeed(),
        )
    )
    outcome = await run_plan(plan(phase("test", "a"), allow_degraded=("network.names",)), used)
    assert outcome.result.exit_code == 0
    assert outcome.result.degraded == ("network.names",)
    assert any("DEGRADED" in note for note in outcome.result.notes)


async def test_what_is_left_over_fails_the_run():
    """A leak is the engine's error: exit 5, named in ledger and error."""
    from cleanroom.backends.base import Leftover

    used = MemoryBackend(Script(left=(Leftover(kind="cgroup", name="x"),), otherwise=succeed()))
    outcome = await run_plan(plan(phase("test", "a")), used)
    assert outcome.result.exit_code == 5
    assert outcome.result.ledger.left == ("cgroup x",)


async def test_a_missed_slo_is_said_and_counts_only_when_strict():
    """The SLO is a note, and exit 1 only with strict_slo."""
    for strict, code in ((False, 0), (True, 1)):
        outcome = await run_plan(
            plan(phase("slow", "s"), slo_seconds=20, strict_slo=strict),
            backend(s=succeed(seconds=30)),
        )
        assert outcome.result.exit_code == code
        assert not outcome.result.slo_met
        assert any("SLO" in note for note in outcome.result.notes)


async def test_changes_come_back_only_from_what_passed(tmp_path):
    """A passed phase's files are in the project; those of a failed one that are not outputs are
    not.
    """
    programs = {
        "good": succeed(files={"made.txt": b"x"}),
        "bad": succeed(files={"half.txt": b"y", "out/log": b"z"}, exit_code=1),
    }
    run = plan(phase("good", "good"), phase("bad", "bad", outputs=("out/",)), root=str(tmp_path))
    outcome = await run_plan(run, backend(**programs))
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        "made.txt",
        "out/log",
    ]
    assert outcome.result.brought_back["files"] == 2


async def test_a_conflict_does_not_pass_and_overwrites_nothing(tmp_path):
    """A path that somebody changed meanwhile keeps their content, and the run is failed."""

    async def edit_both(inside: Inside) -> int:
        (tmp_path / "shared.txt").write_text("theirs")
        inside.write_file("shared.txt", b"ours")
        return 0

    outcome = await run_plan(
        plan(phase("test", "edit"), root=str(tmp_path)), backend(edit=edit_both)
    )
    assert (tmp_path / "shared.txt").read_text() == "theirs"
    assert results(outcome) == {"test": "passed"}
    assert outcome.result.exit_code == 1
    assert outcome.result.brought_back["conflicts"] == 1
    assert outcome.result.reason.startswith("1 file changed on the host meanwhile")
    assert outcome.result.error["code"] == "CR-WORKSPACE-001"


async def test_processes_left_running_are_named():
    """What outlives its command is told."""

    async def daemon(inside: Inside) -> int:
        inside.leave("ssh-agent")
        return 0

    outcome = await run_plan(plan(phase("test", "daemon")), backend(daemon=daemon))
    assert any("ssh-agent" in note for note in outcome.result.notes)
    assert outcome.result.exit_code == 0


async def test_a_process_that_ends_by_itself_soon_after_is_not_named():
    """As multiprocessing's helpers do once what started them has ended."""

    async def helped(inside: Inside) -> int:
        inside.leave("resource-tracker", seconds=0.1)
        inside.leave("ssh-agent")
        return 0

    async def only_helped(inside: Inside) -> int:
        inside.leave("resource-tracker", seconds=0.1)
        return 0

    outcome = await run_plan(plan(phase("test", "helped")), backend(helped=helped))
    (note,) = left_running(outcome)
    assert "ssh-agent" in note
    assert "resource-tracker" not in note
    outcome = await run_plan(plan(phase("test", "only")), backend(only=only_helped))
    assert left_running(outcome) == []


def left_running(outcome) -> list[str]:
    return [note for note in outcome.result.notes if "left processes running" in note]


async def test_the_environment_is_rebuilt():
    """A phase sees what is fixed, set and passed, and nothing else of its caller."""
    seen: dict[str, str] = {}

    async def look(inside: Inside) -> int:
        seen.update(inside.variables)
        return 0

    caller = {
        "PATH": "/home/me/bin:/usr/bin",
        "SECRET": "s3cret",
        "RUST_LOG": "debug",
        "HOME": "/home/me",
    }
    run = plan(phase("test", "look", variables={"A": "x"}, passed=("RUST_LOG",)), seed=7)
    await run_plan(run, backend(look=look), caller=caller)
    assert seen["A"] == "x"
    assert seen["RUST_LOG"] == "debug"
    assert "SECRET" not in seen
    assert seen["HOME"] != "/home/me"
    assert "/home/me/bin" not in seen["PATH"]
    assert (seen["TZ"], seen["LC_ALL"], seen["PYTHONHASHSEED"], seen["CLEANROOM_RUN_ID"]) == (
        "UTC",
        "C.UTF-8",
        "7",
        "run-1",
    )
    assert seen["TRACEPARENT"].startswith("00-")


async def test_output_is_told_in_bounded_pieces():
    """Three MiB of output become at most one MiB of events, the last of them marked as cut."""
    outcome = await run_plan(plan(phase("loud", "loud")), backend(loud=succeed(b"x" * (3 << 20))))
    told = [e.event for e in outcome.events if isinstance(e.event, Output)]
    assert sum(len(event.text) for event in told) == 1 << 20
    assert [event.cut for event in told] == [False] * (len(told) - 1) + [True]
    assert max(len(event.text) for event in told) <= 32 << 10


async def test_parallel_workspaces_do_not_stop_each_other(tmp_path):
    """As in ggen, a failing workspace lets the others run to their end."""
    from cleanroom.model.plan import Workspace

    for name in "ab":
        (tmp_path / name).mkdir()
    workspaces = (
        Workspace(
            name="a", path=str(tmp_path / "a"), phases=(phase("one", "bad"), phase("two", "x"))
        ),
        Workspace(
            name="b", path=str(tmp_path / "b"), phases=(phase("one", "x"), phase("two", "x"))
        ),
    )
    for parallel, expected in ((True, ["passed", "passed"]), (False, ["skipped", "skipped"])):
        run = plan(root=str(tmp_path), workspaces=workspaces, parallel=parallel)
        outcome = await run_plan(run, backend(bad=succeed(exit_code=1)))
        assert [p.result for p in outcome.result.phases if p.workspace == "b"] == expected
        assert [p.result for p in outcome.result.phases if p.workspace == "a"] == [
            "failed",
            "skipped",
        ]
        assert outcome.result.exit_code == 1


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for-good"])
async def test_any_backend_call_may_fail(for_good: bool):
    """Fail the nth call of the backend for every n: the run ends with 5 (or despite it with 0),
    and nothing is left unsaid.
    """
    run = plan(phase("init", "a"), phase("test", "b"))
    number = 0
    while True:
        number += 1
        script = Script(
            otherwise=succeed(seconds=0.3, files={"f": b"1"}),
            faults=(Fault(nth=number, error=broken(), for_good=for_good),),
        )
        used = MemoryBackend(script)
        outcome = await run_plan(run, used)
        if number > len(used.calls):
            break
        assert outcome.result.exit_code in (0, 5), (number, used.calls[number - 1])
        assert used._alive == [] or outcome.result.exit_code == 5, (number, used.calls[number - 1])
        assert all(left.kind == "folder" for left in used._alive), (
            "only what could not be removed may be left"
        )
        if not used._alive and used.calls[number - 1] != "ledger" and not for_good:
            check_legal(outcome)
    assert number > 15


def broken() -> EnvironmentFailed:
    return EnvironmentFailed("CR-ENV-002", "the script says so")


async def test_any_backend_call_may_be_interrupted():
    """Interrupt at the nth call of the backend for every n: 130, a legal log, nothing left."""
    number = 0
    while True:
        number += 1
        holder = []

        def interrupt(operation: str, count: int, nth=number, holder=holder) -> None:
            if count == nth:
                holder[0].interrupt(Exit.INTERRUPTED)

        used = MemoryBackend(Script(otherwise=succeed(seconds=0.3)), on_call=interrupt)
        outcome = await run_plan(
            plan(phase("init", "a"), phase("test", "b")), used, started=holder.append
        )
        if number > len(used.calls):
            break
        assert outcome.result.exit_code == 130
        assert outcome.result.outcome == "interrupted"
        assert [row.name for row in outcome.result.phases] in ([], ["init", "test"])
        ran = {
            name
            for identity, _ in used.executed
            for name in ("init", "test")
            if identity.endswith(name)
        }
        assert ran <= {row.name for row in outcome.result.phases if row.exit_code is not None}
        check_legal(outcome)
    assert number > 15


async def test_an_interrupted_phase_was_killed_and_later_ones_did_not_run():
    """Ctrl-C: the command that ran ended by SIGKILL, what was not come to is listed as skipped,
    without an exit code.
    """
    runs = []

    async def hang(inside: Inside) -> int:
        runs[0].interrupt(Exit.INTERRUPTED)
        return await forever(inside)

    outcome = await run_plan(
        plan(phase("slow", "hang"), phase("late", "a")), backend(hang=hang), started=runs.append
    )
    told = [(row.name, row.result, row.exit_code) for row in outcome.result.phases]
    assert told == [("slow", "cancelled", 137), ("late", "skipped", None)]


async def test_the_callers_own_cancellation_unwinds_and_passes_through():
    """A run that its caller cancels leaves nothing and does not swallow the cancellation."""
    used = backend(hang=forever)
    with anyio.move_on_after(5) as scope:
        await run_plan(plan(phase("slow", "hang")), used)
    assert scope.cancelled_caught
    assert used._alive == []


async def test_the_account_is_made_also_when_the_caller_cancels():
    """The last events of a run that its caller cancels are the ledger and an end that says
    interrupted.
    """
    inboxes = []
    with anyio.move_on_after(5):
        await run_plan(
            plan(phase("slow", "hang")),
            backend(hang=forever),
            started=lambda run: inboxes.append(run._bus.subscribe("witness", limit=10_000)),
        )
    told = [envelope.event for envelope in await inboxes[0].batch()]

    ledger, finished = told[-2:]
    assert ledger.created == ledger.removed > 0
    assert (finished.subject.kind, finished.result, finished.exit_code) == ("run", "cancelled", 130)


async def test_the_same_run_gives_the_same_log():
    """Two runs of one plan differ in times and ids only."""

    def told(outcome: Outcome) -> list[object]:
        kept = []
        for envelope in outcome.events:
            event = msgspec.to_builtins(envelope.event)
            event.pop("duration_seconds", None)
            event.get("attributes", {}).pop("root", None)
            kept.append(event)
        return kept

    first, second = [
        await run_plan(plan(phase("init", "a"), phase("test", "curl")), backend(curl=try_out))
        for _ in range(2)
    ]
    clean = [msgspec.json.encode(told(outcome)).decode() for outcome in (first, second)]
    import re

    assert len({re.sub(r"cleanroom-test-\w+", "T", text) for text in clean}) == 1
    assert any(isinstance(e.event, Violation) for e in first.events)
