"""`--watch`: a run after another, each in a process of its own, whenever the project changes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cleanroom.cli.views.text import safe

if TYPE_CHECKING:
    from cleanroom.cli.options import RunOptions
    from cleanroom.engine import ProjectWatch

LOOK_SECONDS = 0.5
# Between two looks that have to be alike before a run begins.
QUIET_SECONDS = 0.2
_NAMED = 3


def refuse_combinations(options: RunOptions) -> None:
    """Refuse what makes no sense together.

    Raises:
        click.UsageError: an option does not go with `--watch`.
    """
    if options.get("pause"):
        raise click.UsageError("--watch and --pause exclude each other")
    if options["form"] != "human":
        raise click.UsageError(
            f"--watch has no end that --output {options['form']} could tell of: leave one out"
        )


def watch(options: RunOptions) -> int | None:
    """Run whenever the project changes, until a signal; returns the last run's exit status.

    None: this is the process of a run, which goes on as without `--watch`.
    """
    from cleanroom import engine

    stops = {
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    # They are waited for, so that none is lost between two runs.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*stops, signal.SIGCHLD})
    project = engine.ProjectWatch(options["root"], os.environ)
    while True:
        project.begin_run()
        pid = os.fork()
        if pid == 0:
            project.in_run()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            return None
        status, stopped = _wait(pid, stops)
        changed = project.end_run()
        if stopped:
            return status
        if not changed:
            _say(f"exit status {status}; waiting for changes, Ctrl-C ends", options)
            changed = _next_change(project, stops)
        if not changed:
            return status
        _say(f"changed: {_some(changed)}; running again", options)


def _wait(pid: int, stops: set[signal.Signals]) -> tuple[int, bool]:
    """Wait for a run; returns its exit status, and whether a signal came meanwhile."""
    stopped = False
    while True:
        received = signal.sigwaitinfo({*stops, signal.SIGCHLD})
        if received.si_signo != signal.SIGCHLD:
            stopped = True
            # A terminal's went to the run too, and a second one would hurry it.
            if received.si_code <= 0:
                os.kill(pid, received.si_signo)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return (code if code >= 0 else 128 - code), stopped


def _next_change(project: ProjectWatch, stops: set[signal.Signals]) -> tuple[str, ...]:
    """Wait until something changes and then nothing more; empty where a signal came."""
    changed: dict[str, None] = {}
    while True:
        pause = QUIET_SECONDS if changed else LOOK_SECONDS
        if signal.sigtimedwait(stops, pause) is not None:
            return ()
        found = project.changed()
        if changed and not found:
            return tuple(changed)
        changed.update(dict.fromkeys(found))


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(paths[:_NAMED]) + more


def _say(text: str, options: RunOptions) -> None:
    if options["quiet"] > 1:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"watch: {safe(text)}\n")
        sys.stderr.flush()
