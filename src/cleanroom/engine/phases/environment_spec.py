"""The specification of a phase's environment, and the variables of its commands. Pure functions."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from cleanroom.backends.base import EgressRule, EnvironmentSpec, Mount, Reach, WorkspaceSpec
from cleanroom.core.redaction import is_secret
from cleanroom.engine.phases.current_phase import CurrentPhase
from cleanroom.engine.phases.offline import switches
from cleanroom.engine.phases.package_caches import package_caches
from cleanroom.engine.supervision.context import RunContext
from cleanroom.engine.supervision.service import ServiceAccess
from cleanroom.model.plan import MISE_FILE, PhaseRun, ToolFile
from cleanroom.model.plan import Workspace as PlannedWorkspace
from cleanroom.model.policy import Policy

# The account that an environment's synthetic passwd names.
USER, HOME = "cleanroom", "/home/cleanroom"
TEMPORARY = "/tmp"  # noqa: S108 -- the environment's own
SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# In which make passes its job server: descriptors, or a pipe in /tmp, that stay outside.
MAKE_VARIABLES = ("MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS")
_JOB_SERVER = re.compile(r" ?(?:--jobserver-(?:auth|fds)=\S*|(?<!\S)-j\d*(?!\S))")
SOURCE_DATE_EPOCH = "315532800"  # 1980-01-01: the first day that a zip file can name


def workspace_spec(context: RunContext, planned: PlannedWorkspace) -> WorkspaceSpec:
    """The specification of the copy-on-write workspace that this one's phases share."""
    number = context.plan.workspaces.index(planned)
    return WorkspaceSpec(
        root=planned.path, scratch=str(context.scratch / "workspaces" / str(number))
    )


def environment_spec(
    context: RunContext, current: CurrentPhase, services: ServiceAccess
) -> EnvironmentSpec:
    """The specification of a hermetic phase's environment; `services` are those it names."""
    phase, planned = current.phase, current.planned
    tools = _tools(context, phase)
    return EnvironmentSpec(
        id=f"phase-{current.number}-{re.sub(r'[^A-Za-z0-9]+', '-', phase.name)[:24]}",
        run_id=context.run_id,
        role="phase",
        policy=phase.policy,
        variables=_variables(context, current, tools, services),
        working_directory=phase.working_directory or planned.path,
        workspace=workspace_spec(context, planned),
        mounts=(
            *(Mount(source=tool, target=tool) for tool in tools),
            *_dependency_mounts(context, current),
            *services.mounts,
        ),
        port_forwards=services.port_forwards,
        egress=tuple(_egress_rule(phase.policy, entry) for entry in phase.policy.egress),
        image=phase.image,
        search_last=services.path,
        home=_home_cache(context, phase.policy),
        seed=context.plan.seed,
        emptied=tuple(f for f in context.plan.tool_credentials if _lies_in(f, tools)),
        home_files={file.name: file.text for file in _home_files(context, phase, tools)},
        build_outputs=(phase.outputs or ()) if phase.builds else (),
    )


def host_variables(context: RunContext, current: CurrentPhase) -> dict[str, str]:
    """The variables of a phase that runs on the host: the caller's, the project's, the markers."""
    return {**context.caller, **current.phase.variables, **_markers(context, current)}


def inside_path(caller_path: str, visible: Sequence[str], *, listed: bool = False) -> str:
    """The PATH inside: those folders of the caller's that exist there, in the caller's order,
    then the system's.

    `visible` are the folders that are shown besides the system's.
    `listed`: an allowlist names all that is shown, so /opt is not.
    """
    system = "/usr/" if listed else ("/usr/", "/opt/")
    shown = tuple(os.path.normpath(folder) for folder in visible)
    entries = caller_path.split(os.pathsep)
    folders = [os.path.normpath(entry) for entry in entries if entry.startswith("/")]
    existing = [
        folder
        for folder in folders
        if folder in SYSTEM_PATH or folder.startswith(system) or _lies_in(folder, shown)
    ]
    return os.pathsep.join(dict.fromkeys((*existing, *SYSTEM_PATH)))


def _tools(context: RunContext, phase: PhaseRun) -> tuple[str, ...]:
    """Folders of programs that are mounted read-only, each once."""
    if phase.policy.allowlist:
        return tuple(dict.fromkeys(phase.tools))
    plan = context.plan
    shown = plan.tools if context.backend.shows_host else plan.own_tools
    return tuple(dict.fromkeys((*shown, *phase.tools)))


def _dependency_mounts(context: RunContext, current: CurrentPhase) -> tuple[Mount, ...]:
    """The packages that were fetched, where the phase has no network to get them itself."""
    if not current.phase.policy.offline:
        return ()
    scratch = context.scratch / "dependencies" / str(current.number)
    return (
        *(Mount(source=folder, target=folder) for folder in context.dependencies.folders),
        *(
            Mount(
                source=str(scratch / str(number)),
                target=overlay.target,
                above=overlay.source,
                writable=True,
            )
            for number, overlay in enumerate(context.dependencies.overlays)
        ),
    )


