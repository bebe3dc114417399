"""How a plan reads: as lines for people, as an object for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from cleanroom.cli.views.text import clip, safe, table
from cleanroom.dependencies.model import problem_lines
from cleanroom.evidence.reports.text import plural, seconds
from cleanroom.model.plan import Ignored, PhaseRun, Plan, ServiceSpec
from cleanroom.model.policy import Policy

if TYPE_CHECKING:
    from cleanroom.engine import Decision, SetForecast

NAMED_MOST = 5  # of many names in one line; --output json has all of them
_NOTHING = "nothing to fetch"
_NAME_CHARACTERS = 200  # of a name that a lock file has
_COMMAND_CHARACTERS = 200  # of a command line; --output json has all of it


def plan_object(
    loaded: Plan,
    decisions: Sequence[Decision] | None = None,
    dependencies: Sequence[SetForecast] = (),
) -> dict[str, object]:
    """The plan's fields, its phases in one list in run order, each with its workspace.

    `decisions`, one for each phase, become the phases' `cache`.
    """
    fields = msgspec.to_builtins(loaded)
    del fields["workspaces"]
    phases = [
        {**msgspec.to_builtins(phase), "workspace": workspace.name, "kind": _kind(phase)}
        for workspace in loaded.workspaces
        for phase in workspace.phases
    ]
    for phase, decision in zip(phases, decisions or (), strict=False):
        phase["cache"] = (
            {"skip": decision.skips, "run_id": decision.run_id, "why": decision.why}
            if phase["cache_inputs"]
            else None
        )
    workspaces = [
        {"name": workspace.name, "path": workspace.path} for workspace in loaded.workspaces
    ]
    return {
        "schema": "cleanroom.plan/1",
        **fields,
        "policy": ", ".join(loaded.levels),
        "policy_details": fields["policy"],
        "phases": phases,
        "workspaces": workspaces,
        "dependencies": msgspec.to_builtins(dependencies),
    }


def plan_lines(
    loaded: Plan,
    decisions: Sequence[Decision] | None = None,
    dependencies: Sequence[SetForecast] = (),
) -> list[str]:
    """The project's settings, each phase, services, tools, ignored keys and notes.

    `decisions`, one for each phase, become lines about the cache.
    """
    forecast = _forecast_lines(loaded, decisions or ())
    lines = _heading(loaded)
    for workspace in loaded.workspaces:
        title = f"phases of workspace {workspace.name}" if workspace.name else "phases"
        lines += ["", safe(f"{title}, in order:"), *_phases(workspace.phases, forecast)]
        forecast = forecast[len(workspace.phases) :]
    tools = dict.fromkeys(
        (*loaded.tools, *(tool for phase in loaded.phases for tool in phase.tools))
    )
    return [
        *lines,
        *_section("services", [_service(service) for service in loaded.services]),
        *_section("dependencies", [line for one in dependencies for line in _dependencies(one)]),
        *_section("tools, mounted read-only", list(tools)),
        *_section("ignored, as ggen does", [_ignored(entry) for entry in loaded.ignored]),
        *_section("notes", list(loaded.notes)),
    ]


def _dependencies(one: SetForecast) -> list[str]:
    """A set of dependencies: how many files, where from, and what nobody can vouch for."""
    lines = [f"{one.manager} {_some(one.set_files or (one.file,))}: {_state(one)}"]
    if one.resolved and not one.stored:
        names = _some(one.resolved)
        lines.append(f"  no lock pins {names}: resolved by {one.manager}, pinned on first use")
    others = [name for name in one.unpinned if one.stored or name not in one.resolved]
    if others:
        lines.append(f"  no lock pins {_some(others)}: pinned on first use")
    # a runner of CI takes "::error::" at the beginning of a line as a command
    lines += [f"  not fetched: {line}" for line in problem_lines(one.problems)]
    return lines + [f"  {caution}" for caution in one.cautions]


def _state(one: SetForecast) -> str:
    """How much a set is, and whether a run would fetch it."""
    if one.stored:
        return f"{plural(one.files, 'file')}, in the store" if one.files else _NOTHING
    counted = [plural(one.files, "file")] if one.files else []
    if one.packages:
        counted.append(plural(one.packages, "pinned package"))
    if one.resolved:
        counted.append(f"what {one.manager} resolves")
    if not counted:
        return _NOTHING
    hosts = _some([host.removesuffix(":443") for host in one.hosts])
    return f"{' and '.join(counted)}, to be fetched{f' from {hosts}' if hosts else ''}"


def _egress_names(policy: Policy) -> list[str]:
    return [
        f"{entry} (also private addresses)" if policy.opens_private(entry) else entry
        for entry in policy.egress
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_MOST} more" if len(names) > NAMED_MOST else ""
    return f"{', '.join(name[:_NAME_CHARACTERS] for name in names[:NAMED_MOST])}{more}"


def _heading(loaded: Plan) -> list[str]:
    settings = [
        loaded.project,
        f"policy {', '.join(loaded.levels)}",
        f"backend {loaded.backend}",
        f"SLO {seconds(loaded.slo_seconds)}",
        f"seed {loaded.seed}",
    ]
    if loaded.environment:
        settings.append(f"environment {loaded.environment}")
    return [safe(" · ".join(settings)), safe(f"{loaded.file} (dialect {loaded.dialect})")]


def _forecast_lines(loaded: Plan, decisions: Sequence[Decision]) -> list[str]:
    """One line for each phase, empty where the phase declares no inputs for the cache.

    A phase that runs may change the inputs of those after it.
    """
    if not decisions:
        return [""] * len(loaded.phases)
    lines = []
    certain = True
    for phase, decision in zip(loaded.phases, decisions, strict=True):
        unless = "" if certain else ", unless a phase before it changes its inputs"
        outcome = f"would be skipped{unless}" if decision.skips else "would run"
        lines.append(f"    cache: {outcome}: {decision.why}" if phase.cache_inputs else "")
        certain = certain and decision.skips
    return lines


def _phases(phases: tuple[PhaseRun, ...], forecast: Sequence[str]) -> list[str]:
    """A table with one row for each phase, and below each row its commands and remarks."""
    titles = ("  phase", "where", "policy", "timeout", "services", "role", "from")
    title_line, *rows = table([titles, *map(_row, phases)])
    lines = [title_line]
    for row, phase, cached in zip(rows, phases, forecast, strict=False):
        lines += [row, *_remarks(phase)]
        if cached:
            lines.append(safe(cached))
        if phase.policy.egress:
            hosts = ", ".join(_egress_names(phase.policy))
            lines.append(safe(f"    egress, hermetic: no: {hosts}"))
    return lines


def _row(phase: PhaseRun) -> tuple[str, ...]:
    cells = (
        _kind(phase),
        phase.policy.level.value,
        seconds(phase.timeout_seconds),
        ", ".join(phase.services) or "-",
        f"{phase.role} of {phase.of}" if phase.of else phase.role,
        str(phase.origin).rsplit(":", 1)[0] if phase.origin else "",
    )
    return f"  {safe(phase.name)}", *map(safe, cells)


def _remarks(phase: PhaseRun) -> list[str]:
    lines = [
        f"    $ {clip(safe(command.strip()), _COMMAND_CHARACTERS)}" for command in phase.commands
    ]
    if not phase.runs_commands:
        lines.append("    no command: it verifies nothing")
    if phase.idle:
        lines.append("    an interpreter with nothing to do: it verifies nothing")
    if phase.dependencies:
        lines.append(safe(f"    {phase.dependencies}"))
    return lines


def _kind(phase: PhaseRun) -> str:
    return "hermetic" if phase.hermetic else "host"


def _service(service: ServiceSpec) -> str:
    version = f" {service.version}" if service.version else ""
    port = f" on 127.0.0.1:{service.port}" if service.port else ""
    return f"{service.name} ({service.kind}{version}){port}"


def _ignored(entry: Ignored) -> str:
    reason = f": {entry.reason}" if entry.reason else ""
    return f"line {entry.line}: {entry.key}{reason}"


def _section(title: str, items: list[str]) -> list[str]:
    return ["", f"{title}:", *(f"  {safe(item)}" for item in items)] if items else []
