"""The lifecycle of a run: its workspaces, and the phases of each in order.

It decides which phase runs, is skipped or is not reached; `phase_runner` runs one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial

import anyio

from cleanroom.backends.base import Workspace
from cleanroom.core.text import written_out_on_one_line
from cleanroom.engine.phases.current_phase import phase_attributes, phase_subject
from cleanroom.engine.phases.environment_spec import workspace_spec
from cleanroom.engine.phases.outcome import PhaseOutcome
from cleanroom.engine.phases.phase_runner import PhaseRunner, Remember
from cleanroom.engine.phases.skipping import RUNS, Decision, Skipping
from cleanroom.engine.phases.write_back import WriteBack
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.supervisor import Supervisor
from cleanroom.model.events import Finished, Note, Result, Subject
from cleanroom.model.plan import PhaseRun
from cleanroom.model.plan import Workspace as PlannedWorkspace


class Lifecycle:
    """All workspaces of one plan."""

    def __init__(
        self,
        context: RunContext,
        supervisor: Supervisor,
        outcomes: list[PhaseOutcome],
        skipping: Skipping | None = None,
    ) -> None:
        """`outcomes` receives how each phase ended, in that order, also when the run is ended
        early.
        """
        self._context = context
        self._bus = context.bus
        self._outcomes = outcomes
        self._skipping = skipping
        self._write_back = WriteBack(context)
        self._supervisor = supervisor
        self._runner = PhaseRunner(context, supervisor, self._write_back)
        self._reached: Counter[str] = Counter()  # workspace's path -> how many of its phases

    async def run(self) -> None:
        """Run all workspaces, stopping before the next phase when one did not pass.

        A phase that the run ended before is reported as skipped.

        Raises:
            CleanroomError: a workspace cannot be made.
        """
        try:
            await self._run_workspaces()
        finally:
            for workspace in self._context.plan.workspaces:
                for phase in workspace.phases[self._reached[workspace.path] :]:
                    self._pass_over(phase, workspace, RUNS, "the run ended before it")

    async def _run_workspaces(self) -> None:
        plan = self._context.plan
        if plan.parallel:
            async with anyio.create_task_group() as tasks:
                for workspace in plan.workspaces:
                    tasks.start_soon(self._run_workspace, workspace, False)
            return
        stopped = False
        for workspace in plan.workspaces:
            stopped = await self._run_workspace(workspace, stopped)

    async def _run_workspace(self, planned: PlannedWorkspace, stopped: bool) -> bool:
        """Run the phases of one workspace until one does not pass.

        Returns whether one did not.
        Workspaces that run at once do not stop each other, as in ggen.
        """
        async with AsyncExitStack() as stack:
            workspace: Workspace | None = None
            for position, phase in enumerate(planned.phases, self._first_position(planned)):
                decision = RUNS if stopped else await self._decide(position, planned)
                if stopped or decision.skips:
                    self._reached[planned.path] += 1
                    self._pass_over(phase, planned, decision)
                    if decision.skips:
                        self._supervisor.phase_passed(phase.name)
                    continue
                if workspace is None and phase.hermetic and phase.runs_commands:
                    workspace = await stack.enter_async_context(
                        self._context.backend.workspace(workspace_spec(self._context, planned))
                    )
                    self._warn_of_hindrances(workspace)
                self._reached[planned.path] += 1
                uncached = decision.why if phase.cache_inputs else ""
                remember = self._remember(position, decision)
                outcome = await self._runner.run(phase, planned, workspace, uncached, remember)
                stopped = outcome.stops_the_run
                self._outcomes.append(outcome)
                if not stopped:
                    self._supervisor.phase_passed(phase.name)
        return stopped

    def _first_position(self, planned: PlannedWorkspace) -> int:
        """The position of the workspace's first phase among the phases of all workspaces."""
        workspaces = self._context.plan.workspaces
        return sum(len(workspace.phases) for workspace in workspaces[: workspaces.index(planned)])

    # --- skipping

    async def _decide(self, position: int, planned: PlannedWorkspace) -> Decision:
        # After a pause nobody knows what an earlier look at the project saw.
        if self._skipping is None or self._runner.paused:
            return RUNS
        return await self._skipping.decide(position, self._write_back.uncommitted_in(planned))

    def _remember(self, position: int, decision: Decision) -> Remember | None:
        """The function that records that the phase passed; None where nothing is recorded."""
        if self._skipping is None or decision.parts is None:
            return None
        return partial(self._skipping.remember, position, decision)

    def _pass_over(
        self,
        phase: PhaseRun,
        planned: PlannedWorkspace,
        decision: Decision,
        why: str = "an earlier phase did not pass",
    ) -> None:
        """Report a phase that does not run: an earlier run passed it, or `why`."""
        cached = decision.skips
        result: Result = "cached" if cached else "skipped"
        attributes = phase_attributes(self._context, phase, planned)
        if cached:
            attributes |= {"cached_run": decision.run_id, "log": ""}
        finished = Finished(
            subject=phase_subject(phase, planned),
            result=result,
            duration_seconds=0.0,
            reason=decision.why if cached else why,
            attributes=attributes,
        )
        self._bus.publish(finished)
        self._outcomes.append(PhaseOutcome(phase.name, planned.name, result))

    # --- notes

    def _warn_of_hindrances(self, workspace: Workspace) -> None:
        subject = Subject("run", self._context.plan.project)
        for text in hindrances(workspace.root, workspace.unchangeable, workspace.unseen):
            text = written_out_on_one_line(text)
            note = Note(subject=subject, level="warning", text=text, code="CR-WORKSPACE-003")
            self._bus.publish(note)


def hindrances(root: str, unchangeable: Sequence[str], unseen: Sequence[str]) -> Iterator[str]:
    """For people: what phases cannot do with a workspace's files, and what helps."""
    if unchangeable:
        can = "phases can read, replace and remove files of another owner or group"
        cannot = "but not write to them, nor make or remove anything in such a folder"
        helps = "chown or chgrp them, or run as root"
        yield f"{root}: {can}, {cannot}, such as {', '.join(unchangeable)}; {helps}"
    if unseen:
        text = f"{root}: phases do not have what this user may not read"
        yield f"{text}, such as {', '.join(unseen)}; chmod or chown it, or run as root"
