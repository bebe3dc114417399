"""`plan`: what would run, and nothing runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from cleanroom.cli.options import general_options, output_option, phase_names, plan_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cleanroom.engine import Decision
    from cleanroom.model.plan import PhaseRun, Plan


@click.command()
@click.argument("phases", nargs=-1, metavar="[PHASE]...", shell_complete=phase_names)
@plan_options
@output_option("human", "json")
@general_options
def plan(phases: tuple[str, ...], form: str, colour: str, root: str, **options: Any) -> None:
    """Show what would run, in order, with hooks and prerequisites unfolded;
    without PHASE everything in file order.

    \b
    cleanroom-engine plan
    cleanroom-engine plan test --env prod --output json
    """
    from cleanroom.cli.output import Output, say, say_object

    loaded = load(root, phases, options)
    decisions = (
        forecast(root, phases, options)
        if any(phase.cache_inputs for phase in loaded.phases)
        else None
    )
    output = Output(colour)
    if form == "json":
        say_object(output, as_object(loaded, decisions))
    else:
        say(output, described(loaded, decisions))


def load(root: str, phases: tuple[str, ...], options: dict[str, Any]) -> Plan:
    """The plan that a run with these options would follow.

    Raises:
        CleanroomError: the project's files do not make one.
    """
    from pathlib import Path

    from cleanroom.cli.options import engine_options
    from cleanroom.project import Overrides
    from cleanroom.project import load as load_project

    said = {name: value for name, value in engine_options(options).items() if value is not None}
    return load_project(Path(root), phases, overrides=Overrides(**said), caller=os.environ)


def forecast(root: str, phases: tuple[str, ...], options: dict[str, Any]) -> list[Decision]:
    """What would become of each phase if nothing before it changed anything."""
    from cleanroom.cli.options import engine_options
    from cleanroom.engine import Engine, Options

    return Engine(os.path.abspath(root), os.environ, Options(**engine_options(options))).forecast(  # noqa: PTH100
        *phases
    )


def as_object(loaded: Plan, decisions: Sequence[Decision] | None = None) -> dict[str, Any]:
    """The plan as data: phases flat in run order, each with its workspace,
    beside everything else that the plan says.
    """
    import msgspec

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
    }


def described(loaded: Plan, decisions: Sequence[Decision] | None = None) -> list[str]:
    """The plan for people: the whole, each phase, services, tools, what is ignored,
    what should be known.
    """
    from cleanroom.cli.views.text import safe
    from cleanroom.evidence.reports.text import seconds

    environment = f" · environment {loaded.environment}" if loaded.environment else ""
    head = (
        f"{loaded.project} · policy {', '.join(loaded.levels)} · backend {loaded.backend} · SLO "
        f"{seconds(loaded.slo_seconds)} · seed {loaded.seed}{environment}"
    )
    lines = [safe(head), safe(f"{loaded.file} (dialect {loaded.dialect})")]
    said = _forecast_lines(loaded, decisions or ())
    for workspace in loaded.workspaces:
        title = f"phases of workspace {workspace.name}" if workspace.name else "phases"
        lines += ["", safe(f"{title}, in order:"), *_phases(workspace.phases, said)]
        said = said[len(workspace.phases) :]
    lines += _section("services", [_service(service) for service in loaded.services])
    lines += _section(
        "tools, mounted read-only",
        list(
            dict.fromkeys(
                (*loaded.tools, *(tool for phase in loaded.phases for tool in phase.tools))
            )
        ),
    )
    lines += _section(
        "ignored, as ggen does",
        [
            f"line {ignored.line}: {ignored.key}{f': {ignored.reason}' if ignored.reason else ''}"
            for ignored in loaded.ignored
        ],
    )
    lines += _section("notes", list(loaded.notes))
    return lines


def _forecast_lines(loaded: Plan, decisions: Sequence[Decision]) -> list[str]:
    """One for each phase, empty where the cache has no say.

    What runs may change what a later decision is made of.
    """
    if not decisions:
        return [""] * len(loaded.phases)
    lines = []
    settled = True
    for phase, decision in zip(loaded.phases, decisions, strict=True):
        unless = "" if settled else ", unless a phase before it changes its inputs"
        said = f"would be skipped{unless}" if decision.skips else "would run"
        lines.append(f"    cache: {said}: {decision.why}" if phase.cache_inputs else "")
        settled = settled and decision.skips
    return lines


def _phases(phases: tuple[PhaseRun, ...], forecast_lines: Sequence[str]) -> list[str]:
    from cleanroom.cli.views.text import clip, safe, table
    from cleanroom.evidence.reports.text import seconds

    rows: list[tuple[str, ...]] = [
        ("  phase", "where", "policy", "timeout", "services", "role", "from")
    ]
    for phase in phases:
        role = f"{phase.role} of {phase.of}" if phase.of else phase.role
        origin = str(phase.origin).rsplit(":", 1)[0] if phase.origin else ""
        cells = (
            phase.name,
            _kind(phase),
            phase.policy.level.value,
            seconds(phase.timeout_seconds),
            ", ".join(phase.services) or "-",
            role,
            origin,
        )
        rows.append((f"  {safe(cells[0])}", *(safe(cell) for cell in cells[1:])))
    lines = table(rows)
    shown = lines[:1]
    for line, phase, cached in zip(lines[1:], phases, forecast_lines, strict=False):
        shown += [
            line,
            *(f"    $ {clip(safe(command.strip()), 200)}" for command in phase.commands),
        ]
        shown += [] if phase.runs_commands else ["    no command: it verifies nothing"]
        shown += (
            ["    an interpreter with nothing to do: it verifies nothing"] if phase.idle else []
        )
        shown += [safe(f"    {phase.dependencies}")] if phase.dependencies else []
        shown += [safe(cached)] if cached else []
        shown += (
            [safe(f"    egress, hermetic: no: {', '.join(phase.policy.egress)}")]
            if phase.policy.egress
            else []
        )
    return shown


def _kind(phase: PhaseRun) -> str:
    return "hermetic" if phase.hermetic else "host"


def _service(service: Any) -> str:
    version = f" {service.version}" if service.version else ""
    port = f" on 127.0.0.1:{service.port}" if service.port else ""
    return f"{service.name} ({service.kind}{version}){port}"


def _section(title: str, items: list[str]) -> list[str]:
    from cleanroom.cli.views.text import safe

    return ["", f"{title}:", *(f"  {safe(item)}" for item in items)] if items else []
