"""From a project's files to a frozen `Plan`.

The only function that others call is `load`; it reads, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from cleanroom.core.files import is_missing
from cleanroom.model.errors import UsageError
from cleanroom.model.plan import (
    BackendName,
    Ignored,
    PhaseRun,
    Plan,
    Retention,
    ServiceSpec,
    Workspace,
)
from cleanroom.model.policy import CONTROLS, Level
from cleanroom.project import (
    dependencies,
    folders,
    named_files,
    notes,
    order,
    outward,
    phases,
    policies,
)
from cleanroom.project import services as declared
from cleanroom.project.arguments import with_arguments
from cleanroom.project.dialects import parse_project
from cleanroom.project.floor import FLOOR_FILE, read_floor
from cleanroom.project.idle import idle_interpreter
from cleanroom.project.keys import RetentionKeys
from cleanroom.project.order import Step
from cleanroom.project.phases import Context
from cleanroom.project.project_file import FILE, PYPROJECT, TABLE, read_project
from cleanroom.project.raw_project import RawProject
from cleanroom.project.settings import Layer, overlaid, read_layers
from cleanroom.project.source import nearest, read_source
from cleanroom.project.tool_credentials import credential_files
from cleanroom.project.tools import SYSTEM, editable_installs, tool_variables, visible_tools
from cleanroom.project.version_files import version_files

_SLO_SECONDS = 20.0
_SEED = 42


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the command line. None and (): not given."""

    backend: BackendName | None = None
    policy: Level | None = None
    env: str | None = None
    seed: int | None = None
    slo_seconds: float | None = None
    strict_slo: bool | None = None
    allow_degraded: tuple[str, ...] = ()
    dry_run: bool = False
    # the services of the plan, each with those that it depends on: (): all that are declared or
    # that a phase names; None: those that its phases name
    services: tuple[str, ...] | None = None
    fresh: bool = False  # for the engine: the plan is the same


def load(
    root: Path,
    requested: Sequence[str] = (),
    *,
    overrides: Overrides = Overrides(),  # noqa: B008 (frozen)
    caller: Mapping[str, str],
    single: bool = False,
    arguments: Sequence[str] = (),
    floor: Path = FLOOR_FILE,
) -> Plan:
    """Read the project at `root` into a plan for the `requested` phases;
    for all in file order if none is named.

    `caller` is the environment of the process that runs us.
    `single` stands for `run PHASE`: workspaces are ignored.
    `arguments` are for the commands of the `requested` phases.
    `floor` is the file with the organisation's minimum.

    Raises:
        ProjectError: a file has to be edited; it says where.
        UsageError: a phase or rule that was asked for does not exist, or takes no arguments.
        PolicyRefused: the command line or the project is below what the file or the
            organisation requires; or a dry run has a phase that writes to the project itself.
    """
    root = root.absolute()
    project = read_project(root)
    context = Context(
        root=root,
        caller=caller,
        environment=caller.get("GGEN_ENV", "") if overrides.env is None else overrides.env,
        requested_level=Level(overrides.policy) if overrides.policy else None,
        allowed=_rules(overrides.allow_degraded),
        floor=read_floor(floor),
        arguments=tuple(arguments),
        services=overrides.services,
    )
    base, overlay = read_layers(project.settings, "project", context.environment)
    parts = [
        _part(context, own, path, name, requested, overlaid(base, lower), overlaid(overlay, upper))
        for name, path, own, lower, upper in _workspaces(context, project, single)
    ]
    whole = overlaid(base, overlay)
    if overrides.dry_run:
        phases.refuse_lasting(part.workspace for part in parts)
    return _plan(context, project, whole, parts, overrides, tuple(requested), single)


class _Part(msgspec.Struct, frozen=True):
    """One workspace with its settings and the order of its phases."""

    project: RawProject
    workspace: Workspace
    layer: Layer
    steps: tuple[Step, ...]
    layers: Mapping[str, Layer]  # phase -> all that applies to it
    services: tuple[ServiceSpec, ...]


def _workspaces(
    context: Context, project: RawProject, single: bool
) -> list[tuple[str, Path, RawProject, Layer, Layer]]:
    """Name, folder, file and the file's own settings, in run order.

    A workspace's own file replaces the project's phases.
    """
    if single or not project.workspaces:
        return [("", context.root, project, Layer(), Layer())]
    found = []
    for workspace in project.workspaces:
        path, relative = folders.workspace_folder(context.root, workspace)
        name = f"{relative}/{FILE}"
        if relative == "." or is_missing(path / FILE):
            found.append((workspace.name, path, project, Layer(), Layer()))
        else:
            own = parse_project(read_source(path / FILE, name), path)
            found.append(
                (
                    workspace.name,
                    path,
                    own,
                    *read_layers(own.settings, "project", context.environment),
                )
            )
    return found


