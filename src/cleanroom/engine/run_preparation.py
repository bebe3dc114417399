"""Everything that a run of one plan needs before it begins, from the caller and the options."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import anyio.to_thread

from cleanroom.core.beneath import Folder
from cleanroom.engine.options import Options
from cleanroom.engine.run_settings import CachePlaces, ServiceRecipes
from cleanroom.engine.service_resolution import resolve_services
from cleanroom.engine.service_server import pool_of_project, server_of_run
from cleanroom.engine.shared_services.ancestry import ancestors_to_ggen
from cleanroom.engine.shared_services.discovery import ServerConfig
from cleanroom.model.errors import CleanroomError, ProjectError
from cleanroom.model.plan import Plan
from cleanroom.services import TemplateCache

if TYPE_CHECKING:
    from cleanroom.engine.phase_cache.cache import PhaseCache


class RunPreparation:
    """Prepares one run of a plan. Its methods block, unless they are async."""

    def __init__(
        self, plan: Plan, caller: Mapping[str, str], options: Options, run_id: str
    ) -> None:
        self._plan = plan
        self._caller = caller
        self._options = options
        self._run_id = run_id
        self.places = CachePlaces.of(caller, plan.root, run_id, fresh=options.fresh)

    async def resolve_services(self) -> ServiceRecipes:
        """The recipes of the plan's services.

        Any other error than this one belongs to the run, and is in the value.

        Raises:
            ProjectError: a file has to be edited.
        """
        services = await anyio.to_thread.run_sync(
            resolve_services, self._plan, self._caller, self.places
        )
        if isinstance(services.error, ProjectError):
            raise services.error
        return services

    def services_of_cached_phases(self) -> ServiceRecipes:
        """The recipes of the plan's services, where a phase could be skipped; else none."""
        if self._plan.dry_run or not self._has_cached_phases():
            return ServiceRecipes()
        return resolve_services(self._plan, self._caller, self.places)

    def server(self) -> ServerConfig | None:
        """The session or pool that is to run the services; None where the run has its own."""
        if self._options.fresh:
            return None
        return server_of_run(self._plan, self._caller, self.places)

    def pool(self, idle_seconds: float) -> ServerConfig:
        """The project's pool, which ends when no run has used it for `idle_seconds`."""
        return pool_of_project(self._plan, self._caller, self.places, idle_seconds)

    def phase_cache(self, root: Folder, services: ServiceRecipes) -> PhaseCache | None:
        """The cache of the plan's phases; None where no phase has inputs, and for a dry run.

        `root` is the project's folder.
        The identities of services that could not be resolved are unknown to the cache.
        """
        if not self._has_cached_phases():
            return None
        from cleanroom.engine.phase_cache.cache import PhaseCache, RunFacts, service_identities

        identities: dict[str, str] = {}
        secret = ""
        with suppress(CleanroomError):
            identities = service_identities(self._plan, services.required())
        if any(phase.passed for phase in self._plan.phases):
            secret = TemplateCache(self.places.cache / "services").secret("phases")
        facts = RunFacts(
            caller=self._caller,
            service_identities=identities,
            secret=secret,
            services_outlive_run=bool(ancestors_to_ggen()) and self.server() is not None,
        )
        ignored = self._options.fresh or self._options.no_cache
        return PhaseCache(self._plan, root, self._run_id, facts, ignored=ignored)

    def _has_cached_phases(self) -> bool:
        return any(phase.cache_inputs for phase in self._plan.phases)
