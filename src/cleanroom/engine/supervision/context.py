"""The context of one run, which supervision and phases receive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from cleanroom.backends.base import Backend
from cleanroom.core.beneath import Folder
from cleanroom.core.bus import Bus, SpanContext
from cleanroom.core.files import relative
from cleanroom.dependencies.model import NO_ACCESS, Access
from cleanroom.engine.supervision.output import LogSink, OutputPump, Redacting
from cleanroom.model.events import Subject
from cleanroom.model.plan import PhaseRun, Plan

# whether workspaces' changes are saved in the run's folder
Keep = Literal["never", "on-failure", "always"]


class Terminal(Protocol):
    """The caller's terminal, which can be lent to a shell."""

    def lend(self, title: str) -> AbstractAsyncContextManager[int]:
        """While it is lent: the descriptor of a pseudo-terminal that stands for it.

        `title` is what a person is told before.
        """


class Shell(NamedTuple):
    """The one phase of a run whose commands an interactive shell replaces."""

    phase: str
    terminal: Terminal

    def replaces(self, phase: PhaseRun) -> bool:
        """Whether it is this phase."""
        return phase.role == "phase" and phase.name == self.phase


class PausedPhase(NamedTuple):
    """A phase that failed, whose environment is alive."""

    run_id: str
    root: str  # of the project
    phase: str
    title: str  # what a person is told before a shell in it
    reason: str
    # runs a shell on this pseudo-terminal, whose kind these variables name (TERM), and returns its
    # exit status
    shell: Callable[[int, Mapping[str, str]], Awaitable[int]]


class Pauser(Protocol):
    """Somebody who decides about a phase that failed."""

    @property
    def outlives(self) -> bool:
        """Whether the run goes on when the process that started it has ended."""
        ...

    async def decide(self, paused: PausedPhase) -> Literal["retry", "end"]:
        """Wait for what is to be done: run it again, or end it as failed.

        Its environment, services and data stay as they are meanwhile.
        """


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
    # the shell that replaces the commands of one phase
    shell: Shell | None = None
    # who decides about phases that fail; None: they end
    pauser: Pauser | None = None

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
