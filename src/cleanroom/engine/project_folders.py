"""The folders of a plan's projects: opened and checked before a run, recorded in after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cleanroom.core.beneath import Folder
from cleanroom.core.files import named
from cleanroom.core.host_programs import lies_in
from cleanroom.engine.own_folder import check_own_folders, check_writable
from cleanroom.engine.phases.outcome import PhaseOutcome
from cleanroom.model.errors import ProjectError
from cleanroom.model.plan import Plan


@contextmanager
def opened_project(path: str) -> Iterator[Folder]:
    """A project's folder, held open; what lies in it of ours was checked.

    Raises:
        ProjectError: something else stands in the place of a folder or file of ours, or one
            belongs to somebody else and cannot be written.
    """
    with named("CR-FILE-001", "open", Path(path)):
        folder = Folder.at(Path(path), inherit_owner=True)
    with folder:
        check_own_folders(folder)
        check_writable(folder)
        yield folder


@contextmanager
def opened_projects(plan: Plan) -> Iterator[dict[str, Folder]]:
    """The folders of the plan's root and of its workspaces, by path. Raises as `opened_project`."""
    paths = (plan.root, *(workspace.path for workspace in plan.workspaces))
    with ExitStack() as stack:
        yield {path: stack.enter_context(opened_project(path)) for path in paths}


def refuse_machine(roots: Sequence[str]) -> None:
    """See that no workspace holds the programs that the engine itself runs on: a phase could
    exchange them during the run.

    Raises:
        ProjectError: one does.
    """
    if root := lies_in(roots):
        raise ProjectError(
            "CR-ENGINE-006",
            (
                f"{root}: expected a project beside the Python that runs the engine and the "
                "system's programs, found one around them"
            ),
            hint=(
                "make a virtual environment for the engine from a Python outside of the project; "
                "give the project a folder of its own"
            ),
        )


def record_outcomes(
    plan: Plan, projects: Mapping[str, Folder], outcomes: Sequence[PhaseOutcome]
) -> None:
    """Add the phases that ran to the state of their workspace, as ggen keeps it.

    Raises:
        CleanroomError: a state file cannot be read or written.
    """
    from cleanroom.project.state import PhaseRecord, cache_key, record

    for workspace in plan.workspaces:
        commands = {phase.name: phase.commands for phase in workspace.phases}
        records = [
            PhaseRecord(
                phase=outcome.name,
                started_ms=outcome.started_unix_ns // 1_000_000,
                duration_ms=round(outcome.duration_seconds * 1000),
                success=outcome.result == "passed",
                cache_key=cache_key(outcome.name, commands[outcome.name], plan.environment),
            )
            for outcome in outcomes
            if outcome.workspace == workspace.name and outcome.exit_code is not None
        ]
        if records:
            record(projects[workspace.path], records)
