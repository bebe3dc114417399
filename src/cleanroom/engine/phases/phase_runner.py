"""Running one phase: its environment, the proof of its policy, commands, verdict and write-back.

A phase's failure is an outcome and never leaves here as an exception.
What does leave is a failure of the run itself, and cancellation.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio
import anyio.to_thread
import msgspec

from cleanroom.backends.base import Environment, EnvironmentSpec, ExecResult, Workspace
from cleanroom.core.text import written_out_on_one_line
from cleanroom.engine.own_writes import tell_anything
from cleanroom.engine.phases import built_programs, hidden_programs, span_receiver
from cleanroom.engine.phases.commands import CommandExecutor, run_commands
from cleanroom.engine.phases.current_phase import CurrentPhase, phase_attributes, phase_subject
from cleanroom.engine.phases.environment_spec import environment_spec, host_variables
from cleanroom.engine.phases.go_standard_library import GoStandardLibrary
from cleanroom.engine.phases.host_commands import HostCommands
from cleanroom.engine.phases.interactive import (
    ShellExecutor,
    paused_phase,
    shell_title,
    shell_variables,
    shell_verdict,
)
from cleanroom.engine.phases.outcome import PhaseOutcome
from cleanroom.engine.phases.phase_end import PhaseEnd
from cleanroom.engine.phases.prove import prove
from cleanroom.engine.phases.shown_git import ShownGit
from cleanroom.engine.phases.skipping import Remembered
from cleanroom.engine.phases.verdict import (
    BROKE_POLICY,
    ERROR_RESULTS,
    FAILED_COMMAND,
    Verdict,
    named_attempts,
    phase_verdict,
)
from cleanroom.engine.phases.write_back import WriteBack, WriteBackResult
from cleanroom.engine.phases.write_back_report import NoteLevel
from cleanroom.engine.supervision.context import RunContext, Shell
from cleanroom.engine.supervision.environments import ObservedEnvironment
from cleanroom.engine.supervision.supervisor import Supervisor
from cleanroom.model.errors import CleanroomError, EnvironmentFailed, NothingToVerify
from cleanroom.model.events import Note, Subject
from cleanroom.model.plan import PhaseRun
from cleanroom.model.plan import Workspace as PlannedWorkspace

READER = "reader"  # the subscription of `Engine.events`
SHOWN_SECONDS = 1.0  # a reader that has stopped is not waited for
NAMED_MAX = 5  # processes that one message names
# Helpers end by themselves once what started them has: multiprocessing's, a session's message bus.
ENDING_SECONDS = 0.25
_LOOK_SECONDS = 0.02
_UNEXPLAINED = (FAILED_COMMAND, BROKE_POLICY)  # codes that say what happened, and not why

Remember = Callable[[Sequence[str]], Awaitable[Remembered]]  # takes the paths that were written


class Attempt(NamedTuple):
    """One time that a phase ran in an environment."""

    spec: EnvironmentSpec
    observed: ObservedEnvironment
    results: Sequence[ExecResult]
    began_ns: int  # wall clock
    again: bool  # it failed, and is to run another time


class PhaseRunner:
    """Runs the phases of one run, each in an environment of its own."""

    def __init__(self, context: RunContext, supervisor: Supervisor, write_back: WriteBack) -> None:
        self._context = context
        self._bus = context.bus
        self._supervisor = supervisor
        self._write_back = write_back
        self._go = GoStandardLibrary(context, supervisor)
        self._git = ShownGit(context)
        self._begun = 0  # phases, for the names of environments
        # whether somebody may have changed the project meanwhile
        self.paused = False

    async def run(
        self,
        phase: PhaseRun,
        planned: PlannedWorkspace,
        workspace: Workspace | None,
        uncached: str = "",
        remember: Remember | None = None,
    ) -> PhaseOutcome:
        """Run one phase as a span, and return how it ended.

        `uncached`: why the phase is not skipped, where it could have been.
        `remember` records that it passed, so that a later run may skip it.
        """
        began, began_ns = anyio.current_time(), self._bus.clock.wall_ns()
        error: CleanroomError | None = None
        conflicts = 0
        self._begun += 1
        attributes = phase_attributes(self._context, phase, planned)
        if uncached:
            attributes["cache"] = uncached
        with self._bus.span(phase_subject(phase, planned), attributes) as span:
            current = CurrentPhase(phase, planned, self._begun, span)
            try:
                verdict, conflicts = await self._execute(current, workspace, remember)
            except CleanroomError as raised:
                error = raised
                result = ERROR_RESULTS.get(raised.exit, "error")
                verdict = Verdict(result, span.exit_code, str(raised), raised.code)
                span.attributes["hint"] = raised.hint
            span.result, span.exit_code, span.reason, span.code = verdict
            duration = anyio.current_time() - began
            self._check_budget(current, duration)
        return PhaseOutcome(
            name=phase.name,
            workspace=planned.name,
            result=verdict.result,
            exit_code=verdict.exit_code,
            duration_seconds=duration,
            conflicts=conflicts,
            error=error,
            started_unix_ns=began_ns,
            reason=verdict.reason,
        )

    async def _execute(
        self, current: CurrentPhase, workspace: Workspace | None, remember: Remember | None
    ) -> tuple[Verdict, int]:
        """Run the phase where it belongs; its verdict and the number of write-back conflicts."""
        phase = current.phase
        if not phase.runs_commands:
            return Verdict("unverified", None, "it has no commands"), 0
        if phase.idle:
            raise _idle(phase)
        if phase.hermetic:
            assert workspace is not None, "a hermetic phase has a workspace"
            return await self._run_hermetic(current, workspace, remember)
        began_ns = time.time_ns()
        verdict = await self._run_on_host(current)
        if workspace is not None:
            workspace.add_own_interval(began_ns, time.time_ns())
        return verdict, 0

    # --- in an environment

    async def _run_hermetic(
        self, current: CurrentPhase, workspace: Workspace, remember: Remember | None
    ) -> tuple[Verdict, int]:
        """Prove the policy, run, judge, write back and remember, in this order."""
        attempt = await self._attempt(current)
        while attempt.again:
            # What a later run would compare is what the phase was before it was run again.
            remember = None
            current = await self._run_again(current, workspace, attempt)
            attempt = await self._attempt(current)
        phase, spec, observed = current.phase, attempt.spec, attempt.observed
        shell = self._shell_of(phase)
        verdict = await self._judge(current, spec, observed, attempt.results)
        if shell is not None:
            verdict = shell_verdict(verdict)
        if verdict.result == "failed" and not spec.host_root:
            await self._report_outward(current, spec)
        passed = verdict.result == "passed"
        broke_rule = bool(observed.violations or observed.ended_for)
        await workspace.finish_home(passed and not broke_rule)
        # What a shell changed is listed as if it had passed: nothing comes back (`shell_plan`).
        selected = passed or shell is not None
        end = PhaseEnd(phase, current.planned, spec, selected, broke_rule, current.span)
        written = await self._write_back.write_back(end, workspace)
        if remember and passed:
            await self._remember(current, end, written, remember)
        return verdict, written.conflicts

    async def _attempt(self, current: CurrentPhase) -> Attempt:
        """Run the phase in an environment, with a pause where it fails and somebody decides.

        Raises:
            CleanroomError: the environment could not be made or proven, or it broke.
        """
        phase = current.phase
        began_ns = time.time_ns()
        await self._supervisor.wait_opened(phase.services)
        spec = environment_spec(self._context, current, self._supervisor.access(phase.services))
        spec = await self._git.beside(current, spec)
        spec = await self._go.below(current, spec)
        if self._shell_of(phase) is not None:
            variables = shell_variables(self._context.plan, phase, self._context.caller)
            spec = msgspec.structs.replace(spec, variables={**spec.variables, **variables})
        observed: ObservedEnvironment | None = None
        results: list[ExecResult] = []
        again = False
        try:
            async with (
                self._with_telemetry(current, spec) as spec,
                self._supervisor.environment(spec, of=phase.name) as observed,
            ):
                await prove(self._context, observed)
                # Services became ready while the environment was made and proven.
                await self._supervisor.wait_ready(phase.services)
                executor = await self._executor(phase, observed.environment)
                if phase.policy.in_place:
                    tell_anything()
                await run_commands(self._context, current, executor, results)
                again = await self._pause(current, observed, results)
                await self._report_left_over(current, observed)
        except EnvironmentFailed:
            if observed is not None and observed.failure is not None:
                raise observed.failure from None
            if observed is None or not observed.ended_for:
                raise  # no command of ours ended it: the environment broke
        return Attempt(spec, observed, results, began_ns, again)

    async def _executor(self, phase: PhaseRun, environment: Environment) -> CommandExecutor:
        shell = self._shell_of(phase)
        if shell is None:
            return environment
        await self._wait_shown()
        return ShellExecutor(environment, shell.terminal, shell_title(self._context.plan, phase))

    # --- paused and run again

    async def _pause(
        self, current: CurrentPhase, observed: ObservedEnvironment, results: Sequence[ExecResult]
    ) -> bool:
        """Where the phase failed and somebody decides about it: whether to run it again."""
        pauser, phase = self._context.pauser, current.phase
        if pauser is None or observed.ended_for:
            return False
        verdict = phase_verdict(
            results,
            violations=observed.violations,
            reaction=phase.policy.reaction,
            ended_for="",
            timeout_seconds=phase.timeout_seconds,
        )
        if verdict.result not in ("failed", "timeout"):
            return False
        self.paused = True
        await self._wait_shown()
        paused = paused_phase(self._context, phase, observed.environment, verdict.reason)
        return await pauser.decide(paused) == "retry"

    async def _wait_shown(self) -> None:
        """Wait until people see what happened so far: a person has the terminal from now on."""
        with anyio.move_on_after(SHOWN_SECONDS):
            await self._bus.wait_processed(READER)

    async def _run_again(
        self, current: CurrentPhase, workspace: Workspace, attempt: Attempt
    ) -> CurrentPhase:
        """Forget a failed attempt, and take in what changed in the project since it began.

        Raises:
            EnvironmentFailed: the workspace cannot show the project as it is now.
        """
        await workspace.finish_home(keep=False)
        renewed = await workspace.renew(attempt.began_ns)
        subject = f"phase {current.phase.name!r}"
        if not renewed.possible:
            raise EnvironmentFailed(
                "CR-PAUSE-001",
                f"{subject} cannot be run again from here: without namespaces, what earlier phases "
                "changed and the project does not have would be lost",
                hint="run the pipeline again",
            )
        failed = attempt.results[-1].exit_code if attempt.results else None
        text = f"{subject} failed (exit status {failed}), and is run again in another environment"
        self._note(current, text, "", "info")
        if renewed.hidden:
            names = ", ".join(renewed.hidden[:NAMED_MAX])
            text = f"{subject} does not see your changes of what earlier phases changed: {names}"
            self._note(current, text, "CR-PAUSE-002")
        self._begun += 1
        return current._replace(number=self._begun)

    def _shell_of(self, phase: PhaseRun) -> Shell | None:
        """The shell that replaces this phase's commands, where one does."""
        shell = self._context.shell
        return shell if shell is not None and shell.replaces(phase) else None

    @asynccontextmanager
    async def _with_telemetry(
        self, current: CurrentPhase, spec: EnvironmentSpec
    ) -> AsyncIterator[EnvironmentSpec]:
        """Add an endpoint for the spans of the phase's own programs, where it asks for one."""
        if not current.phase.telemetry:
            yield spec
            return
        async with span_receiver.receive(
            self._bus, current.subject, current.span.context, self._context.scratch
        ) as receiver:
            variables = {
                **span_receiver.VARIABLES,
                "OTEL_SERVICE_NAME": self._context.plan.project,
                **spec.variables,
            }
            yield msgspec.structs.replace(
                spec,
                port_forwards=(*spec.port_forwards, receiver.port_forward),
                variables=variables,
            )

    async def _report_left_over(self, current: CurrentPhase, observed: ObservedEnvironment) -> None:
        """Warn of processes that the commands left running, and that do not end by themselves."""
        left = await observed.environment.left_over()
        with anyio.move_on_after(ENDING_SECONDS):
            while left:
                await anyio.sleep(_LOOK_SECONDS)
                left = await observed.environment.left_over()
        if not left:
            return
        names = ", ".join(
            f"{leftover.name} {leftover.detail}".strip() for leftover in left[:NAMED_MAX]
        )
        more = f" and {len(left) - NAMED_MAX} more" if len(left) > NAMED_MAX else ""
        subject = f"phase {current.phase.name!r}"
        text = f"{subject} left processes running, they are ended with it: {names}{more}"
        self._note(current, text, "CR-PHASE-007")

    async def _report_outward(self, current: CurrentPhase, spec: EnvironmentSpec) -> None:
        """Name what leads out of the project to what this phase did not see."""
        root = current.planned.path
        shown = tuple(mount.source for mount in spec.mounts)
        found = await anyio.to_thread.run_sync(self._context.leads_out, root, shown)
        subject = f"phase {current.phase.name!r}"
        if found:
            text = f"{subject} did not see what leads out of the project: {found}"
            self._note(current, text, "CR-PHASE-012", "info")
        if unproven := self._git.unproven.get(root):
            path, reason = unproven.args
            text = f"{subject} did not see the folder {path} to which .git leads, since {reason}"
            text += f': `cleanroom.tools = ["{path}"]` shows all of it'
            self._note(current, text, "CR-PHASE-012", "info")

    async def _judge(
        self,
        current: CurrentPhase,
        spec: EnvironmentSpec,
        observed: ObservedEnvironment,
        results: Sequence[ExecResult],
    ) -> Verdict:
        """The verdict, with the reason that helps most."""
        phase = current.phase
        verdict = phase_verdict(
            results,
            violations=observed.violations,
            reaction=phase.policy.reaction,
            ended_for=observed.ended_for,
            timeout_seconds=phase.timeout_seconds,
        )
        explained = await self._explain_hidden(current, spec, observed, verdict)
        explained = _explain_built(current, observed, explained)
        if verdict.exit_code and phase.dependencies and explained.code in _UNEXPLAINED:
            explained = verdict._replace(reason=phase.dependencies, code="CR-PHASE-010")
        if explained == verdict or not observed.violations:
            return explained
        return explained._replace(
            reason=f"{explained.reason}; {named_attempts(observed.violations)}"
        )

    async def _explain_hidden(
        self,
        current: CurrentPhase,
        spec: EnvironmentSpec,
        observed: ObservedEnvironment,
        verdict: Verdict,
    ) -> Verdict:
        """Where a command failed because its level hides a program, name the program and the
        setting that shows it.
        """
        phase = current.phase
        explicable = (hidden_programs.NOT_FOUND, hidden_programs.NOT_STARTED)
        if verdict.exit_code not in explicable or not phase.policy.allowlist:
            return verdict
        programs = tuple(dict.fromkeys(observed.hidden))
        if not programs and verdict.exit_code == hidden_programs.NOT_FOUND:
            programs = await anyio.to_thread.run_sync(
                hidden_programs.hidden_on_path,
                "\n".join(phase.commands),
                self._context.caller.get("PATH", ""),
                spec.variables["PATH"],
            )
        if not programs:
            return verdict
        reason, hint = hidden_programs.explained(programs, phase.policy.level.value)
        current.span.attributes["hint"] = hint
        return verdict._replace(reason=f"{reason}; {hint}", code="CR-PHASE-009")

    async def _remember(
        self, current: CurrentPhase, end: PhaseEnd, written: WriteBackResult, remember: Remember
    ) -> None:
        """Record that the phase passed, or say why nothing is recorded."""
        if unfit := _unfit(end.broke_rule, written):
            remembered = Remembered(why_not=unfit)
        else:
            remembered = await remember(written.paths)
        current.span.attributes.update(remembered.attributes)
        if remembered.why_not:
            text = f"{end} runs again next time: nothing is remembered of it"
            self._note(current, f"{text}, since {remembered.why_not}", "", "info")

    # --- on the host

    async def _run_on_host(self, current: CurrentPhase) -> Verdict:
        """Run without isolation, because the project says `enabled = false`.

        The report says so too.
        """
        phase = current.phase
        if phase.services:
            text = f"phase {phase.name!r} runs on the host, where its services cannot be reached"
            self._note(current, text, "CR-PHASE-008")
        executor = HostCommands(
            host_variables(self._context, current),
            phase.working_directory or current.planned.path,
            phase.policy.limits.grace_seconds,
        )
        results: list[ExecResult] = []
        await run_commands(self._context, current, executor, results)
        return phase_verdict(
            results,
            violations=0,
            reaction="warn",
            ended_for="",
            timeout_seconds=phase.timeout_seconds,
        )

    # --- notes

    def _check_budget(self, current: CurrentPhase, duration: float) -> None:
        """Warn of a phase that took longer than its budget."""
        phase = current.phase
        if phase.budget_seconds is None or duration <= phase.budget_seconds:
            return
        took = f"phase {phase.name!r} took {duration:.2f} s"
        text = f"{took}, its budget is {phase.budget_seconds:g} s"
        self._note(current, text, "CR-PHASE-006")

    def _note(
        self, current: CurrentPhase, text: str, code: str, level: NoteLevel = "warning"
    ) -> None:
        subject = Subject("run", self._context.plan.project)
        # Names of processes and files come from inside.
        text = written_out_on_one_line(text)
        note = Note(subject=subject, level=level, text=text, code=code)
        self._bus.publish(note, current.span.context)


