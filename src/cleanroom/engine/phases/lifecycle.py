"""Running phases: each waits for its own services, is proven, runs its commands, is judged,
and hands back what it changed.

A phase's failure is a result.
It never leaves here as an exception; what does is trouble of the run itself, and cancellation.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple, Protocol

import anyio
import anyio.to_thread
import msgspec

from cleanroom.backends.base import (
    EgressRule,
    EnvironmentSpec,
    ExecResult,
    Mount,
    OnOutput,
    Workspace,
    WorkspaceSpec,
)
from cleanroom.core.bus import Span
from cleanroom.core.redaction import is_secret
from cleanroom.engine.phases import hidden_programs, span_receiver
from cleanroom.engine.phases.host_commands import HostCommands
from cleanroom.engine.phases.offline import switches
from cleanroom.engine.phases.skipping import RUNS, Decision, Remembered, Skipping
from cleanroom.engine.phases.verdict import ERROR_RESULTS, Verdict, broken_canaries, phase_verdict
from cleanroom.engine.phases.write_back import (
    NoteLevel,
    PhaseEnd,
    WriteBack,
    WriteBackResult,
)
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.environments import ObservedEnvironment
from cleanroom.engine.supervision.supervisor import Supervisor
from cleanroom.model import events
from cleanroom.model.errors import CleanroomError, EnvironmentFailed, NothingToVerify, PolicyRefused
from cleanroom.model.events import Finished, Note, Result, Subject
from cleanroom.model.plan import PhaseRun
from cleanroom.model.plan import Workspace as PlannedWorkspace
from cleanroom.model.policy import Policy

# The account that an environment's synthetic passwd names.
USER, HOME = "cleanroom", "/home/cleanroom"
TEMPORARY = "/tmp"  # noqa: S108 -- the environment's own
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
SOURCE_DATE_EPOCH = "315532800"  # 1980-01-01: the first day that a zip file can say
KILLED = 128 + signal.SIGKILL  # the exit status of a command that ended with its environment
NAMED = 5  # of many things a message names so many


class PhaseOutcome(NamedTuple):
    """How one phase of the plan ended."""

    name: str
    workspace: str
    result: Result
    exit_code: int | None = None
    duration_seconds: float = 0.0
    conflicts: int = 0
    error: CleanroomError | None = None  # what kept it from being run to its end
    started_unix_ns: int = 0
    reason: str = ""  # as the end of its span says it

    @property
    def stops_the_run(self) -> bool:
        return self.error is not None or self.result not in ("passed", "cached", "unverified")


Remember = Callable[[Sequence[str]], Awaitable[Remembered]]  # takes the paths that came back


class Commands(Protocol):
    """Where commands run: an environment or the host."""

    async def exec(
        self, argv: Sequence[str], *, on_output: OnOutput, timeout_seconds: float | None = None
    ) -> ExecResult: ...


class Lifecycle:
    """All workspaces of one plan."""

    def __init__(
        self,
        context: RunContext,
        supervisor: Supervisor,
        outcomes: list[PhaseOutcome],
        skipping: Skipping | None = None,
    ) -> None:
        """`outcomes` takes how each phase ended, in that order,
        also when the run is ended early.
        """
        self._context = context
        self._bus = context.bus
        self._supervisor = supervisor
        self._number = 0
        self._outcomes = outcomes
        self._skipping = skipping
        self._reached: Counter[str] = Counter()  # workspace's path -> how many of its phases
        self._write_back = WriteBack(context)

    async def run(self) -> None:
        """Run everything, stopping before the next phase when one did not pass.

        A phase that was not come to, since the run was ended, is said to be skipped.
        """
        try:
            await self._workspaces()
        finally:
            for workspace in self._context.plan.workspaces:
                for phase in workspace.phases[self._reached[workspace.path] :]:
                    self._pass_over(phase, workspace, RUNS, "the run ended before it")

    async def _workspaces(self) -> None:
        plan = self._context.plan
        if plan.parallel:
            async with anyio.create_task_group() as tasks:
                for workspace in plan.workspaces:
                    tasks.start_soon(self._workspace, workspace, False)
            return
        stopped = False
        for workspace in plan.workspaces:
            stopped = await self._workspace(workspace, stopped)

    async def _workspace(self, planned: PlannedWorkspace, stopped: bool) -> bool:
        """Run its phases until one does not pass, and say whether one did not.

        Workspaces at once do not stop each other, as in ggen.
        """
        async with AsyncExitStack() as stack:
            workspace: Workspace | None = None
            for position, phase in enumerate(planned.phases, self._first_position(planned)):
                decision = (
                    RUNS
                    if stopped or self._skipping is None
                    else await self._skipping.decide(
                        position, self._write_back.unsettled_in(planned)
                    )
                )
                if stopped or decision.skips:
                    self._reached[planned.path] += 1
                    self._pass_over(phase, planned, decision)
                    continue
                if workspace is None and phase.hermetic and phase.runs_commands:
                    workspace = await stack.enter_async_context(
                        self._context.backend.workspace(self._workspace_spec(planned))
                    )
                    self._warn_of_hindrances(workspace)
                remember = (
                    partial(self._skipping.remember, position, decision)
                    if self._skipping and decision.parts is not None
                    else None
                )
                self._reached[planned.path] += 1
                outcome = await self._phase(
                    phase, planned, workspace, decision.why if phase.cache_inputs else "", remember
                )
                stopped = outcome.stops_the_run
                self._outcomes.append(outcome)
        return stopped

    def _warn_of_hindrances(self, workspace: Workspace) -> None:
        subject = Subject("run", self._context.plan.project)
        for text in hindrances(workspace.root, workspace.unchangeable, workspace.unseen):
            note = Note(subject=subject, level="warning", text=text, code="CR-WORKSPACE-003")
            self._bus.publish(note)

    def _first_position(self, planned: PlannedWorkspace) -> int:
        """Among the phases of all workspaces."""
        workspaces = self._context.plan.workspaces
        return sum(len(workspace.phases) for workspace in workspaces[: workspaces.index(planned)])

    def _pass_over(
        self,
        phase: PhaseRun,
        planned: PlannedWorkspace,
        decision: Decision,
        why: str = "an earlier phase did not pass",
    ) -> None:
        """Say of a phase that does not run: an earlier run passed it, or `why`."""
        cached = decision.skips
        result: Result = "cached" if cached else "skipped"
        attributes = self._attributes(phase, planned) | (
            {"cached_run": decision.run_id, "log": ""} if cached else {}
        )
        reason = decision.why if cached else why
        subject = Subject("phase", phase.name, planned.name)
        self._bus.publish(
            Finished(
                subject=subject,
                result=result,
                duration_seconds=0.0,
                reason=reason,
                attributes=attributes,
            )
        )
        self._outcomes.append(PhaseOutcome(phase.name, planned.name, result))

    # --- one phase

    async def _phase(
        self,
        phase: PhaseRun,
        planned: PlannedWorkspace,
        workspace: Workspace | None,
        uncached: str,
        remember: Remember | None,
    ) -> PhaseOutcome:
        """`uncached`: why it is not skipped, where it could have been."""
        began, began_ns = anyio.current_time(), self._bus.clock.wall_ns()
        error: CleanroomError | None = None
        conflicts = 0
        self._number += 1
        attributes = self._attributes(phase, planned) | ({"cache": uncached} if uncached else {})
        with self._bus.span(Subject("phase", phase.name, planned.name), attributes) as span:
            try:
                if not phase.runs_commands:
                    verdict = Verdict("unverified", None, "it has no commands")
                elif phase.idle:
                    raise _idle(phase)
                elif phase.hermetic:
                    assert workspace is not None, "a hermetic phase has a workspace"
                    verdict, conflicts = await self._hermetic(
                        phase, planned, workspace, span, remember
                    )
                else:
                    host_began_ns = time.time_ns()
                    verdict = await self._on_host(phase, planned, span)
                    if workspace is not None:
                        workspace.add_own_interval(host_began_ns, time.time_ns())
            except CleanroomError as trouble:
                error = trouble
                result = ERROR_RESULTS.get(trouble.exit, "error")
                verdict = Verdict(result, span.exit_code, str(trouble), trouble.code)
                span.attributes["hint"] = trouble.hint
            span.result, span.exit_code, span.reason, span.code = verdict
            duration = anyio.current_time() - began
            if phase.budget_seconds is not None and duration > phase.budget_seconds:
                self._note(
                    (
                        f"phase {phase.name!r} took {duration:.2f} s, its budget is "
                        f"{phase.budget_seconds:g} s"
                    ),
                    "CR-PHASE-006",
                    span,
                )
        return PhaseOutcome(
            phase.name,
            planned.name,
            verdict.result,
            verdict.exit_code,
            duration,
            conflicts,
            error,
            began_ns,
            verdict.reason,
        )

    async def _hermetic(
        self,
        phase: PhaseRun,
        planned: PlannedWorkspace,
        workspace: Workspace,
        span: Span,
        remember: Remember | None,
    ) -> tuple[Verdict, int]:
        """Prove, run, judge, bring back, and remember; in this order.

        The verdict, and how many conflicts there were.
        """
        await self._supervisor.wait_opened(phase.services)
        spec = self._environment_spec(phase, planned, span)
        observed: ObservedEnvironment | None = None
        results: list[ExecResult] = []
        try:
            async with (
                self._telemetry(phase, planned, spec, span) as spec,
                self._supervisor.environment(spec, of=phase.name) as observed,
            ):
                await self._prove(observed)
                # the environment was made and proven meanwhile
                await self._supervisor.wait_ready(phase.services)
                await self._commands(phase, planned, observed.environment, span, results)
                await self._tell_left_over(phase, observed, span)
        except EnvironmentFailed:
            if observed is not None and observed.failure is not None:
                raise observed.failure from None
            if observed is None or not observed.ended_for:
                raise  # it was not ours: the environment broke
        violations, ended_for = observed.violations, observed.ended_for
        verdict = phase_verdict(
            results,
            violations=violations,
            reaction=phase.policy.reaction,
            ended_for=ended_for,
            timeout_seconds=phase.timeout_seconds,
        )
        verdict = await self._explain_hidden(phase, spec, observed, verdict, span)
        if verdict.code == "CR-PHASE-001" and phase.dependencies:
            verdict = verdict._replace(reason=phase.dependencies, code="CR-PHASE-010")
        passed, broke_rule = verdict.result == "passed", bool(violations or ended_for)
        await workspace.finish_home(passed and not broke_rule)
        end = PhaseEnd(phase, planned, spec, passed, broke_rule, span)
        back = await self._write_back.write_back(end, workspace)
        if remember and passed:
            unfit = _unfit(broke_rule, back)
            remembered = Remembered(why_not=unfit) if unfit else await remember(back.paths)
            span.attributes.update(remembered.said)
            if remembered.why_not:
                text = f"{end} runs again next time: nothing is remembered of it"
                self._note(f"{text}, since {remembered.why_not}", "", span, "info")
        return verdict, back.conflicts

    @asynccontextmanager
    async def _telemetry(
        self, phase: PhaseRun, planned: PlannedWorkspace, spec: EnvironmentSpec, span: Span
    ) -> AsyncIterator[EnvironmentSpec]:
        """The environment with an endpoint for the spans of the phase's own programs,
        where it asks for one.
        """
        if not phase.telemetry:
            yield spec
            return
        subject = Subject("phase", phase.name, planned.name)
        async with span_receiver.receive(
            self._bus, subject, span.context, self._context.scratch
        ) as receiver:
            variables = {
                **span_receiver.VARIABLES,
                "OTEL_SERVICE_NAME": self._context.plan.project,
                **spec.variables,
            }
            yield msgspec.structs.replace(
                spec, doorways=(*spec.doorways, receiver.doorway), variables=variables
            )

    async def _prove(self, observed: ObservedEnvironment) -> None:
        canaries = await observed.environment.prove()
        for canary in canaries:
            self._bus.publish(
                events.assertion(Subject("canary", canary.name), canary, observed.spec.id)
            )
        if broken := broken_canaries(canaries, self._context.degraded):
            raise PolicyRefused(
                "CR-POLICY-010",
                f"what the policy forbids was not stopped, so nothing was run: {broken}",
                hint="`cleanroom-engine doctor` tells what this machine holds",
            )

    async def _commands(
        self,
        phase: PhaseRun,
        planned: PlannedWorkspace,
        place: Commands,
        span: Span,
        results: list[ExecResult],
    ) -> None:
        """Run them in order until one fails, within the phase's time.

        Each one's end is added to `results` at once.
        """
        deadline = anyio.current_time() + phase.timeout_seconds
        pump = self._context.pump(
            Subject("phase", phase.name, planned.name), self._log(phase, planned), span.context
        )
        try:
            for number, command in enumerate(phase.commands, 1):
                attributes: dict[str, str | int | float | bool] = {"command": command}
                began = anyio.current_time()
                with self._bus.span(
                    Subject("command", f"{phase.name}#{number}", planned.name), attributes
                ) as step:
                    left = max(0.0, deadline - anyio.current_time())
                    try:
                        result = await place.exec(
                            ("sh", "-c", command), on_output=pump.feed, timeout_seconds=left
                        )
                    except (EnvironmentFailed, anyio.get_cancelled_exc_class()):
                        # It was killed from outside: with its environment, or because the run ends.
                        step.exit_code = span.exit_code = KILLED
                        results.append(
                            ExecResult(
                                exit_code=KILLED, duration_seconds=anyio.current_time() - began
                            )
                        )
                        raise
                    results.append(result)
                    step.exit_code = span.exit_code = result.exit_code if result.ran else None
                    step.result = _result_of(result)
                    step.attributes["pid"] = result.started_pid
                if result.ran and (result.exit_code or result.timed_out):
                    return
        finally:
            pump.end()

    async def _explain_hidden(
        self,
        phase: PhaseRun,
        spec: EnvironmentSpec,
        observed: ObservedEnvironment,
        verdict: Verdict,
        span: Span,
    ) -> Verdict:
        """Where a command failed since its level hides a program,
        say which one and what shows it.
        """
        if (
            verdict.exit_code not in (hidden_programs.NOT_FOUND, hidden_programs.NOT_STARTED)
            or not phase.policy.allowlist
        ):
            return verdict
        programs = tuple(dict.fromkeys(observed.hidden))
        if not programs and verdict.exit_code == hidden_programs.NOT_FOUND:
            text, caller, inside = (
                "\n".join(phase.commands),
                self._context.caller.get("PATH", ""),
                spec.variables["PATH"],
            )
            programs = await anyio.to_thread.run_sync(
                hidden_programs.hidden_on_path, text, caller, inside
            )
        if not programs:
            return verdict
        said, hint = hidden_programs.explained(programs, phase.policy.level.value)
        span.attributes["hint"] = hint
        return verdict._replace(reason=f"{said}; {hint}", code="CR-PHASE-009")

    async def _tell_left_over(
        self, phase: PhaseRun, observed: ObservedEnvironment, span: Span
    ) -> None:
        left = await observed.environment.left_over()
        if left:
            names = ", ".join(f"{thing.name} {thing.detail}".strip() for thing in left[:NAMED])
            more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
            self._note(
                (
                    f"phase {phase.name!r} left processes running, they are ended with it: "
                    f"{names}{more}"
                ),
                "CR-PHASE-007",
                span,
            )

    async def _on_host(self, phase: PhaseRun, planned: PlannedWorkspace, span: Span) -> Verdict:
        """Without isolation, because the project said `enabled = false`; its report says so too."""
        if phase.services:
            self._note(
                f"phase {phase.name!r} runs on the host, where its services cannot be reached",
                "CR-PHASE-008",
                span,
            )
        variables = {**self._context.caller, **phase.variables, **self._markers(span)}
        results: list[ExecResult] = []
        place = HostCommands(
            variables, phase.working_directory or planned.path, phase.policy.limits.grace_seconds
        )
        await self._commands(phase, planned, place, span, results)
        return phase_verdict(
            results,
            violations=0,
            reaction="warn",
            ended_for="",
            timeout_seconds=phase.timeout_seconds,
        )

    # --- values

    def _workspace_spec(self, planned: PlannedWorkspace) -> WorkspaceSpec:
        number = self._context.plan.workspaces.index(planned)
        return WorkspaceSpec(
            root=planned.path, scratch=str(self._context.scratch / "workspaces" / str(number))
        )

    def _environment_spec(
        self, phase: PhaseRun, planned: PlannedWorkspace, span: Span
    ) -> EnvironmentSpec:
        plan = self._context.plan
        doorways, sockets, service_variables = self._supervisor.access(phase.services)
        shown = plan.tools if self._context.backend.shows_host else plan.own_tools
        tools = tuple(
            dict.fromkeys(phase.tools if phase.policy.allowlist else (*shown, *phase.tools))
        )
        return EnvironmentSpec(
            id=f"phase-{self._number}-{re.sub(r'[^A-Za-z0-9]+', '-', phase.name)[:24]}",
            run_id=self._context.run_id,
            role="phase",
            policy=phase.policy,
            variables=self._variables(phase, planned, tools, service_variables, span),
            working_directory=phase.working_directory or planned.path,
            workspace=self._workspace_spec(planned),
            mounts=(*(Mount(source=tool, target=tool) for tool in tools), *sockets),
            doorways=doorways,
            holes=tuple(_hole(entry) for entry in phase.policy.egress),
            image=phase.image,
            home=self._home(phase.policy),
            seed=plan.seed,
            outputs=phase.outputs or (),
        )

    def _home(self, policy: Policy) -> str:
        """The host's folder for the home's .cache: what one level trusts,
        the other's phases did not write.
        """
        kept = self._context.home and policy.keeps_home_cache
        return os.path.join(self._context.home, policy.level.value) if kept else ""

    def _variables(
        self,
        phase: PhaseRun,
        planned: PlannedWorkspace,
        tools: Sequence[str],
        service_variables: Mapping[str, str],
        span: Span,
    ) -> dict[str, str]:
        """The whole environment of a hermetic phase: what is fixed, what services give,
        what the caller hands over, what the project sets.
        """
        caller = self._context.caller
        if phase.policy.inherits_variables:
            inherited = {
                name: value
                for name, value in caller.items()
                if name in phase.passed or _inherited(phase, name, value)
            }
            return {
                **inherited,
                "TMPDIR": TEMPORARY,
                **service_variables,
                **phase.variables,
                **self._markers(span),
            }
        path = inside_path(
            caller.get("PATH", ""), (*tools, planned.path), listed=phase.policy.allowlist
        )
        fixed = {
            **({"PATH": path} if self._context.backend.shows_host else {}),
            "HOME": HOME,
            "USER": USER,
            "LOGNAME": USER,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "TMPDIR": TEMPORARY,
            "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
            "PYTHONHASHSEED": str(self._context.plan.seed % 2**32),
        }
        passed = {name: caller[name] for name in phase.passed if name in caller}
        told = {
            name: path
            for name, path in self._context.plan.tool_variables.items()
            if _shown(path, tools)
        }
        return {
            **fixed,
            **switches(phase.policy),
            **told,
            **service_variables,
            **passed,
            **phase.variables,
            **self._markers(span),
        }

    def _markers(self, span: Span) -> dict[str, str]:
        """How a process knows that it runs in a run, and where it is in the trace."""
        named = (
            {"GGEN_ENV": self._context.plan.environment} if self._context.plan.environment else {}
        )
        return {
            **named,
            "CLEANROOM": "1",
            "CLEANROOM_RUN_ID": self._context.run_id,
            "TRACEPARENT": span.traceparent,
        }

    def _attributes(
        self, phase: PhaseRun, planned: PlannedWorkspace
    ) -> dict[str, str | int | float | bool]:
        said: dict[str, str | int | float | bool] = {
            "hermetic": phase.hermetic and not phase.policy.egress,
            "host": not phase.hermetic,
            "role": phase.role,
            "of": phase.of,
            "policy": phase.policy.level.value,
            "timeout_seconds": phase.timeout_seconds,
            "reaction": phase.policy.reaction,
            "log": self._context.log_path(self._log(phase, planned)),
            "services": ",".join(phase.services),
        }
        return (
            said
            if phase.budget_seconds is None
            else {**said, "budget_seconds": phase.budget_seconds}
        )

    def _log(self, phase: PhaseRun, planned: PlannedWorkspace) -> str:
        return f"{planned.name}-{phase.name}" if planned.name else phase.name

    def _note(self, text: str, code: str, span: Span, level: NoteLevel = "warning") -> None:
        subject = Subject("run", self._context.plan.project)
        note = Note(subject=subject, level=level, text=text, code=code)
        self._bus.publish(note, span.context)


def _result_of(command: ExecResult) -> Result:
    if not command.ran:
        return "unverified"
    if command.timed_out:
        return "timeout"
    return "failed" if command.exit_code else "passed"


def _unfit(broke_rule: bool, back: WriteBackResult) -> str:
    """Why the result of a phase that passed is not to be remembered; empty where it may be."""
    if broke_rule:
        return "it tried what its policy forbids"
    if back.conflicts:
        return "some of its changes conflicted"
    return "some of its changes did not come back" if back.refused else ""


def hindrances(root: str, unchangeable: Sequence[str], unseen: Sequence[str]) -> Iterator[str]:
    """What phases cannot do with a workspace's files, for people."""
    if unchangeable:
        can = "phases can read, replace and remove files of another owner or group"
        cannot = "but not write to them, nor make or remove anything in such a folder"
        helps = "chown or chgrp them, or run as root"
        yield f"{root}: {can}, {cannot}, such as {', '.join(unchangeable)}; {helps}"
    if unseen:
        text = f"{root}: phases do not have what this user may not read"
        yield f"{text}, such as {', '.join(unseen)}; chmod or chown it, or run as root"


