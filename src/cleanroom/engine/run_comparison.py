"""Two recorded runs, read and compared. Part of the engine's public functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from cleanroom.core.beneath import Folder
from cleanroom.engine.own_folder import RUNS
from cleanroom.engine.records import chosen_run, events_in, list_runs, recorded_folder
from cleanroom.model.errors import UsageError

if TYPE_CHECKING:
    from cleanroom.evidence.reports.comparison import Comparison, Recorded

_PLAN = "plan.json"
_PLAN_BYTES = 16 << 20  # a hundred times that of a large project


def compare_runs(
    project: str | Path, before: str | None = None, after: str | None = None
) -> Comparison:
    """What differs between two recorded runs of a project.

    Without a name they are the last two; with one, that run and the one before it.

    Raises:
        UsageError: there is no such run, or none before it.
        ProjectError: the events of one cannot be read.
    """
    from cleanroom.evidence.reports.comparison import compare

    if after is None:
        after = chosen_run(project, before)
        before = _run_before(project, after)
    names = (chosen_run(project, before), chosen_run(project, after))
    return compare(*(_recorded(project, name) for name in names))


def _run_before(project: str | Path, name: str) -> str:
    """The run that began before this one.

    Raises:
        UsageError: there is none.
    """
    runs = list_runs(project)
    at = runs.index(name)
    if at == 0:
        raise UsageError(
            "CR-HISTORY-001",
            f"no run before {name} in {project}",
            hint="run the pipeline once more, or name two runs",
        )
    return runs[at - 1]


def _recorded(project: str | Path, name: str) -> Recorded:
    from cleanroom.evidence.reports.comparison import Recorded
    from cleanroom.evidence.reports.fold import ResultBuilder
    from cleanroom.subscribers.reporter import read_sets

    builder = ResultBuilder()
    with recorded_folder(project, f"{RUNS}/{name}") as folder:
        for envelope in events_in(folder):
            builder.add(envelope)
        sets = read_sets(folder, builder.dependencies_sha256)
        return Recorded(builder.result(), _plan(folder), sets)


def _plan(folder: Folder) -> Any:
    """The run's plan; None where there is none, or no JSON in its place."""
    try:
        with folder.reading(_PLAN) as stream:
            return msgspec.json.decode(stream.read(_PLAN_BYTES))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
