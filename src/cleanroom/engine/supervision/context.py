"""The context of one run, which supervision and phases receive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from cleanroom.backends.base import Backend
from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Bus, SpanContext
from cleanroom.core.files import relative
from cleanroom.dependencies.model import NO_ACCESS, Access
from cleanroom.engine.supervision.output import LogSink, OutputPump, Redacting
from cleanroom.model.events import Subject
from cleanroom.model.plan import Plan

# whether workspaces' changes are saved in the run's folder
Keep = Literal["never", "on-failure", "always"]


class RunContext(NamedTuple):
    """The values that everything in one run shares, from its identity to its folders."""

    run_id: str
    plan: Plan
    bus: Bus
    backend: Backend
    logs: LogSink
    redactor: Redacting
    caller: Mapping[str, str]
    scratch: Path  # for data that goes with the run; outside the project
    folder: Folder  # .ggen/cleanroom/runs/<run_id>
    # host folder of what private homes keep in .cache, by level; "": a fresh one for each phase
    home: str = ""
    keep: Keep = "never"
    # rules that are not held here and that file and command line both let go
    degraded: tuple[str, ...] = ()
    # project, folders that a phase was shown -> what leads out of it to others, or ""
    leads_out: Callable[[str, Sequence[str]], str] = lambda root, shown: ""
    # how phases without a network reach the project's dependencies
    dependencies: Access = NO_ACCESS

    def log_path(self, name: str) -> str:
        """Where the log called `name` is, as a person would look for it:
        relative to the project.
        """
        return self.shown(self.logs.path(name))

    def shown(self, path: Path) -> str:
        """`path` relative to the project where it lies inside."""
        return relative(path, Path(self.plan.root))

    def pump(self, subject: Subject, log: str, at: SpanContext) -> OutputPump:
        return OutputPump(self.bus, self.logs, self.redactor, subject=subject, log=log, at=at)
