"""One phase of a plan, from all settings that apply to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import msgspec

from cleanroom.model.errors import PolicyRefused
from cleanroom.model.plan import PhaseRun, Workspace
from cleanroom.model.policy import Level, Policy
from cleanroom.project import folders, policies, tasks
from cleanroom.project.floor import Floor
from cleanroom.project.idle import idle_interpreter
from cleanroom.project.raw_project import RawPhase, RawProject
from cleanroom.project.recursion import runs_the_engine
from cleanroom.project.settings import Layer, overlaid, read_layers, spellings
from cleanroom.project.source import dotted, nearest
from cleanroom.project.tools import virtual_environments


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that all phases of a plan share."""

    root: Path
    caller: Mapping[str, str]
    environment: str
    requested_level: Level | None  # of the command line
    allowed: tuple[str, ...]  # rules that the command line lets go
    floor: Floor
    arguments: tuple[str, ...] = ()  # for the commands of the phases that were asked for
    services: tuple[str, ...] | None = None  # as `Overrides.services`

    def allowed_by(self, layer: Layer) -> tuple[str, ...]:
        """Those of the rules that the file lets go too."""
        return tuple(rule for rule in self.allowed if rule in (layer.settings.allow_degraded or ()))


def layer_of(phase: RawPhase, base: Layer, overlay: Layer, environment: str) -> Layer:
    """All settings of a phase.

    They are laid over each other in this order, the last one on top: the project's, the phase's,
    the project's overlay for `environment`, the phase's overlay.
    """
    own, over = read_layers(phase.settings, "phase", environment)
    layer = overlaid(overlaid(overlaid(base, own), overlay), over)
    commands = _replaced(phase.name, own, overlay, over)
    return Layer(msgspec.structs.replace(layer.settings, command=commands), layer.nodes)


def _replaced(name: str, own: Layer, overlay: Layer, over: Layer) -> tuple[str, ...] | None:
    for_environment = (overlay.settings.commands or {}).get(name)
    candidates = (over.settings.command, for_environment, own.settings.command)
    return next((commands for commands in candidates if commands is not None), None)


def check_commands(overlay: Layer, project: RawProject) -> None:
    """Check that `commands` of an environment names phases.

    Raises:
        ProjectError: it names another one.
    """
    for name in overlay.settings.commands or {}:
        node = overlay.nodes["commands"]
        if name not in project.phases and node.source is project.source:
            close = nearest(name, project.phases)
            hint = f"did you mean {close!r}?" if close else f"phases: {', '.join(project.phases)}"
            raise node.child(name).error(
                "CR-PROJECT-011",
                f"expected the name of a phase, found {name[:80]!r}",
                hint=hint,
                at_key=True,
            )


def refuse_lasting(workspaces: Iterable[Workspace]) -> None:
    """Check that no phase of a dry run writes to the project itself.

    Raises:
        PolicyRefused: one does, because it runs on the host or in place.
    """
    for phase in (phase for workspace in workspaces for phase in workspace.phases):
        if not phase.runs_commands or (phase.hermetic and not phase.policy.in_place):
            continue
        how = f"at {phase.policy.level}" if phase.hermetic else "on the host"
        raise PolicyRefused(
            "CR-POLICY-006",
            f"expected phases of which nothing lasts, found {phase.name!r}, which runs {how} and "
            "writes to the project itself",
            hint="leave it out, or run it at Medium: --policy Medium",
            where=str(phase.origin or ""),
        )


def phase_run(
    context: Context,
    project: RawProject,
    path: Path,
    name: str,
    layer: Layer,
    services: tuple[str, ...],
) -> PhaseRun:
    """The phase as a plan has it, without its role and its hint on packages.

    Raises:
        ProjectError: a setting has to be edited.
        PolicyRefused: the phase is below what the file or the organisation requires.
    """
    phase, settings = project.phases[name], layer.settings
    hermetic = settings.enabled is not False
    level = policies.level_of(
        layer, context.requested_level, context.allowed_by(layer), phase.node.key
    )
    policy = policies.policy_of(layer, level)
    context.floor.check(phase.node.key, layer, level, hermetic=hermetic)
    commands = _commands(phase, layer)
    return PhaseRun(
        name=name,
        commands=commands,
        hermetic=hermetic,
        policy=policy,
        services=services,
        timeout_seconds=policies.timeout_of(settings, policy.limits),
        budget_seconds=settings.budget,
        outputs=settings.outputs,
        builds=bool(settings.builds),
        variables=_variables(context, project, phase, layer, path),
        passed=tuple(dict.fromkeys(settings.passed or ())),
        tools=_tools(context, layer, policy, path),
        working_directory=folders.working_folder(phase, path),
        image=settings.image or "",
        telemetry=bool(settings.telemetry),
        cache_inputs=settings.cache.inputs if settings.cache else (),
        description=phase.description,
        idle=idle_interpreter(commands),
        origin=phase.node.origin,
    )


def _tools(context: Context, layer: Layer, policy: Policy, path: Path) -> tuple[str, ...]:
    """The folders of declared tools and, where only listed programs start, of the project's own
    virtual environments.
    """
    declared = folders.tool_folders(layer, context.root, context.caller)
    if not policy.allowlist:
        return tuple(dict.fromkeys(declared))
    own = (str(found) for found in virtual_environments(path) if not found.is_symlink())
    return tuple(dict.fromkeys((*declared, *own)))


def _commands(phase: RawPhase, layer: Layer) -> tuple[str, ...]:
    """The phase's commands.

    Raises:
        ProjectError: one of them runs the engine itself.
    """
    replaced = layer.settings.command
    commands = phase.commands if replaced is None else replaced
    if not any(runs_the_engine(command) for command in commands):
        return commands
    place = (
        layer.nodes.get("command") if replaced is not None else phase.commands_node
    ) or phase.node
    table = dotted(phase.node.path)
    raise place.error(
        "CR-PROJECT-013",
        "expected a command to run inside, found the engine itself, which would run without end",
        hint=f'add under [{table}]: cleanroom.command = "THE COMMAND TO RUN INSIDE"',
    )


def _variables(
    context: Context, project: RawProject, phase: RawPhase, layer: Layer, path: Path
) -> dict[str, str]:
    """The dialects' variables, then ours, then GGEN_ENV as ggen sets it."""
    found = dict(project.variables)
    for name in reversed(spellings(context.environment)):
        found.update(project.environments.get(name, {}))
    found.update(phase.variables)
    for name in reversed(spellings(context.environment)):
        found.update(phase.environments.get(name, {}))
    if project.dialect == "C":
        found = tasks.expanded(found, {"CARGO_MAKE_WORKING_DIRECTORY": str(PurePosixPath(path))})
    found.update(layer.settings.variables or {})
    if context.environment:
        found["GGEN_ENV"] = context.environment
    return found
