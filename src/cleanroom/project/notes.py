"""What a reader of the plan should know beside it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cleanroom.core.paths import is_within
from cleanroom.model.plan import Ignored
from cleanroom.project.keys import SettingKeys, keys_of
from cleanroom.project.order import Step, ends_before_after_hooks
from cleanroom.project.raw_project import RawProject
from cleanroom.project.settings import Layer, spellings

Part = tuple[RawProject, Sequence[Step], Mapping[str, Layer]]


def collect(
    environment: str,
    whole: Layer,
    parts: Sequence[Part],
    *,
    asked: Sequence[str],
    allowed: Sequence[str],
) -> tuple[str, ...]:
    """Every note once, in a steady order."""
    found = [
        *_environment(environment, whole, parts),
        *(note for part in parts for note in _part(*part)),
        *_degraded(whole, parts, asked, allowed),
        *_later(whole, parts),
        *_isolation(whole, parts),
    ]
    return tuple(dict.fromkeys(found))


def hidden_installs(installs: Sequence[str], shown: Sequence[str]) -> tuple[str, ...]:
    """Of packages that a virtual environment of the project uses from folders that no phase
    sees.
    """
    hidden = [path for path in installs if not any(is_within(path, tool) for tool in shown)]
    return tuple(
        (
            f"the virtual environment uses packages from {path}, which is outside of the project "
            f'and not shown: cleanroom.tools = ["{path}"]'
        )
        for path in hidden
    )


def idle_hooks(project: RawProject) -> list[Ignored]:
    """Hooks that name no phase, of phases that do not run (where one runs this is an error)."""
    found = []
    for references in project.hooks.values():
        for reference in references:
            if reference.name not in project.phases:
                found.append(
                    Ignored(
                        reference.node.key,
                        reference.node.origin.line,
                        f"there is no phase {reference.name!r}",
                    )
                )
    return found


def _environment(environment: str, whole: Layer, parts: Sequence[Part]) -> Iterator[str]:
    tables = [layer.nodes["env"] for layer in (whole, *_layers(parts)) if "env" in layer.nodes]
    known = sorted({name for node in tables for name in node.value})
    if environment and known and not set(spellings(environment)) & set(known):
        yield f"environment {environment}: nothing is overlaid; the file has {', '.join(known)}"


def _part(project: RawProject, steps: Sequence[Step], layers: Mapping[str, Layer]) -> Iterator[str]:
    if project.hides:
        yield f"{project.source.name} goes before {project.hides}, which has no effect"
    if not project.phases:
        yield f"{project.source.name} has no phases"
    for name in dict.fromkeys(step.name for step in steps):
        phase = project.phases[name]
        before = {reference.name for reference in project.hooks.get(f"before_{name}", ())}
        if phase.depends_on and before:
            both = sorted(before & {reference.name for reference in phase.depends_on})
            more = f"; {', '.join(both)} is in both and runs for each" if both else ""
            yield f"{name}: depends_on runs before hooks.before_{name}{more}"
        if ends_before_after_hooks(phase) and project.hooks.get(f"after_{name}"):
            yield f"{name}: has no command, so hooks.after_{name} does not run, as in ggen"
        if layers[name].settings.enabled is False:
            yield f"{name}: runs on the host, nothing is isolated (cleanroom.enabled = false)"
    for key in ("before_all", "after_all"):
        if project.hooks.get(key):
            yield f"hooks.{key} runs once around everything; in ggen it always fails"


def _degraded(
    whole: Layer, parts: Sequence[Part], asked: Sequence[str], allowed: Sequence[str]
) -> Iterator[str]:
    filed = {
        rule for layer in (whole, *_layers(parts)) for rule in layer.settings.allow_degraded or ()
    }
    for rule in sorted(filed - set(asked)):
        yield (
            f"allow_degraded {rule}: without effect, the command line does not say "
            f"--allow-degraded {rule}"
        )
    for rule in asked:
        if rule not in allowed:
            yield (
                f"--allow-degraded {rule}: without effect, the file does not allow it for every "
                "phase of this plan"
            )


def _later(whole: Layer, parts: Sequence[Part]) -> Iterator[str]:
    later = {name for name, info in keys_of(SettingKeys).values() if info.later}
    for layer in (whole, *_layers(parts)):
        for name, node in layer.nodes.items():
            if name in later:
                yield f"{node.key}: read and checked, not yet in effect"


def _isolation(whole: Layer, parts: Sequence[Part]) -> Iterator[str]:
    for layer in (whole, *_layers(parts)):
        for name in ("network_isolation", "filesystem_isolation"):
            node = layer.nodes.get(name)
            if node is None:
                continue
            helps = (
                "; cleanroom.egress names hosts, services need nothing"
                if name == "network_isolation" and not node.value
                else ""
            )
            yield f"{node.key}: of older documents, the policy's level decides{helps}"


def _layers(parts: Sequence[Part]) -> list[Layer]:
    return [
        layers[name]
        for _, steps, layers in parts
        for name in dict.fromkeys(step.name for step in steps)
    ]
