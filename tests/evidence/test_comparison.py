"""Two runs side by side: what counts as a difference, and what does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleanroom.cli.views.comparison import comparison_lines
from cleanroom.dependencies.model import Artifact, Fetched, Stored
from cleanroom.evidence.reports.comparison import Recorded, compare
from cleanroom.evidence.reports.fold import fold
from cleanroom.evidence.reports.result import RunResult, ServiceResult
from support.event_log_builder import shop

PLAN = {
    "project": "shop",
    "root": "/a",
    "policy": {"level": "Medium"},
    "workspaces": [
        {
            "name": "",
            "path": "/a",
            "phases": [
                {
                    "name": "test",
                    "commands": ["pytest"],
                    "policy": {"level": "Medium", "limits": {"cpus": 2}},
                    "variables": {"TOKEN": "first secret"},
                    "passed": ["LANG"],
                    "origin": {"line": 3},
                }
            ],
        }
    ],
}


def phase_of(plan: dict[str, Any]) -> dict[str, Any]:
    return plan["workspaces"][0]["phases"][0]


def changed(**fields: Any) -> dict[str, Any]:
    """The plan with other fields of its phase."""
    plan = msgspec.json.decode(msgspec.json.encode(PLAN))
    phase_of(plan).update(fields)
    return plan


def found(before: Recorded, after: Recorded) -> list[tuple[str, str, str | None, str | None]]:
    return [
        (one.part, one.name, one.before, one.after) for one in compare(before, after).differences
    ]


@pytest.mark.timeout(30)
def test_a_plan_that_repeats_a_name_is_compared_in_the_time_of_its_size() -> None:
    """A project may come with records: 4,000 repeated names took `diff` nine seconds."""
    plan = {"phases": [{"name": "test", "commands": ["x"]}] * 30_000}
    run = Recorded(fold(shop()), plan)

    assert compare(run, run).same


def test_a_run_does_not_differ_from_itself() -> None:
    """With everything that a run has."""
    run = Recorded(fold(shop()), PLAN)
    comparison = compare(run, run)

    assert comparison.same
    assert comparison.differences == ()
    assert all(one.noise for one in comparison.times)


def test_times_and_amounts_are_shown_and_are_no_difference() -> None:
    """The second of two equal runs takes another time and finds what the first wrote."""
    first = fold(shop())
    second = msgspec.structs.replace(
        first, duration_seconds=first.duration_seconds * 3, brought_back={"files": 99}
    )
    comparison = compare(Recorded(first, PLAN), Recorded(second, PLAN))

    assert comparison.same
    assert comparison.times[0].ratio == 3.0
    assert not comparison.times[0].noise
    assert {one.part for one in comparison.differences} <= {"written"}


def test_a_verdict_and_its_violations_are_differences() -> None:
    """Phases by name, attempts by who tried what where; neither by a process's number."""
    broken, sound = fold(shop()), fold(shop(failing=False))
    parts = {part for part, *_ in found(Recorded(sound, PLAN), Recorded(broken, PLAN))}
    rows = [
        msgspec.structs.replace(row, process=msgspec.structs.replace(row.process, pid=1), count=9)
        for row in broken.violations
        if row.process
    ]
    renumbered = msgspec.structs.replace(
        broken, violations=(*rows, *(row for row in broken.violations if not row.process))
    )

    assert {"run", "phase", "violation"} <= parts
    assert found(Recorded(broken, PLAN), Recorded(renumbered, PLAN)) == []


def test_a_cached_phase_is_one_that_passed() -> None:
    """Skipping what need not run again is no other result."""
    sound = fold(shop(failing=False))
    cached = msgspec.structs.replace(
        sound,
        phases=tuple(
            msgspec.structs.replace(phase, result="cached", exit_code=None)
            for phase in sound.phases
        ),
    )
    assert found(Recorded(sound, PLAN), Recorded(cached, PLAN)) == []


def test_what_the_plan_asks_for_is_compared_by_name() -> None:
    """A setting is one difference, a phase that only one plan has another; places are none."""
    result = RunResult()
    moved = changed(origin={"line": 40})
    moved["root"] = "/b"
    assert found(Recorded(result, PLAN), Recorded(result, moved)) == []
    slower = changed(policy={"level": "Medium", "limits": {"cpus": 4}})
    assert found(Recorded(result, PLAN), Recorded(result, slower)) == [
        ("plan", "phase test: policy: limits: cpus", "2", "4")
    ]
    further = changed()
    further["workspaces"][0]["phases"].append(
        {"name": "lint", "commands": ["ruff"], "policy": {"level": "High"}}
    )
    assert found(Recorded(result, PLAN), Recorded(result, further)) == [
        ("plan", "phase lint", None, "ruff")
    ]


def test_values_of_variables_are_compared_and_never_shown() -> None:
    """They may be secrets."""
    other = changed(variables={"TOKEN": "second secret", "NEW": "third secret"}, passed=[])
    comparison = compare(Recorded(RunResult(), PLAN), Recorded(RunResult(), other))

    assert [(one.name, one.before, one.after) for one in comparison.differences] == [
        ("phase test: variables: TOKEN", "set", "set, another one"),
        ("phase test: passed: LANG", "handed over", None),
        ("phase test: variables: NEW", None, "set"),
    ]
    assert b"secret" not in msgspec.json.encode(comparison)


def test_services_and_dependencies_are_compared_by_version_and_digest() -> None:
    """An update is seen, and so is the same version with other bytes."""

    def recorded(version: str, digest: str) -> Recorded:
        service = ServiceResult(name="db", version=version, ready_seconds=0.1, restarts=0)
        artifact = Artifact(name="six", version="1.17", file="six.whl", url="https://i.example/s")
        stored = Stored(artifact=artifact, sha256=digest * 64, size=1)
        sets = (Fetched(manager="pip", folder=".", name="requirements.txt", files=(stored,)),)
        return Recorded(RunResult(services=(service,)), PLAN, sets)

    assert found(recorded("16.1", "a"), recorded("16.2", "b")) == [
        ("service", "db", "16.1 ready", "16.2 ready"),
        ("dependency", "pip: six", f"1.17 sha256:{'a' * 64}", f"1.17 sha256:{'b' * 64}"),
    ]


def test_a_run_without_a_plan_is_compared_as_far_as_it_goes() -> None:
    """A killed run has none, or part of one: said, and no difference by itself."""
    comparison = compare(Recorded(RunResult(run_id="a")), Recorded(RunResult(run_id="a"), PLAN))

    assert comparison.same
    assert comparison.notes == ("run a has no plan that can be read: plans are not compared",)


_TEXT = st.text(max_size=20)
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(_ANY, _ANY)
def test_a_plan_of_any_shape_is_compared(before: Any, after: Any) -> None:
    """The file lies in the project, where phases of another engine may have written it."""
    result = RunResult()
    comparison = compare(Recorded(result, before), Recorded(result, after))

    assert compare(Recorded(result, before), Recorded(result, before)).same
    for line in comparison_lines(comparison):
        assert not any(ord(sign) < 32 and sign != "\t" for sign in line)


def test_what_is_shown_is_bounded_and_cannot_command_a_terminal() -> None:
    """Names and commands of a project."""
    hostile = changed(commands=["\x1b]0;title\x07" + "x" * 5000])
    lines = comparison_lines(compare(Recorded(RunResult(), PLAN), Recorded(RunResult(), hostile)))

    assert max(map(len, lines)) < 400
    assert "\x1b" not in "".join(lines)
