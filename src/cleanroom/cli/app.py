"""The table of commands, the lazy group over it, and the one place where an exception becomes a
message and an exit status.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# name -> (module:attribute, one-line help, group).
# Static, so that `--help` and completion import no command.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "pipeline": (
        "run:pipeline",
        "Run phases in order, each in its own hermetic environment.",
        "Run",
    ),
    "run": ("run:run", "Run one phase, ignoring workspaces.", "Run"),
    "shell": ("shell:shell", "Open a shell in the environment of a phase.", "Run"),
    "retry": ("retry:retry", "Run the phase again at which a run is paused.", "Run"),
    "up": ("up:up", "Start the project's services for work outside of runs.", "Run"),
    "down": ("up:down", "End what `up` has started, and remove its data.", "Run"),
    "plan": ("plan:plan", "Show what would run, and run nothing.", "Run"),
    "report": ("report:report", "Make the reports again from a recorded run.", "Evidence"),
    "diff": ("diff:diff", "Show what differs between two runs.", "Evidence"),
    "audit": ("audit:audit", "Show or verify the tamper-evident log.", "Evidence"),
    "events": ("events:events", "Show, replay or describe recorded events.", "Evidence"),
    "trace": ("trace:trace", "Show where a run's time went; compare, open or send it.", "Evidence"),
    "init": ("init:init", "Write a make.toml for this project.", "Project"),
    "fetch": ("fetch:fetch", "Fetch the project's dependencies into the store.", "Project"),
    "config": ("config:config", "Show the settings in force and where they come from.", "Project"),
    "doctor": (
        "doctor:doctor",
        "Tell what this machine can hold, and what to do about the rest.",
        "Machine",
    ),
    "image": (
        "image:image",
        "Make images for container backends from Debian's packages.",
        "Machine",
    ),
    "pool": ("pool:pool", "Keep the project's PostgreSQL running between runs.", "Machine"),
    "cache": ("cache:cache", "Show and prune what runs of all projects share.", "Machine"),
    "sweep": ("sweep:sweep", "Remove what killed runs left behind.", "Machine"),
    "completion": ("completion:completion", "Print the completion script of a shell.", "Machine"),
    "explain": ("explain:explain", "Explain an error code.", "Machine"),
}

EPILOG = (
    "Exit codes: 0 ok, 1 did not pass, 2 usage or project files, 3 refused, 4 nothing verified, "
    "5 engine or backend trouble, 124 timeout, 130/143 signals."
)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(
            importlib.import_module(f"cleanroom.cli.commands.{module}"), attribute
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=list(COMMANDS), ctx=ctx
            ) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        named = [
            CompletionItem(name, help=text)
            for name, (_, text, _) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return named + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group in dict.fromkeys(group for _, _, group in COMMANDS.values()):
            rows = [(name, text) for name, (_, text, of) in COMMANDS.items() if of == group]
            with formatter.section(group):
                formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=lambda c, p, v: _version(c, v),
    help="Show the version.",
)
def app() -> None:
    """Run a project's lifecycle in hermetic environments with real services,
    and prove the isolation in every run.

    \b
    cleanroom-engine init                      write a make.toml
    cleanroom-engine plan                      see what would run
    cleanroom-engine pipeline init test        run it
    """


def _version(ctx: click.Context, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from cleanroom.cli.version import VERSION_LINE

        click.echo(VERSION_LINE, nl=False)
        ctx.exit(0)


def execute(arguments: Sequence[str], *, stdout_open: bool = True) -> int:
    """Run the command line, write an error to standard error, return the exit status."""
    try:
        if not stdout_open:
            from cleanroom.cli.output import OutputLost

            raise OutputLost("standard output is closed, so no result could be given")
        status = app.main(args=list(arguments), prog_name="cleanroom-engine", standalone_mode=False)
        return int(status or 0)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        return report(_lost_output(error) or error, debug="--debug" in arguments)


def _lost_output(error: BaseException) -> BaseException | None:
    """The error of standard output, where `error` is one.

    Help and completions are written by `click.echo`, and nothing else is.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    by_click = trace is not None and trace.tb_frame.f_globals.get("__name__") == "click.utils"
    if not (by_click and isinstance(error, OSError)):
        return None
    from cleanroom.cli.output import OutputLost

    return OutputLost.because(error)


def report(error: BaseException, *, debug: bool = False) -> int:
    """Write `error` to standard error, and return the exit status that it stands for.

    `debug`: its traceback too, unless it is the command line's.
    """
    from cleanroom.cli.views import failure

    if debug and not isinstance(error, click.ClickException):
        import traceback

        traceback.print_exception(error)
    shown = failure.explain(error)
    _write_to_stderr(shown.text)
    return shown.status


def _write_to_stderr(text: str) -> None:
    """Write to standard error; where that is gone too, the exit status alone has to tell."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def command_names() -> dict[str, Any]:
    """Every command with its click object, for the reference page."""
    context = click.Context(app)
    return {name: app.get_command(context, name) for name in COMMANDS}
