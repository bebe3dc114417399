"""The services of a plan, resolved: recipes, and the images and programs they need."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cleanroom.backends import registry
from cleanroom.backends.base import Change
from cleanroom.core.locations import cache_folder
from cleanroom.engine.run_settings import CachePlaces, ServiceRecipes
from cleanroom.model.errors import CleanroomError, ProjectError
from cleanroom.model.plan import Plan
from cleanroom.services import (
    ImageFacts,
    ImageInspector,
    Recipe,
    TemplateCache,
    image_of,
    resolve,
)


def resolve_services(plan: Plan, caller: Mapping[str, str], places: CachePlaces) -> ServiceRecipes:
    """The recipes of the plan's services, or why there are none. Blocks."""
    try:
        recipes = resolve(
            plan.services,
            caller=caller,
            root=plan.root,
            cache=TemplateCache(places.templates),
            tools=plan.tools,
            image=_image_reader(plan, caller),
        )
    except CleanroomError as error:
        return ServiceRecipes(error=error)
    return ServiceRecipes(recipes)


def lacking_extensions(
    plan: Plan, recipes: Sequence[Recipe], caller: Mapping[str, str]
) -> tuple[str, ...]:
    """What is said before any phase of extensions that files of the project create, and that a
    server lacks. Blocks.

    Files that git ignores are copies that tools made, or somebody else's.
    """
    from cleanroom.engine.phases.ignore_files import HostIgnores
    from cleanroom.services.migrations import migration_warnings

    def ignored(files: Collection[str]) -> Collection[str]:
        changes = [Change(path=file, kind="file") for file in files]
        return HostIgnores(plan.root, caller, time.time_ns()).covered(changes)

    return migration_warnings(recipes, root=plan.root, caller=caller, ignored=ignored)


def require_parts(plan: Plan, caller: Mapping[str, str]) -> None:
    """On a backend with images: see that each phase names one, and that all of them exist.

    Blocks.

    Raises:
        ProjectError: a phase names no image, or one does not exist.
        BackendUnavailable: the container engine, or something that it needs, is missing.
        PolicyRefused: only root may use the engine.
    """
    if plan.backend not in registry.CONTAINERS:
        return
    phases = [phase for phase in plan.phases if phase.hermetic and phase.runs_commands]
    for phase in phases:
        if not phase.image:
            raise ProjectError(
                "CR-CONTAINER-009",
                (
                    f"phase {phase.name!r}: backend {plan.backend!r} needs to know which image "
                    "it runs in"
                ),
                hint=(
                    'add image = "cleanroom/base" under [cleanroom]; `cleanroom-engine image '
                    "build` makes it"
                ),
                where=str(phase.origin or plan.file),
            )
    images = filter(None, (*(phase.image for phase in phases), *map(image_of, plan.services)))
    registry.require_parts(plan.backend, images, caller=caller, cache=cache_folder(caller))


def _image_reader(plan: Plan, caller: Mapping[str, str]) -> ImageInspector | None:
    """The function that reads the facts of an image; None for a backend without images."""
    if plan.backend not in registry.CONTAINERS:
        return None
    read = registry.image_reader(plan.backend, caller)
    return lambda name: _image_facts(name, read(name))


def _image_facts(name: str, found: Mapping[str, Any]) -> ImageFacts:
    """`found` is the engine's answer, as its API has it."""
    config = found.get("Config") or {}
    return ImageFacts(
        name=name,
        identity=str(found.get("Id", "")),
        labels=config.get("Labels") or {},
        command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
        variables=dict(entry.partition("=")[::2] for entry in config.get("Env") or ()),
        working_directory=config.get("WorkingDir") or "/",
    )