def _part(
    context: Context,
    project: RawProject,
    path: Path,
    name: str,
    requested: Sequence[str],
    base: Layer,
    overlay: Layer,
) -> _Part:
    names = tuple(requested) or tuple(
        phase.name for phase in project.phases.values() if not phase.generated
    )
    _check_names(names, project, name)
    phases.check_commands(overlay, project)
    layers = {
        phase.name: phases.layer_of(phase, base, overlay, context.environment)
        for phase in project.phases.values()
    }
    services = {phase: declared.named(layer) for phase, layer in layers.items()}
    steps = tuple(order.unfold(project, names))
    declared.check_after(base, [step.name for step in steps], services, project.phases)
    used = tuple(dict.fromkeys(service for step in steps for service in services[step.name]))
    if context.services is not None:
        used = declared.for_host(overlaid(base, overlay), used, context.services)
    made = {
        step.name: phases.phase_run(
            context, project, path, step.name, layers[step.name], services[step.name]
        )
        for step in steps
    }
    layer = overlaid(base, overlay)
    missing = dependencies.hints(
        [
            dependencies.Asked(
                name=phase.name,
                folder=Path(phase.working_directory or path),
                commands=phase.commands,
                policy=phase.policy,
                variables=phase.variables,
                hermetic=phase.hermetic,
            )
            for phase in (made[step.name] for step in steps)
        ]
    )
    return _Part(
        project=project,
        workspace=Workspace(
            name=name,
            path=str(path),
            phases=tuple(
                _stepped(context, made[step.name], step, missing.get(step.name, ""))
                for step in steps
            ),
        ),
        layer=layer,
        steps=steps,
        layers=layers,
        services=declared.specs(layer, used, context.root),
    )


def _stepped(context: Context, phase: PhaseRun, step: Step, missing: str) -> PhaseRun:
    """The phase at its place in the order; one that was asked for gets the arguments."""
    commands = phase.commands
    if step.role == "phase":
        commands = with_arguments(phase, context.arguments)
    return msgspec.structs.replace(
        phase,
        commands=commands,
        idle=idle_interpreter(commands),
        role=step.role,
        of=step.of,
        dependencies=missing,
    )


def _plan(
    context: Context,
    project: RawProject,
    whole: Layer,
    parts: Sequence[_Part],
    overrides: Overrides,
    requested: tuple[str, ...],
    single: bool,
) -> Plan:
    settings = whole.settings
    level = _project_level(context, whole)
    allowed = _allowed_rules(context, whole, parts)
    tools = visible_tools(context.caller, context.root) if _need_callers_tools(parts) else ()
    home_only = {"HOME": context.caller.get("HOME", "")}
    phase_tools = dict.fromkeys(
        tool for part in parts for phase in part.workspace.phases for tool in phase.tools
    )
    all_tools = (*tools, *phase_tools)
    hidden = notes.hidden_installs(editable_installs(context.root) if tools else (), all_tools)
    if tools and (outside := _leading_out(context, all_tools)):
        hidden += (f"what leads out of the project is not shown: {outward.described(outside)}",)
    seed = settings.seed if overrides.seed is None else overrides.seed
    strict = settings.strict_slo if overrides.strict_slo is None else overrides.strict_slo
    return Plan(
        project=project.name or context.root.name,
        root=str(context.root),
        file=str(context.root / project.source.name),
        dialect=project.dialect,
        environment=context.environment,
        backend=context.floor.backend_for(overrides.backend or settings.backend or "auto"),
        policy=policies.policy_of(whole, level),
        requested=requested,
        workspaces=tuple(part.workspace for part in parts),
        parallel=not single and _is_parallel(project, requested),
        services=_joined(parts),
        tools=tools,
        own_tools=visible_tools(home_only, context.root) if tools else (),
        tool_variables=tool_variables(context.caller, all_tools),
        tool_files=version_files(context.caller, all_tools),
        tool_credentials=credential_files(all_tools),
        retention=_retention(settings.retention),
        slo_seconds=overrides.slo_seconds or settings.slo or _SLO_SECONDS,
        strict_slo=bool(strict),
        seed=_SEED if seed is None else seed,
        ignored=tuple(
            entry for part in _distinct(parts, project) for entry in _ignored(part, project)
        ),
        notes=(*_notes(context, whole, parts, allowed), *hidden),
        allow_degraded=allowed,
        dry_run=overrides.dry_run,
        files=named_files.make_tomls(context.root, project, FILE),
        named=_named(context.root, whole, parts),
        fetching=any(layer.settings.egress for part in parts for layer in part.layers.values()),
    )


def _retention(keys: RetentionKeys | None) -> Retention:
    if keys is None:
        return Retention()
    return Retention(runs=keys.runs, age_seconds=keys.age, size_bytes=keys.size)


def _leading_out(context: Context, tools: Sequence[str]) -> tuple[outward.Outward, ...]:
    home = context.caller.get("HOME", "")
    return outward.find(str(context.root), (*SYSTEM, *tools), home)


