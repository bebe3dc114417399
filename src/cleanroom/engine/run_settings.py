"""The settings of one run, decided before it begins. Values only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.backends.base import Backend
from cleanroom.core.locations import cache_folder
from cleanroom.engine.own_folder import RunFolders
from cleanroom.engine.phases.outcome import PhaseOutcome
from cleanroom.engine.shared_services.discovery import ServerConfig
from cleanroom.engine.supervision.context import Keep, Pauser, Shell
from cleanroom.model.errors import CleanroomError
from cleanroom.model.events import Subject
from cleanroom.model.plan import Plan
from cleanroom.services import Recipe

if TYPE_CHECKING:
    from cleanroom.backends.cleanup import SweepFindings


class CachePlaces(NamedTuple):
    """Where a run keeps its files in the user's cache."""

    cache: Path
    scratch: Path  # the run's own
    templates: Path  # prepared data of services
    homes: Path | None  # the cached homes of the project; None for fresh ones

    @classmethod
    def of(cls, caller: Mapping[str, str], root: str, run_id: str, *, fresh: bool) -> CachePlaces:
        """The places of one run of the project at `root`; `fresh`: with no data of earlier ones."""
        cache = cache_folder(caller)
        scratch = cache / "runs" / run_id
        if fresh:
            return cls(cache, scratch, scratch / "templates", None)
        project = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        return cls(cache, scratch, cache / "services", cache / "home-caches" / project)


class ServiceRecipes(NamedTuple):
    """The recipes of a plan's services, or the error that kept them from being resolved."""

    recipes: tuple[Recipe, ...] = ()
    error: CleanroomError | None = None

    def required(self) -> tuple[Recipe, ...]:
        """The recipes.

        Raises:
            CleanroomError: they could not be resolved.
        """
        if self.error is not None:
            raise self.error
        return self.recipes


class RunPlaces(NamedTuple):
    """Where a run keeps its files.

    The folders in the project are held open from its start to its end.
    """

    root: Path  # of the project
    own: RunFolders
    cache: CachePlaces


class RunHooks(NamedTuple):
    """The functions by which a run reaches the project's files and the machine.

    All but the first block, and are called in worker threads.
    """

    make_backend: Callable[[str], Backend]
    # adds the phases that ran to the project's state
    record: Callable[[Sequence[PhaseOutcome]], None] | None = None
    # removes what killed runs left
    sweep: Callable[[], SweepFindings] | None = None
    # removes the records beyond the project's limits, and returns of how many runs
    expire: Callable[[], int] | None = None
    # called when everything but the phases has begun
    before_phases: Callable[[], None] | None = None


class RunSettings(NamedTuple):
    """One run, complete."""

    plan: Plan
    places: RunPlaces
    caller: Mapping[str, str]
    services: ServiceRecipes
    keep: Keep = "never"
    # the session or pool that is to run the services, where the backend can forward to it
    server: ServerConfig | None = None
    # nothing is fetched: what the store lacks is missing
    offline: bool = False
    # only the dependencies are fetched: no service starts, and no phase runs
    fetch_only: bool = False
    # the shell that replaces the commands of one phase
    shell: Shell | None = None
    # who decides about phases that fail; None: they end
    pauser: Pauser | None = None

    @property
    def subject(self) -> Subject:
        """The subject of the run's events."""
        return Subject("run", self.plan.project)
