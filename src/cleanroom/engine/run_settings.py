"""The settings of one run, decided before it begins. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cleanroom.backends.base import Backend
from cleanroom.engine.own_folder import RunFolders
from cleanroom.engine.phases.outcome import PhaseOutcome
from cleanroom.engine.shared_services.discovery import ServerConfig
from cleanroom.engine.supervision.context import Keep
from cleanroom.model.events import Subject
from cleanroom.model.plan import Plan
from cleanroom.services import Recipe

if TYPE_CHECKING:
    from cleanroom.backends.cleanup import SweepFindings


class RunPlaces(NamedTuple):
    """Where a run keeps its files.

    The folders in the project are held open from its start to its end.
    """

    root: Path  # of the project
    own: RunFolders
    scratch: Path
    templates: Path  # prepared data of services
    home: str  # the cached homes; empty for fresh ones


class RunHooks(NamedTuple):
    """The functions by which a run reaches the project's files and the machine.

    All but the first block, and are called in worker threads.
    """

    make_backend: Callable[[str], Backend]
    # adds the phases that ran to the project's state
    record: Callable[[Sequence[PhaseOutcome]], None] | None = None
    # removes what killed runs left
    sweep: Callable[[], SweepFindings] | None = None
    # called when everything but the phases has begun
    before_phases: Callable[[], None] | None = None


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One run, complete."""

    plan: Plan
    places: RunPlaces
    caller: Mapping[str, str]
    # of the plan's services; raises where they cannot be resolved
    recipes: Callable[[], tuple[Recipe, ...]]
    keep: Keep = "never"
    # the session or pool that is to run the services, where the backend can forward to it
    server: ServerConfig | None = None

    @property
    def subject(self) -> Subject:
        """The subject of the run's events."""
        return Subject("run", self.plan.project)