def _project_level(context: Context, whole: Layer) -> Level:
    """The level of the project; its phases may have others."""
    level = context.requested_level
    if whole.settings.policy:
        level = policies.level_of(
            whole, context.requested_level, context.allowed_by(whole), "cleanroom.policy"
        )
    return level or policies.DEFAULT_LEVEL


def _allowed_rules(context: Context, whole: Layer, parts: Sequence[_Part]) -> tuple[str, ...]:
    """The rules that the command line lets go and every hermetic phase's settings do too."""
    layers = [
        part.layers[step.name]
        for part in parts
        for step in part.steps
        if part.layers[step.name].settings.enabled is not False
    ]
    return tuple(
        rule
        for rule in context.allowed
        if all(rule in context.allowed_by(layer) for layer in layers or [whole])
    )


def _is_parallel(project: RawProject, requested: tuple[str, ...]) -> bool:
    """Whether workspaces run at once: the project or the first requested phase says so."""
    if not project.workspaces:
        return False
    first = next(iter(project.phases.values()), None)
    if requested:
        first = project.phases.get(requested[0])
    return project.parallel or bool(first and first.parallel)


def _notes(
    context: Context, whole: Layer, parts: Sequence[_Part], allowed: tuple[str, ...]
) -> tuple[str, ...]:
    return notes.collect(
        context.environment,
        whole,
        [(part.project, part.steps, part.layers) for part in parts],
        asked=context.allowed,
        allowed=allowed,
    )


def _named(root: Path, whole: Layer, parts: Sequence[_Part]) -> tuple[str, ...]:
    """Programs, scripts and init files that the files name, for `Plan.named`."""
    found: dict[str, None] = {}
    for part in parts:
        layers = (whole, part.layer, *part.layers.values())
        names = named_files.named(root, Path(part.workspace.path), part.project, layers)
        found.update(dict.fromkeys(names))
    return tuple(found)


def _need_callers_tools(parts: Sequence[_Part]) -> bool:
    """Whether an environment shows the caller's programs: those of generic services and of phases
    below High do.
    """
    phases = [phase for part in parts for phase in part.workspace.phases if phase.hermetic]
    generic = any(service.kind == "generic" for part in parts for service in part.services)
    return generic or not phases or not all(phase.policy.allowlist for phase in phases)


def _distinct(parts: Sequence[_Part], project: RawProject) -> list[_Part]:
    """One part per file: workspaces without a file of their own share the project's."""
    found: dict[str, _Part] = {}
    for part in parts:
        found.setdefault(part.project.source.name, part)
    return sorted(found.values(), key=lambda part: part.project is not project)


def _ignored(part: _Part, project: RawProject) -> list[Ignored]:
    """Keys without effect; those of a workspace's own file are named with the file."""
    file = part.project.source.name
    prefix = "" if part.project is project else f"{file}: "
    entries = [*part.project.ignored, *notes.idle_hooks(part.project)]
    return sorted(
        (msgspec.structs.replace(entry, key=prefix + entry.key) for entry in entries),
        key=lambda entry: entry.line,
    )


def _joined(parts: Sequence[_Part]) -> tuple[ServiceSpec, ...]:
    """The services of all workspaces: one of a name is one service."""
    found: dict[str, ServiceSpec] = {}
    for part in parts:
        for spec in part.services:
            if found.setdefault(spec.name, spec) != spec:
                node = part.layer.nodes["services"]
                raise node.error(
                    "CR-PROJECT-018",
                    (
                        f"expected one {spec.name} for all workspaces, found different ones (the "
                        f"other at {found[spec.name].origin})"
                    ),
                    hint="declare it in the project's file only, or give one of them another name",
                )
    return tuple(found.values())


def _rules(asked: Sequence[str]) -> tuple[str, ...]:
    known = (*(control.rule for control in CONTROLS), "policy")
    for rule in asked:
        if rule not in known:
            close = nearest(rule, known)
            raise UsageError(
                "CR-USAGE-001",
                f"--allow-degraded: expected a rule, found {rule[:80]!r}",
                hint=f"did you mean {close!r}?" if close else f"rules: {', '.join(known)}",
            )
    return tuple(dict.fromkeys(asked))


def _phases_table(project: RawProject) -> str:
    return f"[{TABLE}.lifecycle]" if project.source.name == PYPROJECT else "[lifecycle]"


def _check_names(names: Sequence[str], project: RawProject, workspace: str) -> None:
    for name in names:
        if name in project.phases:
            continue
        exist = ", ".join(project.phases) or "none"
        close = nearest(name, project.phases)
        words = name.split()
        hint = (
            f"did you mean {close!r}?"
            if close
            else f"{project.source.name} has the phases under {_phases_table(project)}"
        )
        if len(words) > 1 and all(word in project.phases for word in words):
            hint = f"name them as separate words: {' '.join(words)}"
        of = f" in workspace {workspace!r}" if workspace else ""
        raise UsageError(
            "CR-USAGE-002",
            f"expected a phase of {project.source.name}{of}, found {name[:80]!r}; phases: {exist}",
            hint=hint,
        )