def _idle(phase: PhaseRun) -> NothingToVerify:
    said = (
        f"{phase.idle!r} is an interpreter with nothing to do: it would end well whatever the "
        "project's state"
    )
    where = str(phase.origin) if phase.origin else ""
    hint = "write the phase's command there: a script, `-c` or an argument"
    return NothingToVerify("CR-PHASE-020", said, hint=hint, where=where)


def inside_path(caller_path: str, visible: Sequence[str], *, listed: bool = False) -> str:
    """Those folders of the caller's PATH that exist inside, in the caller's order,
    then the system's; `listed`: from level High on, without /opt.
    """
    system = "/usr/" if listed else ("/usr/", "/opt/")
    shown = tuple(os.path.normpath(folder) for folder in visible)
    kept = [
        folder
        for folder in (
            os.path.normpath(entry)
            for entry in caller_path.split(os.pathsep)
            if entry.startswith("/")
        )
        if folder in SYSTEM_PATH or folder.startswith(system) or _shown(folder, shown)
    ]
    return os.pathsep.join(dict.fromkeys((*kept, *SYSTEM_PATH)))


def _inherited(phase: PhaseRun, name: str, value: str) -> bool:
    """At Low: nothing secret, and where the phase has an endpoint for its spans not what says where
    the engine's go.
    """
    return not (is_secret(name, value) or (phase.telemetry and name.startswith("OTEL_")))


def _shown(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _hole(entry: str) -> EgressRule:
    host, _, port = entry.rpartition(":")
    return EgressRule(host=host.strip("[]"), port=int(port))