def _explain_built(
    current: CurrentPhase, observed: ObservedEnvironment, verdict: Verdict
) -> Verdict:
    """Where a program that the phase built was not started, the verdict with the setting that
    lets it.
    """
    phase = current.phase
    if verdict.code not in _UNEXPLAINED or not phase.policy.allowlist:
        return verdict
    programs = tuple(dict.fromkeys(observed.not_startable))
    reason, hint = built_programs.explained(programs, current.planned.path, phase)
    if not hint:
        return verdict
    current.span.attributes["hint"] = hint
    return verdict._replace(reason=f"{reason}; {hint}", code="CR-PHASE-011")


def _unfit(broke_rule: bool, written: WriteBackResult) -> str:
    """Why the result of a phase that passed is not to be remembered; empty where it may be."""
    if broke_rule:
        return "it tried what its policy forbids"
    if written.conflicts:
        return "some of its changes conflicted"
    return "some of its changes did not come back" if written.refused else ""


def _idle(phase: PhaseRun) -> NothingToVerify:
    text = (
        f"{phase.idle!r} is an interpreter with nothing to do: it would end well whatever the "
        "project's state"
    )
    where = str(phase.origin) if phase.origin else ""
    hint = "write the phase's command there: a script, `-c` or an argument"
    return NothingToVerify("CR-PHASE-020", text, hint=hint, where=where)
