"""Interactive shells in the environment of a phase: which command, with which variables.

The terminal itself is the caller's: nothing here reads or writes it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

import msgspec

from cleanroom.backends.base import Environment, ExecResult, OnOutput
from cleanroom.core.text import written_out_on_one_line
from cleanroom.engine.phases.verdict import Verdict
from cleanroom.engine.supervision.context import PausedPhase, RunContext, Terminal
from cleanroom.model.errors import UsageError
from cleanroom.model.plan import PhaseRun, Plan

# A terminal that somebody forgot holds an environment with its services no longer than a day.
SHELL_SECONDS = 86_400.0
# bash where there is one, without the machine's start-up files: they would set another prompt.
SHELL = "if command -v bash >/dev/null 2>&1; then exec bash --noprofile --norc -i; fi; exec sh -i"
SHELL_RAN = "CR-SHELL-003"
# What programs inside need to know of the terminal, as they would outside.
_TERMINAL_NAMES = ("TERM", "COLORTERM")
_TERMINAL_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,62}")


class ShellExecutor:
    """Runs commands of a phase on a terminal that is lent for the time of each."""

    def __init__(self, environment: Environment, terminal: Terminal, title: str) -> None:
        self._environment = environment
        self._terminal = terminal
        self._title = title

    async def exec(
        self, argv: Sequence[str], *, on_output: OnOutput, timeout_seconds: float | None = None
    ) -> ExecResult:
        """Run a command on the terminal; nothing of what it shows is recorded."""
        async with self._terminal.lend(self._title) as terminal:
            return await self._environment.exec(
                argv, on_output=on_output, timeout_seconds=timeout_seconds, terminal=terminal
            )


def shell_plan(plan: Plan, name: str) -> Plan:
    """The plan up to this phase, whose commands are a shell; nothing comes back or is recorded.

    Raises:
        UsageError: the phase runs on the host.
    """
    workspaces = []
    for workspace in plan.workspaces:
        names = [phase.role == "phase" and phase.name == name for phase in workspace.phases]
        until = workspace.phases[: names.index(True) + 1]
        *before, last = until
        if not last.hermetic:
            raise UsageError(
                "CR-SHELL-002",
                f"expected a phase with an environment, found {name!r}, which runs on the host",
                hint="your own shell is what it gets",
                where=str(last.origin or ""),
            )
        shell = msgspec.structs.replace(
            last,
            commands=(SHELL,),
            idle="",
            timeout_seconds=SHELL_SECONDS,
            budget_seconds=None,
            cache_inputs=(),
            # All changes are listed, and what is blocked does not end the shell that tried it.
            outputs=None,
            policy=msgspec.structs.replace(last.policy, reaction="fail"),
        )
        workspaces.append(msgspec.structs.replace(workspace, phases=(*before, shell)))
    return msgspec.structs.replace(
        plan, workspaces=tuple(workspaces), dry_run=True, slo_seconds=SHELL_SECONDS
    )


def shell_variables(plan: Plan, phase: PhaseRun, caller: Mapping[str, str]) -> dict[str, str]:
    """The variables that a shell has beside those of the phase: its terminal, and its prompt."""
    terminal = {
        name: caller[name]
        for name in _TERMINAL_NAMES
        if _TERMINAL_VALUE.fullmatch(caller.get(name, ""))
    }
    level = phase.policy.level.value
    prompt = f"[cleanroom {_plain(plan.project)}:{_plain(phase.name)} {level}] $PWD \\$ "
    # No history: nothing of it would come back, and its file may be out of reach.
    return {**terminal, "PS1": prompt, "HISTFILE": ""}


def shell_title(plan: Plan, phase: PhaseRun) -> str:
    """What a person is told before the shell."""
    level = phase.policy.level.value
    lasting = "nothing that changes in it comes back"
    if phase.policy.in_place:
        lasting = f"at {level} it writes to the project itself"
    text = f"shell in phase {phase.name!r} of {plan.project} at {level}: `exit` ends it, {lasting}"
    return written_out_on_one_line(text)


def paused_phase(
    context: RunContext, phase: PhaseRun, environment: Environment, reason: str
) -> PausedPhase:
    """A phase that failed in this environment."""
    plan = context.plan

    async def shell(terminal: int, caller: Mapping[str, str]) -> int:
        variables = shell_variables(plan, phase, caller)
        words = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        result = await environment.exec(
            ("sh", "-c", f"export {words}; {SHELL}"),
            on_output=lambda stream, data: None,
            timeout_seconds=SHELL_SECONDS,
            terminal=terminal,
        )
        return result.exit_code

    name, why = written_out_on_one_line(phase.name), written_out_on_one_line(reason)
    return PausedPhase(context.run_id, plan.root, name, shell_title(plan, phase), why, shell)


def shell_verdict(verdict: Verdict) -> Verdict:
    """The verdict on a phase whose commands a shell replaced: never a pass.

    One that was ended from outside, or ran out of something, keeps its own.
    """
    if verdict.code in ("CR-PHASE-002", "CR-PHASE-003", "CR-PHASE-004"):
        return verdict
    return Verdict("unverified", verdict.exit_code, "a shell ran in its place: no pass", SHELL_RAN)


def _plain(text: str) -> str:
    """Without what a shell would expand in its prompt."""
    return re.sub(r"[^A-Za-z0-9._-]", "?", text)[:40]
