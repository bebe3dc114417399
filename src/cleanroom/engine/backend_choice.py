"""The choice of a run's backend: the first that holds what the plan's policies require."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from cleanroom.backends import registry
from cleanroom.backends.base import Backend
from cleanroom.model.capability import CapabilityReport, Missing, unmet
from cleanroom.model.errors import PolicyRefused
from cleanroom.model.events import Note, Subject
from cleanroom.model.plan import Plan
from cleanroom.model.policy import Level, lowest_first

# Each rule that a backend cannot hold, with the lowest of the levels that requires it.
Lacking = Mapping[str, tuple[Level, Missing]]


class BackendChoice(NamedTuple):
    """A backend that was entered, and what it cannot hold."""

    backend: Backend
    report: CapabilityReport
    required: Level  # the highest of the plan
    lacking: Lacking


async def choose_backend(
    stack: AsyncExitStack,
    plan: Plan,
    make_backend: Callable[[str], Backend],
    probed: Callable[[CapabilityReport], None],
) -> BackendChoice:
    """Enter the first backend that holds what the plan requires, but for allowed degradations.

    `probed` is called with the report of each backend, also of one that is refused.

    Raises:
        PolicyRefused: no backend holds it.
        BackendUnavailable: the one that the plan names cannot be used.
    """
    levels = _levels(plan)

    def refusal(report: CapabilityReport) -> PolicyRefused | None:
        probed(report)
        return _refusal(plan, report, _lacking(report, levels))

    names = registry.candidates(plan.backend)
    backend, report = await registry.enter_first(stack, names, make_backend, levels[-1], refusal)
    return BackendChoice(backend, report, levels[-1], _lacking(report, levels))


def degraded_rules(plan: Plan, choice: BackendChoice) -> tuple[str, ...]:
    """The rules that file and command line both allow the run not to hold, and that it does not."""
    lowered = ("policy",) if "policy" in plan.allow_degraded else ()
    return (*lowered, *choice.lacking)


def choice_notes(plan: Plan, choice: BackendChoice) -> Iterator[Note]:
    """What a person has to know of the choice: each degradation, and an automatic choice."""
    subject = Subject("run", plan.project)
    if "policy" in plan.allow_degraded:
        text = f"policy: {plan.policy.level.value} is below what the project's file asks for"
        yield Note(subject=subject, level="degraded", text=text, code="CR-POLICY-005")
    for rule, (_, missing) in choice.lacking.items():
        text = f"{rule} is not held: {missing.why}"
        yield Note(subject=subject, level="degraded", text=text, code="CR-POLICY-005")
    if plan.backend == "auto":
        report, level = choice.report, choice.required.value
        without = f", but for {', '.join(choice.lacking)}" if choice.lacking else ""
        held = f"tier {report.tier} holds what {level} requires{without}"
        yield Note(subject=subject, level="info", text=f"backend {report.backend}: {held}")


def _levels(plan: Plan) -> Sequence[Level]:
    """The levels of the plan and of its hermetic phases, the lowest first."""
    hermetic = (phase.policy.level for phase in plan.phases if phase.hermetic)
    return lowest_first((plan.policy.level, *hermetic))


def _lacking(report: CapabilityReport, levels: Sequence[Level]) -> Lacking:
    return {
        missing.rule: (level, missing)
        for level in reversed(levels)
        for missing in unmet(report, level)
    }


def _refusal(plan: Plan, report: CapabilityReport, lacking: Lacking) -> PolicyRefused | None:
    """The error of a backend that lacks a rule which the plan does not allow to be degraded."""
    refused = [found for rule, found in lacking.items() if rule not in plan.allow_degraded]
    if not refused:
        return None
    level, first = refused[0]
    others = [missing.rule for _, missing in refused[1:]]
    more = f" (nor {', '.join(others)})" if others else ""
    return PolicyRefused(
        "CR-POLICY-004",
        (
            f"policy {level.value} requires {first.rule}, which backend {report.backend} "
            f"cannot hold here: {first.why}{more}"
        ),
        hint=first.hint or "`cleanroom-engine doctor` tells what this machine holds",
    )