def _home_files(context: RunContext, phase: PhaseRun, tools: Sequence[str]) -> tuple[ToolFile, ...]:
    """The files of version managers that are shown, for a home that is not the caller's."""
    if phase.policy.host_root or not context.backend.shows_host:
        return ()
    return tuple(file for file in context.plan.tool_files if _lies_in(file.of, tools))


def _home_cache(context: RunContext, policy: Policy) -> str:
    """The host's folder for the home's .cache; empty for a fresh one.

    Each level has its own: no phase trusts files that one of a lower level wrote.
    """
    if not context.home or not policy.keeps_home_cache:
        return ""
    return os.path.join(context.home, policy.level.value)


def _variables(
    context: RunContext,
    current: CurrentPhase,
    tools: Sequence[str],
    services: ServiceAccess,
) -> dict[str, str]:
    """All variables of a hermetic phase's commands; later groups win."""
    phase = current.phase
    service_variables = services.variables
    project = {**phase.variables, **_markers(context, current)}
    if phase.policy.inherits_variables:
        inherited = {
            name: without_job_server(value) if name in MAKE_VARIABLES else value
            for name, value in context.caller.items()
            if name in phase.passed or _may_inherit(phase, name, value)
        }
        inherited = _with_clients(inherited, services.path)
        return {**inherited, "TMPDIR": TEMPORARY, **service_variables, **project}
    tool_variables = {
        name: path for name, path in context.plan.tool_variables.items() if _lies_in(path, tools)
    }
    passed = {name: context.caller[name] for name in phase.passed if name in context.caller}
    return {
        **_with_clients(_fixed_variables(context, current, tools), services.path),
        **switches(phase.policy),
        **package_caches(phase.policy, context.plan, HOME),
        **(context.dependencies.variables if phase.policy.offline else {}),
        **tool_variables,
        **_version_variables(context, current, tools),
        **service_variables,
        **passed,
        **project,
    }


def without_job_server(flags: str) -> str:
    """Make's flags without its job server, whose descriptors do not enter an environment.

    Definitions of variables, which stand behind "--", stay as they are.
    """
    options, dashes, definitions = flags.partition(" -- ")
    return _JOB_SERVER.sub("", options) + dashes + definitions


def _with_clients(variables: dict[str, str], folders: Sequence[str]) -> dict[str, str]:
    """The variables with these folders first on PATH, where it is the engine that sets it."""
    if not folders or "PATH" not in variables:
        return variables
    return {**variables, "PATH": os.pathsep.join((*folders, variables["PATH"]))}


def _version_variables(
    context: RunContext, current: CurrentPhase, tools: Sequence[str]
) -> dict[str, str]:
    """What mise is told: where its configuration is, and that it may read the project's.

    On the host its user trusts each file once; inside, whoever runs the project's commands has.
    """
    data = context.plan.tool_variables.get("MISE_DATA_DIR", "")
    if not data or not _lies_in(data, tools):
        return {}
    given = {file.name for file in _home_files(context, current.phase, tools)}
    file = {"MISE_GLOBAL_CONFIG_FILE": f"{HOME}/{MISE_FILE}"} if MISE_FILE in given else {}
    return {**file, "MISE_TRUSTED_CONFIG_PATHS": current.planned.path}


def _fixed_variables(
    context: RunContext, current: CurrentPhase, tools: Sequence[str]
) -> dict[str, str]:
    """The variables that depend on no caller, but for PATH."""
    fixed = {
        "HOME": HOME,
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": TEMPORARY,
        "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
        "PYTHONHASHSEED": str(context.plan.seed % 2**32),
    }
    if not context.backend.shows_host:
        return fixed  # an image has a PATH of its own
    visible = (*tools, current.planned.path)
    caller_path = context.caller.get("PATH", "")
    path = inside_path(caller_path, visible, listed=current.phase.policy.allowlist)
    return {"PATH": path, **fixed}


def _markers(context: RunContext, current: CurrentPhase) -> dict[str, str]:
    """The variables that tell a process that it is part of a run, and its place in the trace."""
    environment = context.plan.environment
    return {
        **({"GGEN_ENV": environment} if environment else {}),
        "CLEANROOM": "1",
        "CLEANROOM_RUN_ID": context.run_id,
        "TRACEPARENT": current.span.traceparent,
    }


def _may_inherit(phase: PhaseRun, name: str, value: str) -> bool:
    """True unless the variable is secret.

    A phase with a telemetry endpoint of its own does not inherit the engine's either.
    """
    return not (is_secret(name, value) or (phase.telemetry and name.startswith("OTEL_")))


def _lies_in(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _egress_rule(policy: Policy, entry: str) -> EgressRule:
    host, _, port = entry.rpartition(":")
    reach: Reach = "private" if policy.opens_private(entry) else "public"
    return EgressRule(host=host.strip("[]"), port=int(port), reach=reach)
