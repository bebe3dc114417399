"""The account of a run, and the exit status that follows from it. Values and pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cleanroom.backends.base import Backend, Leftover
from cleanroom.engine.phases.interactive import SHELL_RAN
from cleanroom.engine.phases.outcome import PhaseOutcome
from cleanroom.engine.phases.verdict import Cause, phase_causes, verifies
from cleanroom.evidence.reports.text import plural
from cleanroom.model.errors import CleanroomError, EnvironmentFailed, Exit, first_cause
from cleanroom.model.plan import Plan


class Account:
    """Totals of a run, read when its span ends."""

    def __init__(self) -> None:
        self.outcomes: list[PhaseOutcome] = []
        self.error: CleanroomError | None = None
        self.service_violations = 0
        self.left: tuple[Leftover, ...] = ()
        self.degraded: tuple[str, ...] = ()  # rules that are not held
        self.backend: Backend | None = None  # the last one that was made
        # resources of another process that the run used
        self.shared_resources: tuple[str, ...] = ()

    @property
    def conflicts(self) -> int:
        """The number of files that phases changed and that changed on the host meanwhile."""
        return sum(outcome.conflicts for outcome in self.outcomes)


class Interruption(NamedTuple):
    """Why a run was ended early."""

    exit: Exit  # INTERRUPTED or TERMINATED
    why: str = ""  # where it was no signal


class RunEnd(NamedTuple):
    """The facts that decide the exit status of a run."""

    plan: Plan
    account: Account
    duration_seconds: float
    interruption: Interruption | None
    failure: BaseException | None  # of a subscriber
    conflicts_folder: str  # with the run's versions, relative to the project; empty: none
    fetch_only: bool = False  # no phase was to run
    shell: bool = False  # the commands of its last phase were an interactive shell


def causes(end: RunEnd) -> Iterator[Cause]:
    """All that keeps a run from a pass. Of those that weigh the same the first decides."""
    account, plan = end.account, end.plan
    if end.interruption is not None:
        word = "interrupted" if end.interruption.exit is Exit.INTERRUPTED else "terminated"
        yield Cause(end.interruption.exit, end.interruption.why or word)
    if end.failure is not None:
        yield Cause.of(first_cause(end.failure), Exit.ENGINE)
    if account.error is not None:
        yield Cause.of(account.error)
    for outcome in account.outcomes:
        yield from phase_causes(outcome.name, outcome.result, outcome.reason, outcome.error)
    if account.left:
        yield Cause.of(left_behind(account.left))
    if account.conflicts:
        yield _conflicting(account.conflicts, end.conflicts_folder)
    if account.service_violations and plan.policy.reaction != "warn":
        count = plural(account.service_violations, "violation")
        yield Cause(Exit.NOT_PASSED, f"{count} by services")
    if plan.strict_slo and (missed := missed_slo(plan, end.duration_seconds)):
        yield Cause(Exit.NOT_PASSED, missed, "CR-SLO-001")
    if end.shell:
        yield Cause(Exit.UNVERIFIED, "a shell is no pass, so nothing was verified", SHELL_RAN)
    elif not end.fetch_only and not verifies(outcome.result for outcome in account.outcomes):
        yield Cause(Exit.UNVERIFIED, "no command ran, so nothing was verified")


def missed_slo(plan: Plan, duration_seconds: float) -> str:
    """A sentence about an SLO that the run missed; empty where it did not."""
    if duration_seconds <= plan.slo_seconds:
        return ""
    return f"the run took {duration_seconds:.2f} s, its SLO is {plan.slo_seconds:g} s"


def left_behind(left: Sequence[Leftover]) -> CleanroomError:
    """The error of a run whose backend could not remove all that it made."""
    first = f"{left[0].kind} {left[0].name}{': ' if left[0].detail else ''}{left[0].detail}"
    return EnvironmentFailed(
        "CR-ENGINE-003",
        f"{plural(len(left), 'thing')} left behind; first: {first}",
        hint="`cleanroom-engine sweep` removes what can be",
    )


def _conflicting(count: int, folder: str) -> Cause:
    text = f"{plural(count, 'file')} changed on the host meanwhile, so left as they are"
    hint = "look at the warnings of the phases, and run again"
    if folder:
        text += f"; what the run made of them is in {folder}"
        hint = "compare both, and run again"
    return Cause(Exit.NOT_PASSED, text, "CR-WORKSPACE-001", hint)
