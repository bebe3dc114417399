"""Proofs in an environment: canaries run, and what was recorded meanwhile decides about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cleanroom.sandbox.selftest.canary import judge

if TYPE_CHECKING:
    from cleanroom.sandbox.processes.limit_reports import LimitReports
    from cleanroom.sandbox.protocol import Attempt, CanariesRun, CanaryResult
    from cleanroom.sandbox.seccomp_notify.recorder import Recorder
    from cleanroom.sandbox.selftest import limit_canaries


class Proofs:
    """The proof under way, if there is one.

    Attempts that are recorded meanwhile are evidence, and no violations.
    """

    def __init__(self, limits: LimitReports) -> None:
        self._limits = limits
        self._recorder: Recorder | None = None
        self._attempts: list[Attempt] | None = None
        self._group_results: limit_canaries.Outcome = list

    def begin(self, recorder: Recorder | None, group_results: limit_canaries.Outcome) -> None:
        """Begin a proof; `group_results` waits for what the control group's canaries found."""
        self._recorder = recorder
        self._attempts, self._group_results = [], group_results
        if recorder is not None:
            # The kernel has to refuse by itself: the recorder lets the calls pass.
            recorder.proving = True

    def take(self, attempt: Attempt) -> bool:
        """Keep an attempt as evidence; False where no proof is under way."""
        if self._attempts is None:
            return False
        self._attempts.append(attempt)
        return True

    def judge(self, message: CanariesRun) -> list[CanaryResult]:
        """End the proof, hold each canary's outcome against the record, and add what the control
        group's canaries found.
        """
        attempts, group_results = self._end()
        return [*judge(message["results"], attempts), *message["limits"], *group_results]

    def abandon(self) -> None:
        """End a proof that failed."""
        self._end()

    def _end(self) -> tuple[list[Attempt], list[CanaryResult]]:
        """The attempts of the proof, and the results of the control group's canaries."""
        if self._recorder is not None:
            # What is recorded and not reported yet belongs to this proof.
            self._recorder.flush()
            self._recorder.proving = False
        attempts, self._attempts = self._attempts or [], None
        group_results = self._group_results()
        self._group_results = list
        self._limits.restart()
        return attempts, group_results
